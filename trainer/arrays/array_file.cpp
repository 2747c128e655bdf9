#include "trainer/arrays/array_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <new>
#include <optional>
#include <string_view>
#include <system_error>

#include "dist/base/error.h"
#include "dist/base/text.h"
#include "trainer/arrays/stored_array.h"

namespace nibble {

namespace {

enum class FileKind : uint8_t { npy, safetensors, checkpoint };

struct KindOfFile {
  std::string_view suffix;
  FileKind kind;
};
constexpr std::array<KindOfFile, 4> kinds{{{".npy", FileKind::npy},
                                           {".safetensors", FileKind::safetensors},
                                           {".h5", FileKind::checkpoint},
                                           {".hdf5", FileKind::checkpoint}}};

struct Location {
  std::filesystem::path path;
  std::string name;  // empty = no name was given
  FileKind kind = FileKind::npy;
};

std::optional<FileKind> kind_of(std::string_view path) {
  for (const KindOfFile& known : kinds) {
    if (path.ends_with(known.suffix)) return known.kind;
  }
  return std::nullopt;
}

// Splits a location into file and name. Both may hold colons: the file is the shortest part before a colon, or the
// whole text, that ends like the name of an array file and exists.
Location parse_location(const std::string& location) {
  std::optional<Location> first;
  for (size_t end = 0; end != std::string::npos;) {
    end = location.find(':', end + 1);
    const std::string path = location.substr(0, end);
    const std::optional<FileKind> kind = kind_of(path);
    if (!kind) continue;
    Location found{path, end == std::string::npos ? "" : location.substr(end + 1), *kind};
    if (end != std::string::npos && found.name.empty()) {
      throw Error(ExitCode::usage, fmt::format("{}: no name after the colon", shown(location)),
                  "name the tensor, or leave out the colon");
    }
    std::error_code ignored;
    if (std::filesystem::exists(found.path, ignored)) return found;
    if (!first) first = std::move(found);
  }
  if (first) return *first;
  throw Error(ExitCode::usage, fmt::format("{} does not name an array file", shown(location)),
              "give FILE.npy, FILE.safetensors[:TENSOR] or CHECKPOINT/index.h5:GROUP/TENSOR");
}

LoadedArray load(const Location& location) {
  switch (location.kind) {
    case FileKind::safetensors: return load_safetensors(location.path, location.name);
    case FileKind::checkpoint: return load_checkpoint_array(location.path, location.name);
    case FileKind::npy: break;
  }
  if (!location.name.empty()) {
    throw Error(ExitCode::usage, fmt::format("{}: a .npy file holds one array, without a name", location.path.string()),
                "leave out the colon and what follows it");
  }
  return load_npy(location.path);
}

}  // namespace

LoadedArray load_array(const std::string& location) {
  try {
    return load(parse_location(location));
  } catch (const std::bad_alloc&) {
    throw Error(ExitCode::out_of_memory, fmt::format("{}: not enough memory to read it", location),
                "read a smaller array, or do it on a machine with more memory");
  }
}

}  // namespace nibble
