// A new directory that appears complete: it is filled under a hidden name beside its own, and then renamed.
#pragma once

#include <filesystem>
#include <string>

namespace nibble {

class UnfinishedDirectory {
 public:
  // Makes the hidden directory, and the parents of `target` that do not exist. Throws ExitCode::cannot_create if
  // `target` exists, with this remedy, or if the directory cannot be made.
  UnfinishedDirectory(const std::filesystem::path& target, std::string remedy);
  // Removes the directory with all that is in it, unless it was published.
  ~UnfinishedDirectory();
  UnfinishedDirectory(const UnfinishedDirectory&) = delete;
  UnfinishedDirectory& operator=(const UnfinishedDirectory&) = delete;

  const std::filesystem::path& path() const { return path_; }
  // Gives the directory its name, and returns when that is on the disk. Throws as the constructor does; nothing that
  // has appeared under the name meanwhile is replaced.
  void publish();

 private:
  [[noreturn]] void refuse_existing() const;
  std::filesystem::path target_;
  std::string remedy_;
  std::filesystem::path path_;  // empty once it is published
};

}  // namespace nibble
