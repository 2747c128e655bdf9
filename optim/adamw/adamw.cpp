#include "optim/adamw/adamw.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "dist/base/error.h"
#include "dist/device/dispatch.h"
#include "dist/device/profile.h"
#include "dist/device/thread_pool.h"
#include "optim/adamw/adamw_problem.h"
#include "quant/format/codec.h"
#include "quant/isa/instruction_set.h"
#include "quant/isa/kernel_table.h"
#include "quant/tensor/tensor_copy.h"

namespace nibble {
namespace {

// BF16 weights may have FP32 masters; FP32 weights are their own.
bool is_narrow(const TensorLayout& tensor) {
  return tensor.width == 2;
}

using cpu::AdamWUpdate;

constexpr size_t elements_a_block = 8;  // one block of random bits has 16 bits for each
constexpr size_t elements_at_once = 64 * cpu::adamw_strip;

// The power is computed by repeated squaring, because the C library's pow may differ in its last bit between
// instruction sets.
double power(double base, uint64_t exponent) {
  double result = 1;
  for (double square = base; exponent != 0; exponent >>= 1, square *= square) {
    if ((exponent & 1) != 0) result *= square;
  }
  return result;
}

AdamWUpdate constants(const AdamWConfig& config, const UpdateStep& step) {
  const auto stream = [&](Purpose purpose) {
    return NoiseStream{step.seed, narrow<uint32_t>(step.step), 0, /*tensor_id=*/0, purpose};
  };
  return {.beta1 = static_cast<float>(config.beta1),
          .complement1 = static_cast<float>(1 - config.beta1),
          .beta2 = static_cast<float>(config.beta2),
          .complement2 = static_cast<float>(1 - config.beta2),
          .correction1 = static_cast<float>(1 / (1 - power(config.beta1, step.step + 1))),
          .correction2 = static_cast<float>(1 / (1 - power(config.beta2, step.step + 1))),
          .epsilon = static_cast<float>(config.epsilon),
          .rate = static_cast<float>(step.learning_rate),
          .decay_rate = static_cast<float>(step.learning_rate * config.weight_decay),
          .grad_scale = step.grad_scale,
          .weight_noise = stream(Purpose::master_rounding),
          .first_moment_noise = stream(Purpose::moment_m_rounding),
          .second_moment_noise = stream(Purpose::moment_v_rounding)};
}

// Returns the weights as a flat tensor of the dtype that has this width.
Tensor weights_of_width(const Tensor& weights, uint8_t width) {
  const DType dtype = width == 4 ? DType::f32 : DType::bf16;
  NIBBLE_CHECK(weights.dtype() == dtype || weights.dtype() == DType::u8,
               "the width of a tensor is that of its weights");
  return Tensor(weights.data(), dtype, {static_cast<int64_t>(weights.bytes() / width)}, weights.device());
}

Tensor weights_of(const Layout& layout, const OwnedSlice& slice, const Tensor& weights) {
  const uint8_t width = layout.tensors()[slice.tensor].width;
  const auto first = static_cast<int64_t>(slice.weight_byte / width);
  return weights_of_width(weights, width).slice(first, first + static_cast<int64_t>(slice.elements.count()));
}

Range gradient_range(const OwnedSlice& slice) {
  return {slice.gradient_at, slice.gradient_at + slice.elements.count()};
}

template <class T>
T* elements(const Tensor& tensor, uint64_t from) {
  return tensor.empty() || tensor.dtype() != DTypeOf<T>::value ? nullptr : tensor.as<T>() + from;
}

void check_float_dtype(DType dtype, const char* what) {
  if (dtype == DType::f32 || dtype == DType::bf16) return;
  throw Error(ExitCode::bad_config, fmt::format("{} cannot be stored as {}", what, name_of(dtype)), "use fp32 or bf16");
}

}  // namespace

namespace cpu {

AdamWKernel adamw_kernel(InstructionSet level) {
  static constexpr KernelTable<AdamWKernel> kernels = {.portable = adamw_portable,
                                                       NIBBLE_ON_X86(.avx2 = adamw_avx2, .avx512 = adamw_avx512)};
  return kernels.at(level);
}

void adamw(const AdamWProblem& problem) {
  const AdamWKernel kernel = adamw_kernel(instruction_set());
  for (const AdamWPart& part : parts_of(problem)) {
    AdamWUpdate update = problem.update;
    update.decay_rate = part.decay_rate;
    for (NoiseStream* stream : {&update.weight_noise, &update.first_moment_noise, &update.second_moment_noise}) {
      stream->tensor_id = part.tensor_id;
    }
    parallel_for(part.count, elements_at_once, [&](size_t begin, size_t end) {
      const uint64_t state = part.state_at + begin;
      const uint64_t weight = part.weight_at + begin;
      const bool own_master = problem.master.empty();
      const AdamWBuffers buffers{
          .gradients = problem.gradients.as<float>() + part.gradient_at + begin,
          .first_moment_f32 = elements<float>(problem.first_moment, state),
          .second_moment_f32 = elements<float>(problem.second_moment, state),
          .first_moment_bf16 = elements<BFloat16>(problem.first_moment, state),
          .second_moment_bf16 = elements<BFloat16>(problem.second_moment, state),
          .master = own_master ? elements<float>(problem.weights, weight) : elements<float>(problem.master, state),
          .weights_bf16 = elements<BFloat16>(problem.weights, weight)};
      kernel(update, buffers, part.element + begin, end - begin);
    });
  }
}

}  // namespace cpu

std::vector<AdamWPart> parts_of(const AdamWProblem& problem) {
  std::vector<AdamWPart> parts;
  for (const OwnedSlice& slice : problem.slices) {
    const TensorLayout& tensor = problem.layout->tensors()[slice.tensor];
    const uint64_t matrix = tensor.count / tensor.matrices;
    for (uint64_t element = slice.elements.begin; element < slice.elements.end;) {
      const uint64_t index = element / matrix;
      const uint64_t end = std::min(slice.elements.end, (index + 1) * matrix);
      const uint64_t distance = element - slice.elements.begin;
      parts.push_back({.gradient_at = slice.gradient_at + distance,
                       .weight_at = slice.weight_byte / tensor.width + distance,
                       .state_at = slice.state_at + distance,
                       .element = element - index * matrix,
                       .count = end - element,
                       .tensor_id = tensor.tensor_id + static_cast<uint32_t>(index),
                       .decay_rate = tensor.decay ? problem.update.decay_rate : 0.0F});
      element = end;
    }
  }
  return parts;
}

namespace {

// Slices that follow each other alike in gradients and weights are updated as one range.
std::vector<std::vector<OwnedSlice>> runs_of(const AdamWProblem& problem) {
  const uint64_t width = size_of(problem.weights.dtype());
  std::vector<std::vector<OwnedSlice>> runs;
  for (const OwnedSlice& slice : problem.slices) {
    const bool follows = !runs.empty() && slice.weight_byte - runs.back().front().weight_byte ==
                                              (slice.gradient_at - runs.back().front().gradient_at) * width;
    if (!follows) runs.emplace_back();
    runs.back().push_back(slice);
  }
  return runs;
}

// Returns the parts of a run's slices that lie in `gradient`, with positions in gradients and weights counted from its
// beginning.
std::vector<OwnedSlice> slices_in(const std::vector<OwnedSlice>& run, Range gradient, uint64_t width) {
  std::vector<OwnedSlice> result;
  for (const OwnedSlice& slice : run) {
    const Range part = intersect(gradient_range(slice), gradient);
    if (part.empty()) continue;
    const uint64_t distance = part.begin - slice.gradient_at;
    const uint64_t first = slice.elements.begin + distance;
    result.push_back({.tensor = slice.tensor,
                      .elements = {first, first + part.count()},
                      .gradient_at = part.begin - gradient.begin,
                      .weight_byte = (part.begin - gradient.begin) * width,
                      .state_at = slice.state_at + distance});
  }
  return result;
}

void update_on_cpu(const AdamWProblem& problem) {
  const uint64_t width = size_of(problem.weights.dtype());
  for (const std::vector<OwnedSlice>& run : runs_of(problem)) {
    const uint64_t first = run.front().gradient_at;
    const auto count = static_cast<int64_t>(gradient_range(run.back()).end - first);
    const auto part = [&](const Tensor& tensor, uint64_t begin) {
      return tensor.slice(static_cast<int64_t>(begin), static_cast<int64_t>(begin) + count);
    };
    const auto update = [&](uint64_t begin, uint64_t end, const Tensor& gradients, const Tensor& weights) {
      AdamWProblem strip = problem;
      strip.slices = slices_in(run, {first + begin, first + end}, width);
      strip.gradients = gradients;
      strip.weights = weights;
      cpu::adamw(strip);
    };
    if constexpr (built_with_cuda) {
      cuda::update_in_strips({.gradients = part(problem.gradients, first),
                              .weights = part(problem.weights, run.front().weight_byte / width),
                              .update = update});
    }
  }
}

}  // namespace

void validate(const AdamWConfig& config) {
  const auto require = [](bool condition, const char* name, double value, const char* remedy) {
    if (!condition) throw Error(ExitCode::bad_config, fmt::format("AdamW's {} is {}", name, value), remedy);
  };
  require(config.beta1 >= 0 && config.beta1 < 1, "beta1", config.beta1, "set it between 0 and 1, 1 excluded");
  require(config.beta2 >= 0 && config.beta2 < 1, "beta2", config.beta2, "set it between 0 and 1, 1 excluded");
  require(static_cast<float>(config.epsilon) > 0 && std::isfinite(config.epsilon), "epsilon", config.epsilon,
          "set it to a small positive number such as 1e-8");
  require(config.weight_decay >= 0 && std::isfinite(config.weight_decay), "weight_decay", config.weight_decay,
          "set it to 0 or more");
  check_float_dtype(config.master_dtype, "master weights");
  check_float_dtype(config.moment_dtype, "Adam's moments");
}

AdamW::AdamW(const AdamWConfig& config) : config_(config) {
  validate(config_);
}

bool AdamW::has_master(const OwnedSlice& slice) const {
  return config_.master_dtype == DType::f32 && is_narrow(layout_->tensors()[slice.tensor]);
}

void AdamW::allocate(Arena& arena, const Layout& layout, std::vector<OwnedSlice> slices) {
  layout_ = &layout;
  slices_ = std::move(slices);
  for (const OwnedSlice& slice : slices_) {
    NIBBLE_CHECK(slice.elements.begin % elements_a_block == 0 && slice.gradient_at % elements_a_block == 0,
                 "slices begin at multiples of 8");
  }
  const auto count = static_cast<int64_t>(state_elements(layout, slices_));
  first_moment_ = allocate_tensor(arena, config_.moment_dtype, {count});
  second_moment_ = allocate_tensor(arena, config_.moment_dtype, {count});
  // On every rank alike, also where this rank owns nothing: the arrays of a checkpoint are those of all ranks.
  const bool masters = config_.master_dtype == DType::f32 && std::ranges::any_of(layout.tensors(), is_narrow);
  master_ = masters ? allocate_tensor(arena, DType::f32, {count}) : Tensor();
}

void AdamW::set_weights(std::span<const float> values, const Tensor& weights) {
  const HostStage exact(master_);
  for (const OwnedSlice& slice : slices_) {
    const std::span<const float> from = values.subspan(slice.gradient_at, slice.elements.count());
    const HostStage stored(weights_of(*layout_, slice, weights));
    if (layout_->tensors()[slice.tensor].width == 4) {
      std::ranges::copy(from, stored.as<float>().begin());
    } else {
      std::ranges::transform(from, stored.as<BFloat16>().begin(), [](float value) { return bf16_nearest(value); });
    }
    stored.finish();
    if (!master_.empty()) std::ranges::copy(from, exact.as<float>().subspan(slice.state_at).begin());
  }
  exact.finish();
}

void AdamW::read_weights(std::span<float> values, const Tensor& weights) const {
  const HostCopy exact(master_);
  for (const OwnedSlice& slice : slices_) {
    const std::span<float> to = values.subspan(slice.gradient_at, slice.elements.count());
    if (has_master(slice)) {
      std::ranges::copy(exact.as<float>().subspan(slice.state_at, to.size()), to.begin());
      continue;
    }
    const HostCopy stored(weights_of(*layout_, slice, weights));
    if (stored.tensor().dtype() == DType::f32) {
      std::ranges::copy(stored.as<float>(), to.begin());
    } else {
      std::ranges::transform(stored.as<BFloat16>(), to.begin(), [](BFloat16 value) { return to_float(value); });
    }
  }
}

void AdamW::update(const UpdateStep& step, const Shard& shard, Range gradient) {
  const ProfileScope scope(OperatorFamily::optimizer, "adamw");
  NIBBLE_CHECK(shard.gradient.device() == shard.weights.device(), "gradients and weights are on one device");
  for (const uint8_t width : {uint8_t{2}, uint8_t{4}}) {
    AdamWProblem problem{.update = constants(config_, step),
                         .layout = layout_,
                         .slices = {},
                         .gradients = shard.gradient,
                         .weights = {},
                         .first_moment = first_moment_,
                         .second_moment = second_moment_,
                         .master = width == 2 ? master_ : Tensor()};
    for (const OwnedSlice& slice : slices_) {
      const Range range = gradient_range(slice);
      if (layout_->tensors()[slice.tensor].width != width || intersect(range, gradient).empty()) continue;
      NIBBLE_CHECK(intersect(range, gradient) == range, "an update is of whole slices");
      problem.slices.push_back(slice);
    }
    if (problem.slices.empty()) continue;
    problem.weights = weights_of_width(shard.weights, width);
    const bool apart = first_moment_.device() != shard.weights.device();
    NIBBLE_CHECK(!apart || config_.offload, "the optimizer's state is on the device of the weights");
    if (apart) {
      update_on_cpu(problem);
    } else {
      NIBBLE_DISPATCH(shard.weights.device(), adamw, problem);
    }
  }
}

std::vector<StateArray> AdamW::state() const {
  std::vector<StateArray> arrays{{.name = "adam_m", .values = first_moment_, .slices = slices_},
                                 {.name = "adam_v", .values = second_moment_, .slices = slices_}};
  if (master_.empty()) return arrays;
  StateArray& master =
      arrays.emplace_back(StateArray{.name = "master", .values = master_, .slices = {}, .of = is_narrow});
  std::ranges::copy_if(slices_, std::back_inserter(master.slices),
                       [&](const OwnedSlice& slice) { return has_master(slice); });
  return arrays;
}

}  // namespace nibble
