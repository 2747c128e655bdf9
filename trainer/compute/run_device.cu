#include "trainer/compute/run_device.h"

#include <set>

#include "dist/device/cuda_device.h"
#include "model/blocks/block_kind.h"
#include "model/ops/attention/attention.h"
#include "model/ops/attention/attention_backend_kind.h"
#include "quant/gemm/gemm_backend_kind.h"
#include "trainer/compute/training_model.h"

namespace nibble::cuda {
namespace {

// Returns the pairs of operand formats of all GEMMs that the recipe's linear layers may run.
std::set<std::pair<Format, Format>> gemms_of(const Recipe& recipe) {
  std::set<std::pair<Format, Format>> pairs{{Format::bf16, Format::bf16}};
  const auto add = [&pairs](const LinearRecipe& linear) {
    pairs.emplace(linear.forward_x.format, linear.forward_w.format);
    pairs.emplace(linear.grad_input_dy.format, linear.grad_input_w.format);
    pairs.emplace(linear.grad_weight_dy.format, linear.grad_weight_x.format);
  };
  add(recipe.linear);
  for (const LayerRule& rule : recipe.layers) add(rule.linear);
  return pairs;
}

}  // namespace

std::string gemm_plan() {
  return export_gemm_plan();
}

void use_gemm_plan(const std::string& plan) {
  import_gemm_plan(plan);
}

double peak_flops() {
  return device_properties().bf16_flops;
}

GpuChoice use_gpu(int rank_on_machine, const RunConfig& config) {
  use_device(rank_on_machine);
  set_gemm_backend(config.cuda.gemm);
  set_attention_backend(config.cuda.attention);
  return {.uuid = device_properties().uuid, .name = device_properties().name};
}

void refuse_slow_paths(const RunConfig& config) {
  set_gemm_fallback(config.cuda.strict ? GemmFallback::none : GemmFallback::emulated);
  if (!has_block(config.model, "attention")) return;
  refuse_unasked_exact_attention(attention_use(config), config.cuda.strict ? 0 : longest_unasked_exact);
}

std::vector<std::string> describe_device(const RunConfig& config) {
  const DeviceProperties& gpu = device_properties();
  std::vector<std::string> lines;
  lines.push_back("device     " + gpu.name + ", compute capability " + std::to_string(gpu.major) + "." +
                  std::to_string(gpu.minor) + ", " + std::to_string(gpu.memory_bytes >> 20) + " MiB");
  std::string gemms;
  for (const auto& [a, b] : gemms_of(config.recipe)) gemms += (gemms.empty() ? "" : "; ") + describe_gemm(a, b);
  lines.push_back("products   " + gemms);
  lines.push_back("attention  " + describe_attention_backend(attention_use(config)));
  return lines;
}

}  // namespace nibble::cuda
