// A shared library that is opened when it is first needed, so that the program starts, and trains on the CPU, on
// machines without it.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <type_traits>

namespace nibble {

class DynamicLibrary {
 public:
  // Opens the first of `names` ("libnccl.so.2", "libnccl.so") that the dynamic linker finds. It stays open until the
  // process ends. If there is none, available() is false and reason() tells what the linker said.
  explicit DynamicLibrary(std::span<const std::string_view> names);

  bool available() const { return handle_ != nullptr; }
  const std::string& reason() const { return reason_; }
  // The path of the opened file, as the dynamic linker reports it.
  const std::string& path() const { return path_; }

  // Returns a function of the library. Throws ExitCode::bad_config if the library does not have it, which means that
  // its version is too old.
  template <class Function>
  Function* function(const char* name) const {
    static_assert(std::is_function_v<Function>);
    return reinterpret_cast<Function*>(address(name));
  }

 private:
  void* address(const char* name) const;

  void* handle_ = nullptr;
  std::string reason_;
  std::string path_;
};

}  // namespace nibble
