// Takes the weights of a checkpoint of nibble as a model to start from: the kind of trainer/huggingface/source_kinds.h
// that has a manifest.
#include <fmt/format.h>

#include <cstring>
#include <utility>

#include "data/tokenizers/tokenizer.h"
#include "dist/base/error.h"
#include "quant/tensor/tensor_copy.h"
#include "trainer/arrays/stored_array.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/checkpoint_directory.h"
#include "trainer/config/run_config.h"
#include "trainer/huggingface/source_kinds.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

class CheckpointSource final : public ModelSource {
 public:
  CheckpointSource(const std::string& location, CheckpointInfo checkpoint)
      : ModelSource(location), checkpoint_(std::move(checkpoint)) {
    const RunConfig config =
        parse_run_config_text(checkpoint_.config_yaml, (checkpoint_.directory / "config.yaml").string());
    model_ = config.model;
    const fs::path tokenizer = tokenizer_path(config);
    std::error_code ignored;
    if (fs::exists(tokenizer, ignored)) tokenizer_ = tokenizer;
    for (const TensorLayout& tensor : checkpoint_.layout.tensors()) tensors_.push_back({tensor.name, tensor.shape});
  }

  fs::path tokenizer() const override { return tokenizer_; }

  std::vector<NamedPart> parts(const ModelConfig& /*model*/, const Layout& layout) const override {
    std::vector<NamedPart> parts;
    for (uint32_t i = 0; i < layout.tensors().size(); ++i) {
      const TensorLayout& tensor = layout.tensors()[i];
      parts.push_back({.name = tensor.name, .tensor = i, .elements = {0, tensor.count}, .shape = tensor.shape});
    }
    return parts;
  }

  void read(size_t tensor, uint64_t first, std::span<float> values) const override {
    read_weights(checkpoint_, static_cast<uint32_t>(tensor), first, values);
  }

 private:
  CheckpointInfo checkpoint_;
  fs::path tokenizer_;
};

}  // namespace

void read_weights(const CheckpointInfo& checkpoint, uint32_t tensor, uint64_t first, std::span<float> values) {
  const ArrayInfo* const weights = checkpoint.find_array(weights_array_name);
  NIBBLE_CHECK(weights != nullptr, "a checkpoint has weights");
  const TensorLayout& layout = checkpoint.layout.tensors()[tensor];
  const DType dtype = weights->dtype_of(layout);
  std::vector<std::byte> bytes(values.size() * size_of(dtype));
  load_elements(checkpoint, *weights, tensor, {first, first + values.size()}, bytes);
  const StoredArray stored{.location = location_text(checkpoint.directory, layout.name),
                           .name = layout.name,
                           .shape = {values.size()},
                           .type = dtype == DType::bf16 ? StoredDType::bf16 : StoredDType::f32};
  const std::byte* next = bytes.data();
  read_floats(
      stored,
      [&](std::span<std::byte> target) {
        std::memcpy(target.data(), next, target.size());
        next += target.size();
      },
      values);
}

ModelConfig checkpoint_model(const std::string& location) {
  const fs::path directory = written_checkpoint(location);
  std::error_code ignored;
  if (!fs::exists(directory, ignored)) {
    throw Error(ExitCode::missing_input, fmt::format("model.from: there is no {}", location),
                "name a directory with a config.json, or the directory of a run");
  }
  if (!fs::exists(directory / "config.yaml", ignored)) {
    throw Error(
        ExitCode::bad_data,
        fmt::format("{} has neither the config.json of a Hugging Face model nor the config.yaml of a run", location),
        "name the directory of a model, or that of a run, RUN_DIR or RUN_DIR@STEP");
  }
  return parse_run_config(directory / "config.yaml").model;
}

std::unique_ptr<ModelSource> open_checkpoint_source(Communicator& communicator, const std::string& location) {
  run_together(communicator, [&] { checkpoint_model(location); });
  CheckpointInfo checkpoint = open_checkpoint(communicator, location);
  std::unique_ptr<ModelSource> source;
  run_together(communicator, [&] { source = std::make_unique<CheckpointSource>(location, std::move(checkpoint)); });
  return source;
}

}  // namespace nibble
