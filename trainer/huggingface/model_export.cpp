#include "trainer/huggingface/model_export.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "dist/base/error.h"
#include "dist/base/file.h"
#include "dist/base/log.h"
#include "dist/base/signals.h"
#include "model/blocks/block.h"
#include "model/language_model.h"
#include "quant/format/codec.h"
#include "quant/tensor/tensor_copy.h"
#include "trainer/arrays/safetensors_writer.h"
#include "trainer/checkpoint/unfinished_directory.h"
#include "trainer/huggingface/architecture.h"
#include "trainer/huggingface/source_kinds.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr uint64_t chunk_elements = uint64_t{1} << 20;

// Returns the parameters of a model without taking memory for it.
Layout layout_of(const RunConfig& config) {
  return LanguageModel(config.model, Recipe{.name = "bf16"},
                       {.sequence_length = config.model.sequence_length, .training = false, .measure_only = true})
      .parameters()
      .layout();
}

// Returns "model.layers.0.self_attn.q_proj" for a weight of that module.
std::string module_of(const std::string& tensor_name) {
  return tensor_name.substr(0, tensor_name.rfind('.'));
}

// The tensors of an export in their order, and how their bytes are made.
class ExportedTensors {
 public:
  ExportedTensors(const CheckpointInfo& checkpoint, const RunConfig& config, const ExportOptions& options)
      : checkpoint_(checkpoint), config_(config), options_(options), layout_(layout_of(config)) {
    const Architecture& architecture = architecture_of(config.model);
    for (NamedPart& part : named_parts(architecture.names, layout_, layers_of(architecture, config.model))) {
      add(std::move(part));
    }
    // A head with the embedding's weights has no tensor, but it is a linear layer that engines would look for.
    if (config.model.tied_head) excluded_.emplace_back("lm_head");
    summary_.architecture = architecture.name;
  }

  const std::vector<SafetensorsTensor>& headers() const { return headers_; }
  const std::vector<std::string>& excluded() const { return excluded_; }
  const ExportSummary& summary() const { return summary_; }

  void write(size_t index, SafetensorsWriter& writer) {
    const Tensors& own = tensors_[index];
    if (own.piece == Piece::values) {
      write_values(own.part, writer);
      return;
    }
    const PackedWeight& packed = pack(own.part.tensor);
    const TensorLayout& tensor = layout_.tensors()[own.part.tensor];
    const auto row = tensor.count / static_cast<uint64_t>(tensor.shape.front());
    const uint64_t begin = own.part.elements.begin / row;
    const uint64_t end = own.part.elements.end / row;
    if (own.piece == Piece::tensor_scale) {
      const float scale = tensor_scale_of(packed, options_.format);
      writer.write(std::as_bytes(std::span(&scale, 1)));
    } else {
      const Tensor& bytes = own.piece == Piece::codes ? packed.operand.values : packed.operand.block_scales;
      writer.write({static_cast<const std::byte*>(bytes.data()) + begin * static_cast<uint64_t>(bytes.cols()),
                    (end - begin) * static_cast<uint64_t>(bytes.cols())});
    }
  }

 private:
  enum class Piece : uint8_t { values, codes, block_scales, tensor_scale };
  struct Tensors {
    NamedPart part;
    Piece piece = Piece::values;
  };

  void add(NamedPart part) {
    summary_.parameters += part.elements.count();
    const TensorLayout& tensor = layout_.tensors()[part.tensor];
    if (options_.format != ExportFormat::huggingface && packs(tensor)) {
      summary_.packed += part.elements.count();
      const PackedNames names = packed_names(options_.format);
      const std::string module = module_of(part.name) + ".";
      const int64_t rows = part.shape[0];
      const int64_t columns = part.shape[1];
      add_tensor({module + std::string(names.codes), "U8", {rows, columns / 2}}, part, Piece::codes);
      add_tensor({module + std::string(names.block_scales), "F8_E4M3", {rows, columns / 16}}, part,
                 Piece::block_scales);
      add_tensor({module + std::string(names.tensor_scale), "F32", names.tensor_scale_shape}, part,
                 Piece::tensor_scale);
      return;
    }
    const bool is_linear = tensor.use == TensorUse::matrix || tensor.use == TensorUse::head;
    if (is_linear && part.shape.size() == 2) excluded_.push_back(module_of(part.name));
    const std::string name = part.name;
    const std::vector<int64_t> shape = part.shape;
    add_tensor({name, options_.dtype == DType::bf16 ? "BF16" : "F32", shape}, part, Piece::values);
  }

  void add_tensor(SafetensorsTensor header, const NamedPart& part, Piece piece) {
    summary_.bytes += header.bytes();
    headers_.push_back(std::move(header));
    tensors_.push_back({part, piece});
  }

  std::optional<OperandSpec> spec_of(const TensorLayout& tensor) const {
    const auto blocks = static_cast<int>(config_.model.blocks());
    return packed_spec(config_.recipe, tensor.name, block_of_parameter(tensor.name).value_or(-1), blocks);
  }
  bool packs(const TensorLayout& tensor) const {
    return tensor.use == TensorUse::matrix && tensor.shape.size() == 2 && spec_of(tensor).has_value();
  }

  uint32_t saved_tensor(uint32_t tensor) const {
    const TensorLayout& own = layout_.tensors()[tensor];
    const TensorLayout* const saved = checkpoint_.layout.find(own.name);
    if (saved != nullptr && saved->shape == own.shape) {
      return static_cast<uint32_t>(saved - checkpoint_.layout.tensors().data());
    }
    throw Error(ExitCode::bad_data,
                fmt::format("{} has no tensor {} of its model's shape", checkpoint_.directory.string(), own.name),
                "export a checkpoint whose config.yaml is its own");
  }

  void write_values(const NamedPart& part, SafetensorsWriter& writer) const {
    const uint32_t saved = saved_tensor(part.tensor);
    std::vector<float> values;
    std::vector<BFloat16> rounded;
    for (uint64_t begin = part.elements.begin; begin < part.elements.end; begin += chunk_elements) {
      values.resize(std::min(chunk_elements, part.elements.end - begin));
      read_weights(checkpoint_, saved, begin, values);
      if (options_.dtype == DType::f32) {
        writer.write(std::as_bytes(std::span(values)));
        continue;
      }
      rounded.resize(values.size());
      std::transform(values.begin(), values.end(), rounded.begin(), [](float value) { return bf16_nearest(value); });
      writer.write(std::as_bytes(std::span(rounded)));
    }
  }

  // Packs a whole tensor, so that its parts share one tensor scale. They follow each other, so one is kept.
  const PackedWeight& pack(uint32_t tensor) {
    if (packed_tensor_ == tensor) return packed_;
    const TensorLayout& layout = layout_.tensors()[tensor];
    std::vector<float> values(layout.count);
    read_weights(checkpoint_, saved_tensor(tensor), 0, values);
    packed_ = pack_weight(*spec_of(layout), Tensor(values.data(), DType::f32, {layout.shape[0], layout.shape[1]}),
                          layout.name);
    packed_tensor_ = tensor;
    return packed_;
  }

  const CheckpointInfo& checkpoint_;
  const RunConfig& config_;
  const ExportOptions& options_;
  Layout layout_;
  std::vector<SafetensorsTensor> headers_;
  std::vector<Tensors> tensors_;  // [headers]
  std::vector<std::string> excluded_;
  ExportSummary summary_;
  PackedWeight packed_;
  std::optional<uint32_t> packed_tensor_;
};

// Returns the index of the first tensor of each file, and the number of tensors at the end.
std::vector<size_t> cut_into_files(const std::vector<SafetensorsTensor>& tensors, uint64_t most) {
  std::vector<size_t> first{0};
  uint64_t bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (bytes > 0 && bytes + tensors[i].bytes() > most) {
      first.push_back(i);
      bytes = 0;
    }
    bytes += tensors[i].bytes();
  }
  first.push_back(tensors.size());
  return first;
}

// Returns the number of files with weights.
size_t write_weights(ExportedTensors& tensors, uint64_t most, const fs::path& directory) {
  const std::vector<size_t> first = cut_into_files(tensors.headers(), most);
  const size_t files = first.size() - 1;
  Json map = Json::object();
  for (size_t file = 0; file < files; ++file) {
    const std::string name =
        files == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", file + 1, files);
    const auto begin = tensors.headers().begin() + static_cast<std::ptrdiff_t>(first[file]);
    const auto end = tensors.headers().begin() + static_cast<std::ptrdiff_t>(first[file + 1]);
    SafetensorsWriter writer(directory / name, {begin, end}, {{"format", "pt"}});
    for (size_t i = first[file]; i < first[file + 1]; ++i) {
      if (stop_requested()) {
        throw Error(ExitCode::start_again, "stopped before the end of the export", "run it again");
      }
      tensors.write(i, writer);
      map[tensors.headers()[i].name] = name;
    }
    writer.publish();
  }
  if (files > 1) {
    const Json index = {{"metadata", {{"total_size", tensors.summary().bytes}}}, {"weight_map", map}};
    write_file(directory / "model.safetensors.index.json", index.dump(2) + "\n");
  }
  return files;
}

std::string generation_config_json(const std::optional<SpecialTokenIds>& tokens) {
  Json root = {{"_from_model_config", true}};
  if (tokens) {
    root["bos_token_id"] = tokens->beginning;
    root["eos_token_id"] = tokens->end;
    root["pad_token_id"] = tokens->padding;
  }
  return root.dump(2) + "\n";
}

std::optional<SpecialTokenIds> write_tokenizer(const RunConfig& config, const fs::path& directory) {
  const fs::path tokenizer = tokenizer_path(config);
  std::error_code ignored;
  if (!fs::exists(tokenizer, ignored)) {
    log_warning("the export has no tokenizer: there is no {}; data.tokenizer names another", tokenizer.string());
    return std::nullopt;
  }
  return write_tokenizer_files(tokenizer, static_cast<uint32_t>(config.model.vocab_size), config.model.sequence_length,
                               directory);
}

}  // namespace

ExportSummary export_model(const CheckpointInfo& checkpoint, const RunConfig& config, const ExportOptions& options) {
  ExportedTensors tensors(checkpoint, config, options);
  ExportSummary summary = tensors.summary();
  const bool packs = options.format != ExportFormat::huggingface;
  if (packs && checkpoint.step > switch_step(config.recipe, static_cast<uint64_t>(config.train.steps))) {
    log_warning("the recipe {} has switched formats before step {}; weights are packed as it rounds them before that",
                config.recipe.name, checkpoint.step);
  }
  if (packs && summary.packed == 0) {
    throw Error(ExitCode::bad_config,
                fmt::format("the recipe {} quantises no weight of a forward product to NVFP4", config.recipe.name),
                "export with --format huggingface");
  }
  UnfinishedDirectory directory(options.directory, "name another directory, or remove it");
  const std::optional<SpecialTokenIds> tokens = write_tokenizer(config, directory.path());
  summary.weight_files = write_weights(tensors, options.file_bytes, directory.path());
  write_file(directory.path() / "config.json",
             config_json(config.model, tokens, options.dtype == DType::bf16 ? "bfloat16" : "float32",
                         quantization_config(options.format, tensors.excluded())));
  write_file(directory.path() / "generation_config.json", generation_config_json(tokens));
  if (options.format == ExportFormat::modelopt) {
    write_file(directory.path() / "hf_quant_config.json", modelopt_config(tensors.excluded()));
  }
  directory.publish();
  return summary;
}

}  // namespace nibble
