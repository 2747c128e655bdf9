#include "trainer/huggingface/packed_weights.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "dist/base/error.h"
#include "quant/quantize/quantize.h"

namespace nibble {
namespace {

using Json = nlohmann::ordered_json;

[[noreturn]] void refuse(const Recipe& recipe, std::string_view name, std::string_view what) {
  throw Error(ExitCode::bad_config,
              fmt::format("the recipe {} quantises {} {}, which no engine decodes", recipe.name, name, what),
              "export with --format huggingface and quantise there, or train with a recipe such as nvfp4");
}

Json weights_json() {
  return {{"dynamic", false}, {"group_size", 16}, {"num_bits", 4}, {"type", "float"}};
}

Json producer_json() {
  return {{"name", "nibble"}, {"version", NIBBLE_VERSION}};
}

constexpr const char* modelopt_algorithm = "W4A16_NVFP4";

}  // namespace

PackedNames packed_names(ExportFormat format) {
  NIBBLE_CHECK(format != ExportFormat::huggingface, "this format packs nothing");
  if (format == ExportFormat::modelopt) {
    return {.codes = "weight",
            .block_scales = "weight_scale",
            .tensor_scale = "weight_scale_2",
            .tensor_scale_shape = {},
            .divides = false};
  }
  return {.codes = "weight_packed",
          .block_scales = "weight_scale",
          .tensor_scale = "weight_global_scale",
          .tensor_scale_shape = {1},
          .divides = true};
}

std::optional<OperandSpec> packed_spec(const Recipe& recipe, std::string_view name, int block, int blocks) {
  const OperandSpec spec = resolve(recipe, name, block, blocks).forward_w;
  if (spec.format != Format::nvfp4) return std::nullopt;
  if (spec.rotate != 0) refuse(recipe, name, "in a rotated basis");
  if (spec.outer != OuterScale::tensor) refuse(recipe, name, "with an FP32 scale for every 128 elements");
  if (has_rounding_noise(spec)) refuse(recipe, name, "with random rounding");
  if (recipe.outliers) refuse(recipe, name, "and keeps outlier channels beside it");
  return spec;
}

PackedWeight pack_weight(const OperandSpec& spec, const Tensor& weight, const std::string& name) {
  PackedWeight packed;
  packed.memory = std::make_unique<Arena>("packed weight");
  packed.largest = largest_of_tensor(spec);
  OperandSpec original = spec;
  original.from = Source::original;
  check_shape(original, weight.rows(), weight.cols(), name);
  const QuantizedTensor storage = planned(*packed.memory, [&] {
    return allocate_operand(*packed.memory, original, weight.dtype(), weight.rows(), weight.cols());
  });
  packed.operand = quantize({.source = weight, .spec = original}, storage);
  if (source_was_finite(packed.operand)) return packed;
  throw Error(ExitCode::bad_data, fmt::format("{} has weights that are not finite", name),
              "export an earlier checkpoint");
}

float tensor_scale_of(const PackedWeight& weight, ExportFormat format) {
  const float amax = weight.operand.tensor_scale.as<float>()[1];
  if (amax == 0) return 1;  // all codes are zero
  return packed_names(format).divides ? weight.largest / amax : amax / weight.largest;
}

nlohmann::ordered_json quantization_config(ExportFormat format, const std::vector<std::string>& excluded) {
  if (format == ExportFormat::huggingface) return {};
  Json weights = weights_json();
  if (format == ExportFormat::modelopt) {
    const Json group = {{"targets", {"Linear"}}, {"weights", weights}};
    return {{"config_groups", {{"group_0", group}}},
            {"ignore", excluded},
            {"producer", producer_json()},
            {"quant_algo", modelopt_algorithm},
            {"quant_method", "modelopt"}};
  }
  weights["strategy"] = "tensor_group";
  weights["symmetric"] = true;
  const Json group = {{"format", "nvfp4-pack-quantized"},
                      {"input_activations", nullptr},
                      {"output_activations", nullptr},
                      {"targets", {"Linear"}},
                      {"weights", weights}};
  return {{"config_groups", {{"group_0", group}}},
          {"format", "nvfp4-pack-quantized"},
          {"ignore", excluded},
          {"quant_method", "compressed-tensors"},
          {"quantization_status", "compressed"}};
}

std::string modelopt_config(const std::vector<std::string>& excluded) {
  const Json quantization = {{"quant_algo", modelopt_algorithm},
                             {"kv_cache_quant_algo", nullptr},
                             {"group_size", 16},
                             {"exclude_modules", excluded}};
  return Json{{"producer", producer_json()}, {"quantization", quantization}}.dump(2) + "\n";
}

}  // namespace nibble
