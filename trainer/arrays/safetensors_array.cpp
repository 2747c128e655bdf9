// A tensor of a safetensors file as an array.
#include <fmt/format.h>

#include <string>
#include <vector>

#include "dist/base/error.h"
#include "trainer/arrays/safetensors_file.h"
#include "trainer/arrays/stored_array.h"

namespace nibble {
namespace {

const SafetensorsEntry& choose(const SafetensorsFile& file, const std::string& name) {
  if (file.entries().empty()) fail_array(file.name(), "the file holds no tensor", "check the path");
  std::vector<std::string> names;
  for (const SafetensorsEntry& entry : file.entries()) {
    if (entry.name == name || (name.empty() && file.entries().size() == 1)) return entry;
    names.push_back(entry.name);
  }
  const std::string list = listed(names, names.size());
  if (name.empty()) {
    throw Error(ExitCode::usage, fmt::format("{}: holds {} tensors: {}", file.name(), names.size(), list),
                fmt::format("name one: {}:NAME", file.name()));
  }
  throw Error(ExitCode::missing_input,
              fmt::format("{}: there is none; the file holds {}", location_text(file.name(), name), list),
              "check the tensor's name");
}

}  // namespace

LoadedArray load_safetensors(const std::filesystem::path& path, const std::string& name) {
  const SafetensorsFile file(path);
  const SafetensorsEntry& entry = choose(file, name);
  uint64_t offset = 0;
  return read_stored({file.location(entry), entry.name, entry.shape, file.element_type(entry)},
                     [&](std::span<std::byte> target) {
                       file.read(entry, offset, target);
                       offset += target.size();
                     });
}

}  // namespace nibble
