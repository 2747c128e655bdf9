#include "dist/base/dynamic_library.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <link.h>

#include "dist/base/error.h"

namespace nibble {

DynamicLibrary::DynamicLibrary(std::span<const std::string_view> names) {
  for (const std::string_view name : names) {
    handle_ = dlopen(std::string(name).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_ != nullptr) {
      link_map* map = nullptr;
      path_ = dlinfo(handle_, RTLD_DI_LINKMAP, &map) == 0 ? map->l_name : std::string(name);
      reason_.clear();
      return;
    }
    const char* message = dlerror();
    reason_ += fmt::format("{}{}", reason_.empty() ? "" : "; ", message != nullptr ? message : name);
  }
}

void* DynamicLibrary::address(const char* name) const {
  NIBBLE_CHECK(available(), "a function of a library that is not there");
  void* found = dlsym(handle_, name);
  if (found != nullptr) return found;
  throw Error(ExitCode::bad_config, fmt::format("{} has no function {}", path_, name),
              "install the version of the library that docs/gpu.md names, or put it first in LD_LIBRARY_PATH");
}

}  // namespace nibble
