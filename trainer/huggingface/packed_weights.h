// The weights of linear layers as engines that serve models in NVFP4 read them: the codes and the block scales are the
// bytes of the recipe's forward operand W, and one more number scales the tensor. Only weights are packed (W4A16).
// Sources: https://github.com/vllm-project/compressed-tensors, nvfp4-pack-quantized, and
// https://github.com/NVIDIA/Model-Optimizer, quant_algo W4A16_NVFP4.
#pragma once

#include <cstddef>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dist/base/enum_names.h"
#include "dist/device/arena.h"
#include "quant/recipe/recipe.h"
#include "quant/tensor/quantized_tensor.h"

namespace nibble {

enum class ExportFormat : uint8_t { huggingface, compressed_tensors, modelopt };
constexpr auto enum_names(ExportFormat) {
  return std::to_array<EnumName<ExportFormat>>({{ExportFormat::huggingface, "huggingface"},
                                                {ExportFormat::compressed_tensors, "compressed-tensors"},
                                                {ExportFormat::modelopt, "modelopt"}});
}

// How a format writes the parts of a packed weight.
struct PackedNames {
  std::string_view codes;         // "weight_packed": U8 [out, in / 2], the even element in the low nibble
  std::string_view block_scales;  // "weight_scale": F8_E4M3 [out, in / 16], row-major
  std::string_view tensor_scale;  // "weight_global_scale", "weight_scale_2": F32
  std::vector<int64_t> tensor_scale_shape;
  bool divides = false;  // value = code * block scale / tensor scale, not times
};
PackedNames packed_names(ExportFormat format);

// Returns how a recipe quantises the weight `name` of block `block` in forward, if it does so in NVFP4; nothing for a
// weight that stays in high precision. Throws ExitCode::bad_config for an operand that no engine can decode: rotated,
// with outer scales, with random rounding, or beside retained outlier channels.
std::optional<OperandSpec> packed_spec(const Recipe& recipe, std::string_view name, int block, int blocks);

struct PackedWeight {
  std::unique_ptr<Arena> memory;
  QuantizedTensor operand;  // in rows
  float largest = 0;        // the tensor's largest magnitude divided by the tensor scale: 2688 or less
};
// Throws ExitCode::bad_data, naming the tensor, if the weight is not finite.
PackedWeight pack_weight(const OperandSpec& spec, const Tensor& weight, const std::string& name);
// Returns the number that scales the tensor, as the format has it: 2688 / amax or amax / 2688.
float tensor_scale_of(const PackedWeight& weight, ExportFormat format);

// Returns the member quantization_config of config.json. `excluded` are the modules that stay in BF16.
nlohmann::ordered_json quantization_config(ExportFormat format, const std::vector<std::string>& excluded);
// Returns the text of hf_quant_config.json, which belongs to modelopt.
std::string modelopt_config(const std::vector<std::string>& excluded);

}  // namespace nibble
