#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dist/base/error.h"
#include "dist/base/text.h"
#include "dist/device/thread_pool.h"
#include "model/blocks/block.h"
#include "quant/format/swizzle.h"
#include "trainer/arrays/array_file.h"
#include "trainer/commands/commands.h"
#include "trainer/config/recipe/recipe_file.h"
#include "trainer/lab/operand_experiment.h"

namespace nibble {
namespace {

struct QuantizeOptions {
  std::string recipe, operand, input, output;
  OperandRole role = OperandRole::forward_x;
  std::string layer;
  int blocks = 0;  // number of blocks of the model; 0 = not given
  OperandContext context;
  bool transpose = false;
  bool swizzled = false;
  bool dequantize = false;
  bool overwrite = false;
  bool json = false;
};

OperandRole role_named(const std::string& name) {
  std::vector<std::string_view> names;
  for (const OperandRole role : all_operand_roles) {
    if (name_of(role) == name) return role;
    names.push_back(name_of(role));
  }
  throw Error(ExitCode::usage, fmt::format("--operand: unknown operand {}", unknown_word(name, names)),
              fmt::format("the operands are {}", fmt::join(names, ", ")));
}

// ---- The recipe of a layer ----

// Returns the number of the block that holds a layer, or -1 for a layer outside the blocks.
int block_of(const std::string& layer) {
  const std::optional<int> block = block_of_parameter(layer);
  if (!block) {
    throw Error(ExitCode::usage, fmt::format("--layer: {} names no block", shown(layer)),
                "name a weight like blocks.3.attention.qkv.weight, or head.weight");
  }
  return *block;
}

bool has_rules_by_position(const Recipe& recipe) {
  const auto by_position = [](const auto& rule) { return rule.layers.match.empty(); };
  return std::any_of(recipe.high_precision.begin(), recipe.high_precision.end(), by_position) ||
         std::any_of(recipe.layers.begin(), recipe.layers.end(), by_position);
}

LinearRecipe linear_recipe(const Recipe& recipe, const QuantizeOptions& options) {
  if (options.layer.empty()) return recipe.linear;
  const int block = block_of(options.layer);
  if (block >= 0 && options.blocks == 0 && has_rules_by_position(recipe)) {
    throw Error(ExitCode::usage,
                fmt::format("recipe {} has rules for the first or last blocks, so the model's number of blocks matters",
                            recipe.name),
                "give it with --blocks");
  }
  if (options.blocks != 0 && block >= options.blocks) {
    throw Error(ExitCode::usage, fmt::format("--layer {} in a model of {} blocks", options.layer, options.blocks),
                "blocks are counted from 0");
  }
  return resolve(recipe, options.layer, block, std::max(options.blocks, block + 1));
}

void check_finite(const LoadedArray& input, const std::string& location) {
  const int64_t found = count_non_finite(input.tensor);
  if (found == 0) return;
  throw Error(ExitCode::bad_data,
              fmt::format("{}: {} of {} elements are NaN or infinite", location, found, input.tensor.elements()),
              "quantise a tensor of finite numbers");
}

// ---- The output file ----

std::vector<uint8_t> swizzle(const QuantizedTensor& operand) {
  const Tensor& scales = operand.block_scales;
  const int64_t blocks = scales.cols();
  std::vector<uint8_t> swizzled(static_cast<size_t>(swizzled_scale_bytes(operand.rows, blocks)));
  for (int64_t row = 0; row < operand.rows; ++row) {
    for (int64_t block = 0; block < blocks; ++block) {
      swizzled[static_cast<size_t>(swizzled_scale_offset(row, block, blocks))] =
          scales.as<uint8_t>()[row * blocks + block];
    }
  }
  return swizzled;
}

NamedArray array_of(std::string name, const Tensor& tensor) {
  NamedArray array{.name = std::move(name),
                   .dtype = tensor.dtype() == DType::u8 ? "U8" : "F32",
                   .shape = {},
                   .data = tensor.data(),
                   .bytes = tensor.bytes()};
  for (int axis = 0; axis < tensor.rank(); ++axis) array.shape.push_back(tensor.size(axis));
  return array;
}

std::map<std::string, std::string> metadata_of(const OperandResult& result, const QuantizeOptions& options) {
  const QuantizedTensor& operand = result.operand;
  return {{"recipe", options.recipe},
          {"operand", std::string(name_of(options.role))},
          {"spec", describe(result.spec)},
          {"made_from", result.forward ? describe(*result.forward) : "the input"},
          {"format", std::string(name_of(operand.format))},
          {"rows", std::to_string(operand.rows)},
          {"inner", std::to_string(operand.inner)},
          {"rotation_bits", std::to_string(operand.rotation_bits)},
          {"input", options.input},
          {"transpose", options.transpose ? "true" : "false"},
          {"layer", options.layer},
          {"seed", std::to_string(options.context.seed)},
          {"step", std::to_string(options.context.step)},
          {"micro_batch", std::to_string(options.context.micro_batch)},
          {"tensor_id", std::to_string(options.context.tensor_id)}};
}

void save(const OperandResult& result, const QuantizeOptions& options) {
  const QuantizedTensor& operand = result.operand;
  const bool quantized = is_quantized(operand.format);
  std::vector<NamedArray> arrays;
  std::vector<uint8_t> swizzled;
  OperandValues values;
  if (quantized) {
    arrays.push_back(array_of("codes", operand.values));
    arrays.push_back(array_of("tensor_scale", operand.tensor_scale));
  }
  if (!operand.block_scales.empty()) arrays.push_back(array_of("block_scales", operand.block_scales));
  if (!operand.outer_scales.empty()) arrays.push_back(array_of("outer_scales", operand.outer_scales));
  if (options.swizzled) {
    if (operand.block_scales.empty()) {
      throw Error(ExitCode::usage, fmt::format("--swizzled: {} has no block scales", name_of(operand.format)),
                  "leave it out");
    }
    swizzled = swizzle(operand);
    const int64_t across = (operand.block_scales.cols() + 3) / 4 * 4;
    arrays.push_back({.name = "block_scales_swizzled",
                      .dtype = "U8",
                      .shape = {narrow<int64_t>(swizzled.size()) / across, across},
                      .data = swizzled.data(),
                      .bytes = swizzled.size()});
  }
  if (options.dequantize || !quantized) {
    values = operand_values(operand);
    arrays.push_back(array_of("values", values.tensor));
  }
  save_safetensors(options.output, arrays, metadata_of(result, options), options.overwrite);
}

// ---- The report ----

nlohmann::ordered_json statistics_json(const OperandStatistics& statistics) {
  return {{"relative_mse", statistics.relative_error()},
          {"cosine", statistics.cosine()},
          {"shrinkage", statistics.shrinkage()},
          {"effective_bits", statistics.effective_bits()},
          {"bits", statistics.bits},
          {"underflow_share", statistics.underflow_share()},
          {"clipped_share", statistics.clipped_share()},
          {"elements", statistics.elements},
          {"nonzero", statistics.nonzero},
          {"underflowed", statistics.underflowed},
          {"clipped", statistics.clipped},
          {"zeros", statistics.zeros},
          {"blocks", statistics.blocks},
          {"scales_zero", statistics.scales_zero},
          {"scales_subnormal", statistics.scales_subnormal},
          {"scales_largest", statistics.scales_largest},
          {"smallest_scale", statistics.smallest_scale},
          {"largest_scale", statistics.largest_scale},
          {"sum_squares", statistics.sum_squares},
          {"error_squares", statistics.error_squares}};
}

void print_json(const OperandResult& result, const QuantizeOptions& options) {
  nlohmann::ordered_json object = {{"recipe", options.recipe},
                                   {"operand", name_of(options.role)},
                                   {"spec", describe(result.spec)},
                                   {"input", options.input},
                                   {"transpose", options.transpose},
                                   {"rows", result.operand.rows},
                                   {"inner", result.operand.inner},
                                   {"seed", options.context.seed},
                                   {"step", options.context.step},
                                   {"micro_batch", options.context.micro_batch},
                                   {"tensor_id", options.context.tensor_id},
                                   {"statistics", statistics_json(result.statistics)}};
  if (result.forward) {
    object["made_from"] = describe(*result.forward);
    object["statistics_from_input"] = statistics_json(*result.from_input);
  }
  object["output"] = options.output;
  const auto replace = nlohmann::ordered_json::error_handler_t::replace;  // needed because a path may not be UTF-8
  fmt::print("{}\n", object.dump(2, ' ', false, replace));
}

void print_scales(const OperandStatistics& statistics) {
  if (statistics.blocks != 0) {
    fmt::print("block scales      {}: {} zero, {} subnormal, {} the largest\n", statistics.blocks,
               statistics.scales_zero, statistics.scales_subnormal, statistics.scales_largest);
  }
  if (statistics.largest_scale != 0) {
    fmt::print("scale of a code   {:.4g} to {:.4g}\n", statistics.smallest_scale, statistics.largest_scale);
  }
}

void print_table(const OperandResult& result, const LoadedArray& input, const QuantizeOptions& options) {
  const OperandStatistics& statistics = result.statistics;
  fmt::print("operand           {} of recipe {}: {}\n", name_of(options.role), options.recipe, describe(result.spec));
  fmt::print("input             {}: {} [{}]{}\n", options.input, name_of(input.tensor.dtype()),
             fmt::join(input.shape, ", "), options.transpose ? ", transposed" : "");
  if (result.forward) {
    fmt::print("made from         the forward operand, dequantised: {}\n", describe(*result.forward));
  }
  fmt::print("matrix            {} rows of {}\n", result.operand.rows, result.operand.inner);
  fmt::print("random bits       seed {}, step {}, micro-batch {}, tensor {}\n", options.context.seed,
             options.context.step, options.context.micro_batch, options.context.tensor_id);
  if (result.spec.history != 0) fmt::print("history           none: scaled by the tensor's own amax\n");
  fmt::print("relative MSE      {:.4e}\n", statistics.relative_error());
  if (result.from_input) fmt::print("  both roundings  {:.4e}\n", result.from_input->relative_error());
  fmt::print("cosine            {:.6f}\n", statistics.cosine());
  fmt::print("shrinkage         {:+.3e}\n", statistics.shrinkage());
  fmt::print("effective bits    {:.3f} for {:.3f} stored an element\n", statistics.effective_bits(), statistics.bits);
  fmt::print("underflow         {:.4f} % of {} that are not zero\n", 100 * statistics.underflow_share(),
             statistics.nonzero);
  fmt::print("clipped           {:.4f} %\n", 100 * statistics.clipped_share());
  print_scales(statistics);
  fmt::print("wrote             {}\n", options.output);
}

void run_quantize(QuantizeOptions& options) {
  options.role = role_named(options.operand);
  set_compute_threads(available_threads(1));
  OperandExperiment experiment{.recipe = linear_recipe(load_recipe(options.recipe), options),
                               .role = options.role,
                               .context = options.context,
                               .input = {},
                               .transpose = options.transpose};
  const LoadedArray input = load_array(options.input);
  check_finite(input, options.input);
  experiment.input = input.tensor;
  const OperandResult result = make_operand(experiment);
  save(result, options);
  if (options.json) {
    print_json(result, options);
  } else {
    print_table(result, input, options);
  }
}

void add_random_options(CLI::App& command, QuantizeOptions& options) {
  constexpr uint32_t largest_id = (uint32_t{1} << 24) - 1;
  command.add_option("--seed", options.context.seed, "Seed of the run")
      ->check(CLI::NonNegativeNumber)  // without it, -1 would be read as 2^64 - 1
      ->capture_default_str();
  command.add_option("--step", options.context.step, "Step of the run")
      ->check(CLI::Range(uint32_t{0}, UINT32_MAX))
      ->capture_default_str();
  command.add_option("--micro-batch", options.context.micro_batch, "Index of the micro-batch in the step")
      ->check(CLI::Range(uint32_t{0}, largest_id))
      ->capture_default_str();
  command.add_option("--tensor-id", options.context.tensor_id, "Position of the layer's weight in the model's table")
      ->check(CLI::Range(uint32_t{0}, largest_id))
      ->capture_default_str();
}

}  // namespace

void add_quantize_options(CLI::App& command) {
  auto options = std::make_shared<QuantizeOptions>();
  command.add_option("--recipe", options->recipe, "Name or file of a recipe")->required();
  command
      .add_option("--operand", options->operand,
                  "forward.x, forward.w, grad_input.dy, grad_input.w, grad_weight.dy or grad_weight.x")
      ->required();
  command
      .add_option(
          "--input", options->input,
          "The operand's matrix [rows, inner]: FILE.npy, FILE.safetensors:TENSOR or CHECKPOINT/index.h5:GROUP/TENSOR")
      ->required();
  command.add_option("--output", options->output, "The .safetensors file to write")->required();
  add_random_options(command, *options);
  command.add_option("--layer", options->layer, "Name of the weight whose rules apply; without it no rule does");
  command.add_option("--blocks", options->blocks, "Blocks of the model, for rules about its first and last ones")
      ->check(CLI::Range(1, 1 << 20));
  command.add_flag("--transpose", options->transpose, "Quantise the input's transpose");
  command.add_flag("--swizzled", options->swizzled, "Write the block scales in tiles of 128x4, too, as GPUs want them");
  command.add_flag("--dequantize", options->dequantize, "Write the operand's values, too, in FP32");
  command.add_flag("--overwrite", options->overwrite, "Replace the output if it exists");
  command.add_flag("--json", options->json, "Print a JSON object instead of a table");
  command.footer(
      "Example:\n  nibble quantize --recipe nvfp4 --operand forward.w --output q.safetensors \\\n"
      "    --input runs/quickstart/nvfp4/checkpoints/step-00000200/index.h5:parameters/blocks.1.mlp.down.weight");
  command.final_callback([options] { run_quantize(*options); });
}

}  // namespace nibble
