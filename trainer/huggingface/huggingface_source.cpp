// Reads models as Hugging Face's library saves them: the kind of trainer/huggingface/source_kinds.h that has a
// config.json.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "data/tokenizers/tokenizer.h"
#include "dist/base/error.h"
#include "dist/base/text.h"
#include "trainer/arrays/safetensors_file.h"
#include "trainer/huggingface/source_kinds.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t largest_index = uint64_t{256} << 20;
constexpr const char* index_name = "model.safetensors.index.json";

// Returns the file of each tensor, as the index says.
std::map<std::string, std::string> read_index(const fs::path& path) {
  const nlohmann::json root = nlohmann::json::parse(read_file(path, largest_index), nullptr, false);
  const bool has_map = root.is_object() && root.contains("weight_map") && root["weight_map"].is_object();
  const nlohmann::json map = has_map ? root["weight_map"] : nlohmann::json::object();
  std::map<std::string, std::string> files;
  bool good = has_map;
  for (const auto& [name, file] : map.items()) {
    good = good && file.is_string() &&
           fs::path(file.template get<std::string>()).filename().string() == file.template get<std::string>();
    if (good) files.emplace(name, file.template get<std::string>());
  }
  if (good) return files;
  throw Error(
      ExitCode::bad_data,
      fmt::format("{}: is no index: \"weight_map\" must give a file of the directory for each tensor", path.string()),
      "download the file again");
}

class HuggingfaceSource final : public ModelSource {
 public:
  explicit HuggingfaceSource(const std::string& directory) : ModelSource(directory), directory_(directory) {
    DescribedModel described = read_config_json(directory_);
    architecture_ = described.architecture;
    model_ = std::move(described.model);
    open_files();
  }

  fs::path tokenizer() const override {
    const fs::path path = Tokenizer::find_beside(directory_);
    return fs::exists(path) ? path : fs::path();
  }

  std::vector<NamedPart> parts(const ModelConfig& model, const Layout& layout) const override {
    return named_parts(architecture_->names, layout, layers_of(architecture_of(model), model));
  }

  void read(size_t tensor, uint64_t first, std::span<float> values) const override {
    const Place& place = places_[tensor];
    const SafetensorsFile& file = *files_[place.file];
    const SafetensorsEntry& entry = file.entries()[place.entry];
    const StoredDType type = file.element_type(entry);
    uint64_t offset = first * size_of(type);
    read_floats(
        {file.location(entry), entry.name, entry.shape, type},
        [&](std::span<std::byte> target) {
          file.read(entry, offset, target);
          offset += target.size();
        },
        values);
  }

 private:
  struct Place {
    size_t file = 0;
    size_t entry = 0;
  };

  void open_files() {
    const fs::path index = directory_ / index_name;
    std::map<std::string, std::string> expected;  // empty without an index
    std::set<std::string> names{"model.safetensors"};
    if (fs::exists(index)) {
      expected = read_index(index);
      names.clear();
      for (const auto& [tensor, file] : expected) names.insert(file);
    } else if (!fs::exists(directory_ / "model.safetensors")) {
      refuse_without_weights();
    }
    for (const std::string& name : names) {
      files_.push_back(std::make_unique<SafetensorsFile>(directory_ / name));
      add_tensors(*files_.back(), name, expected);
    }
    for (const auto& [tensor, file] : expected) {
      if (!seen_.contains(tensor)) {
        throw Error(
            ExitCode::bad_data,
            fmt::format("{} says that {} holds the tensor {}, but it does not", index.string(), file, shown(tensor)),
            "download the files again");
      }
    }
  }

  void add_tensors(const SafetensorsFile& file, const std::string& name,
                   const std::map<std::string, std::string>& expected) {
    for (size_t i = 0; i < file.entries().size(); ++i) {
      const SafetensorsEntry& entry = file.entries()[i];
      const auto listed_in = expected.find(entry.name);
      const bool of_this_file = expected.empty() || (listed_in != expected.end() && listed_in->second == name);
      if (!of_this_file || is_recomputed(entry.name)) continue;
      file.element_type(entry);
      seen_.insert(entry.name);
      tensors_.push_back({entry.name, {entry.shape.begin(), entry.shape.end()}});
      places_.push_back({files_.size() - 1, i});
    }
  }

  // Returns whether a tensor holds nothing of its own: tables of angles that old versions saved, and the copy of the
  // embedding that a head with its weights is.
  bool is_recomputed(const std::string& name) const {
    return name.ends_with(".rotary_emb.inv_freq") || (model_.tied_head && name == "lm_head.weight");
  }

  [[noreturn]] void refuse_without_weights() const {
    const bool pickled =
        fs::exists(directory_ / "pytorch_model.bin") || fs::exists(directory_ / "pytorch_model.bin.index.json");
    throw Error(ExitCode::missing_input,
                fmt::format("{} has neither model.safetensors nor {}", directory_.string(), index_name),
                pickled ? "pytorch_model.bin holds a program as well as numbers; convert it: load the model in Python "
                          "and save it with save_pretrained(DIR, safe_serialization=True)"
                        : "download the model's weights");
  }

  fs::path directory_;
  const Architecture* architecture_ = nullptr;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::vector<Place> places_;  // [tensors]
  std::set<std::string> seen_;
};

}  // namespace

bool is_huggingface(const fs::path& directory) {
  std::error_code ignored;
  return fs::exists(directory / "config.json", ignored);
}

std::unique_ptr<ModelSource> open_huggingface(const std::string& directory) {
  return std::make_unique<HuggingfaceSource>(directory);
}

}  // namespace nibble
