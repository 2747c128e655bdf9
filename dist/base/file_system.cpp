#include "dist/base/file_system.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <memory>
#include <span>
#include <system_error>
#include <vector>

#include "dist/base/error.h"
#include "dist/base/file.h"
#include "dist/base/file_descriptor.h"

namespace nibble {

namespace {

constexpr size_t read_block = size_t{4} << 20;

}  // namespace

FileDigest digest_file(const std::filesystem::path& path) {
  const InputFile file(path);
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), &XXH3_freeState);
  NIBBLE_CHECK(state != nullptr && XXH3_128bits_reset(state.get()) == XXH_OK, "hash state");
  std::vector<std::byte> buffer(std::clamp<uint64_t>(file.size(), 1, read_block));
  FileDigest digest;
  while (const size_t got = file.read_some(digest.bytes, buffer)) {
    XXH3_128bits_update(state.get(), buffer.data(), got);
    digest.bytes += got;
  }
  const XXH128_hash_t hash = XXH3_128bits_digest(state.get());
  digest.hash = fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
  return digest;
}

void write_new_file(const std::filesystem::path& path, std::string_view contents) {
  const FileDescriptor file(path, O_WRONLY | O_CREAT | O_EXCL);
  write_at(file, path, 0, std::as_bytes(std::span(contents)));
  sync(file, path);
}

void make_directories(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error || !std::filesystem::is_directory(path, error)) {
    const std::string reason = error ? error.message() : "something else has this name";
    throw Error(ExitCode::cannot_create, fmt::format("cannot create the directory {}: {}", path.string(), reason),
                "check permissions, or name another directory");
  }
}

bool remove_tree(const std::filesystem::path& path) noexcept {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  return !error;
}

}  // namespace nibble
