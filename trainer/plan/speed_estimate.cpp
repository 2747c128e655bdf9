#include "trainer/plan/speed_estimate.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>

#include "dist/device/thread_pool.h"
#include "model/blocks/block_kind.h"
#include "model/cost.h"
#include "model/language_model.h"
#include "quant/gemm/cuda/gemm_rules.h"
#include "trainer/compute/measured_peak.h"
#include "trainer/compute/step_schedule.h"
#include "trainer/compute/training_model.h"
#include "trainer/config/recompute_blocks.h"

namespace nibble {
namespace {

// A product [m, k] x [n, k] of two operands.
struct Product {
  OperandSpec a, b;
  double m = 0, n = 0, k = 0;

  double flops() const { return 2 * m * n * k; }
  std::string formats() const {
    const auto name = name_of(a.format);
    return a.format == b.format ? std::string(name) : fmt::format("{}/{}", name, name_of(b.format));
  }
  GemmShape shape() const {
    const bool outer = a.outer != OuterScale::tensor || b.outer != OuterScale::tensor;
    return {.a = a.format,
            .b = b.format,
            .m = static_cast<int64_t>(m),
            .n = static_cast<int64_t>(n),
            .k = static_cast<int64_t>(k),
            .outer_scales = outer};
  }
};

// The rates of a rank: what a step's parts are divided by.
class Rates {
 public:
  virtual ~Rates() = default;
  virtual double product_seconds(const Product& product) const = 0;
  // Of an operand that is made of so many elements; `gradient` is one of the output's gradient.
  virtual double quantise_seconds(const OperandSpec& spec, double elements, bool gradient) const = 0;
  virtual double attention_flops() const = 0;               // a second
  virtual double bytes() const = 0;                         // a second, of kernels that only move data
  virtual double layer_overhead(bool quantises) const = 0;  // seconds a linear layer and micro-batch
  virtual double link() const = 0;                          // bytes a second to and from other ranks
  virtual double peak() const = 0;                          // BF16 FLOP/s of the rank
  virtual std::string basis() const = 0;
};

class GpuRates final : public Rates {
 public:
  GpuRates(const PlannedDevice& device, int ranks) : device_(device), ranks_(ranks) {}

  double product_seconds(const Product& product) const override {
    if (product.shape().outer_scales) return product.flops() / fp32_flops() + decode_seconds(product);
    const bool plain = product.a.format == Format::bf16 && product.b.format == Format::bf16;
    const bool native =
        cuda::native_gemm_refusal(product.shape(), device_.capability, std::string(device_.full_name)).empty();
    if (plain || !native) {
      return product.flops() / (device_.bf16() * device_.gemm_bf16) + (plain ? 0 : decode_seconds(product));
    }
    if (product.a.format == Format::nvfp4) return product.flops() / (device_.nvfp4 * device_.gemm_nvfp4);
    return product.flops() / (device_.fp8 * device_.gemm_fp8);
  }
  double quantise_seconds(const OperandSpec& spec, double elements, bool gradient) const override {
    const bool four_bits = spec.format == Format::nvfp4 || spec.format == Format::mxfp4;
    const double moved = elements * (four_bits ? 2.6 : 3) / bytes();
    if (!four_bits) return moved;
    return std::max(moved, elements * lane_cycles(spec, gradient) / (0.75 * device_.lane_cycles));
  }
  double attention_flops() const override { return device_.bf16() * device_.attention; }
  double bytes() const override { return 0.75 * device_.bandwidth; }
  double layer_overhead(bool quantises) const override { return quantises ? 18e-6 : 2e-6; }
  double link() const override { return ranks_ <= device_.gpus_a_machine ? 0.7 * device_.link : network; }
  double peak() const override { return device_.bf16(); }
  std::string basis() const override {
    std::string text = fmt::format(
        "estimate, not measured: data-sheet peaks of {} ({}) times assumed shares: BF16 products {:.0f} %, FP8 {:.0f} "
        "%",
        device_.full_name, device_.source, 100 * device_.gemm_bf16, 100 * device_.gemm_fp8);
    text += device_.nvfp4 > 0 ? fmt::format(", NVFP4 {:.0f} %", 100 * device_.gemm_nvfp4)
                              : std::string("; NVFP4 products are emulated in BF16 with decoding");
    text += fmt::format("; attention {:.0f} %, memory 75 %, quantisers 75 % of the rate of instructions",
                        100 * device_.attention);
    if (ranks_ > 1) {
      text += fmt::format("; gradients and weights at {:.0f} GB/s a GPU, not overlapped", link() / 1e9);
    }
    return text;
  }

 private:
  static constexpr double network = 40e9;  // bytes a second of a GPU between machines: 400 Gbit/s at 80 %

  double fp32_flops() const { return 0.5 * device_.lane_cycles * 2; }
  // Every operand that is not BF16 is read and written anew; the kernel is limited by its instructions.
  double decode_seconds(const Product& product) const {
    constexpr double cycles = 20;
    double elements = 0;
    if (product.a.format != Format::bf16) elements += product.m * product.k;
    if (product.b.format != Format::bf16) elements += product.n * product.k;
    return elements * std::max(2.56 / bytes(), cycles / (0.75 * device_.lane_cycles));
  }
  // Lane-cycles an element of one operand: half of those of a pair (docs/gpu.md, "What kernels move").
  double lane_cycles(const OperandSpec& spec, bool gradient) const {
    const bool has_conversions = device_.capability >= 100;
    if (!gradient) return has_conversions ? 30 : 58;
    if (spec.round == Rounding::ms_eden) return has_conversions ? 53 : 70;
    return has_conversions ? 64 : 70;
  }

  const PlannedDevice& device_;
  int ranks_;
};

// The rates of docs/performance.md, scaled by the peak of FP32 multiply-adds.
class CpuRates final : public Rates {
 public:
  CpuRates()
      : fp32_(measured_rate(PeakSequence::fp32_fma) * compute_threads()),
        bf16_(std::max(fp32_, measured_rate(PeakSequence::bf16_dot) * compute_threads())),
        nvfp4_(measured_rate(PeakSequence::nvfp4_block) * compute_threads()) {}

  double product_seconds(const Product& product) const override {
    const bool four_bits = product.a.format == Format::nvfp4 && product.b.format == Format::nvfp4;
    const bool plain = product.a.format == Format::bf16 && product.b.format == Format::bf16;
    if (four_bits && !product.shape().outer_scales) return product.flops() / (0.68 * nvfp4_);
    return product.flops() / (plain ? 0.68 * bf16_ : 0.3 * fp32_);
  }
  double quantise_seconds(const OperandSpec& spec, double elements, bool /*gradient*/) const override {
    const bool rounds_randomly = spec.round != Rounding::nearest;
    return elements / (scale() * (rounds_randomly ? 1.1e9 : 1.7e9));
  }
  double attention_flops() const override { return 0.45 * fp32_; }
  double bytes() const override { return scale() * 9e9; }
  double layer_overhead(bool /*quantises*/) const override { return 20e-6; }
  double link() const override { return 5e9; }
  double peak() const override { return bf16_; }
  std::string basis() const override {
    return fmt::format(
        "estimate, not measured: this machine's peak, {:.0f} GFLOP/s in BF16 and {:.0f} in NVFP4 on {} threads a rank "
        "(measured now), times the shares that docs/performance.md has of one other machine",
        bf16_ / 1e9, nvfp4_ / 1e9, compute_threads());
  }

 private:
  double scale() const { return fp32_ / 203e9; }

  double fp32_, bf16_, nvfp4_;
};

class Estimate {
 public:
  Estimate(const RunConfig& config, int ranks, const Rates& rates)
      : config_(config),
        ranks_(ranks),
        rates_(rates),
        tokens_(static_cast<double>(config.train.micro_batch_sequences * config.model.sequence_length)),
        model_(plan_training_model(config, config.recipe)) {}

  SpeedEstimate make() {
    const std::vector<bool> again = recompute_blocks(config_);
    for (const Linear* linear : model_->linears()) {
      const Parameter& weight = model_->parameters()[linear->weight_id()];
      const int block = block_of_parameter(linear->name()).value_or(-1);
      add_linear(*linear, static_cast<double>(weight.count) / static_cast<double>(linear->features_in()),
                 resolve(config_.recipe, linear->name(), block, static_cast<int>(config_.model.blocks())),
                 block >= 0 && again[static_cast<size_t>(block)]);
    }
    add_blocks(again);
    const Schedule schedule = step_schedule(config_, ranks_);
    for (auto& [what, seconds] : seconds_) seconds *= static_cast<double>(schedule.slots());
    add_end_of_step(schedule);
    return result();
  }

 private:
  void add_linear(const Linear& linear, double out, const LinearRecipe& recipe, bool recomputed) {
    const auto in = static_cast<double>(linear.features_in());
    const Product forward{recipe.forward_x, recipe.forward_w, tokens_, out, in};
    const Product grad_input{recipe.grad_input_dy, recipe.grad_input_w, tokens_, in, out};
    const Product grad_weight{recipe.grad_weight_dy, recipe.grad_weight_x, out, in, tokens_};
    for (const Product* product : {&forward, &grad_input, &grad_weight}) {
      seconds_["products " + product->formats()] += rates_.product_seconds(*product);
    }
    if (recomputed) seconds_["recomputing"] += rates_.product_seconds(forward);
    const std::array<std::tuple<const OperandSpec*, double, bool>, 4> operands{{{&recipe.forward_x, in, false},
                                                                                {&recipe.grad_weight_x, in, false},
                                                                                {&recipe.grad_input_dy, out, true},
                                                                                {&recipe.grad_weight_dy, out, true}}};
    for (const auto& [spec, features, gradient] : operands) {
      if (!is_quantized(spec->format)) continue;
      seconds_["quantising"] += rates_.quantise_seconds(*spec, features * tokens_, gradient);
    }
    seconds_["launching"] += rates_.layer_overhead(linear.quantizes());
    // Norm, residual sum and what reads and writes the layer's output: rotary embedding, SwiGLU, loss.
    seconds_["elementwise"] += 8 * out * tokens_ / rates_.bytes();
  }

  void add_blocks(const std::vector<bool>& again) {
    const std::vector<const BlockKind*> kinds = kinds_of(config_.model.pattern);
    for (size_t block = 0; block < kinds.size(); ++block) {
      const double forward = kinds[block]->flops_per_token(config_.model) * tokens_ / rates_.attention_flops();
      seconds_["attention"] += 3.5 * forward;  // backward forms the scores again
      if (again[block]) seconds_["recomputing"] += forward;
      seconds_["elementwise"] += 22.0 * static_cast<double>(config_.model.hidden_size) * tokens_ / rates_.bytes();
    }
  }

  // Weights are quantised, updated and exchanged once a step.
  void add_end_of_step(const Schedule& schedule) {
    const auto parameters = static_cast<double>(model_->parameters().flat_size());
    const double moments = config_.optimizer.moment_dtype == DType::f32 ? 24 : 16;
    const double masters = config_.optimizer.master_dtype == DType::f32 ? 6 : 0;
    seconds_["optimizer"] += (parameters * (moments + masters + 4) / ranks_ + 14 * parameters) / rates_.bytes();
    if (ranks_ == 1) return;
    // Where ranks share groups, the tree exchanges gradients once a micro-batch.
    const bool striped = schedule.order() == Schedule::Order::stripes && config_.comm.reduction == ReductionKind::tree;
    const double gradients = 4.0 * (striped ? static_cast<double>(schedule.slots()) : 1);
    const double sent = static_cast<double>(ranks_ - 1) / ranks_ * parameters * (gradients + 2);
    seconds_["exchange"] += sent / rates_.link();
  }

  SpeedEstimate result() const {
    SpeedEstimate estimate{.peak_flops = ranks_ * rates_.peak(), .parts = {}, .basis = rates_.basis()};
    for (const auto& [what, seconds] : seconds_) {
      if (seconds > 0) estimate.parts.push_back({what, seconds});
      estimate.step_seconds += seconds;
    }
    std::ranges::stable_sort(estimate.parts, std::ranges::greater(), &SpeedEstimate::Part::seconds);
    estimate.tokens_per_second = static_cast<double>(config_.train.tokens_per_step) / estimate.step_seconds;
    return estimate;
  }

  const RunConfig& config_;
  int ranks_;
  const Rates& rates_;
  double tokens_;  // of a micro-batch
  std::unique_ptr<LanguageModel> model_;
  std::map<std::string, double> seconds_;  // of a micro-batch, and in the end of a step
};

}  // namespace

SpeedEstimate estimate_speed(const RunConfig& config, int ranks, const PlannedDevice* device) {
  if (device != nullptr) return Estimate(config, ranks, GpuRates(*device, ranks)).make();
  return Estimate(config, ranks, CpuRates()).make();
}

}  // namespace nibble
