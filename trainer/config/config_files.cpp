#include "trainer/config/config_files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "dist/base/error.h"
#include "dist/base/text.h"

namespace nibble {

namespace fs = std::filesystem;

bool is_config_path(std::string_view text) {
  return text.ends_with(".yaml") || text.ends_with(".yml") || text.find('/') != std::string_view::npos;
}

std::vector<std::string> config_directories(const std::string& kind, const std::string& config_directory) {
  std::vector<std::string> directories = {config_directory, config_directory + "/../" + kind, "configs/" + kind};
  if (const char* configured = std::getenv("NIBBLE_CONFIG_DIR")) {
    directories.push_back(fmt::format("{}/{}", configured, kind));
  }
  std::error_code error;
  const fs::path executable = fs::read_symlink("/proc/self/exe", error);
  if (!error) {
    const fs::path beside = executable.parent_path();
    directories.push_back((beside / "configs" / kind).string());
    directories.push_back((beside.parent_path() / "share/nibble/configs" / kind).string());
  }
  return directories;
}

std::string find_config_file(const std::string& what, const std::string& name,
                             const std::vector<std::string>& directories) {
  for (const std::string& directory : directories) {
    const fs::path path = fmt::format("{}/{}.yaml", directory, name);
    std::error_code error;
    if (fs::is_regular_file(path, error)) return path.lexically_normal().string();
  }
  throw Error(
      ExitCode::missing_input, fmt::format("no {} {}", what, shown(name)),
      fmt::format("give the path of a .yaml file, or put {}.yaml into one of: {}", name, fmt::join(directories, ", ")));
}

}  // namespace nibble
