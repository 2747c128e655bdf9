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

AdamWUpdate constants(const AdamWConfig& config, const AdamW::Step& step) {
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
          .decay_rate = 0,
          .grad_scale = step.grad_scale,
          .weight_noise = stream(Purpose::master_rounding),
          .first_moment_noise = stream(Purpose::moment_m_rounding),
          .second_moment_noise = stream(Purpose::moment_v_rounding)};
}

// Returns the parts of the segments that lie in elements [begin, end) of the flat buffers.
std::vector<AdamWPiece> pieces_of(const std::vector<ParameterSegment>& segments, uint64_t begin, uint64_t end,
                                  float decay_rate) {
  std::vector<AdamWPiece> pieces;
  for (const ParameterSegment& segment : segments) {
    const uint64_t from = std::max(begin, segment.offset);
    const uint64_t to = std::min(end, segment.offset + segment.count);
    if (from >= to) continue;
    pieces.push_back({.shard_offset = from - begin,
                      .element = from - segment.offset,
                      .count = to - from,
                      .tensor_id = segment.tensor_id,
                      .decay_rate = segment.decay ? decay_rate : 0.0f});
  }
  return pieces;
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
  for (const AdamWPiece& piece : problem.pieces) {
    AdamWUpdate update = problem.update;
    update.decay_rate = piece.decay_rate;
    for (NoiseStream* stream : {&update.weight_noise, &update.first_moment_noise, &update.second_moment_noise}) {
      stream->tensor_id = piece.tensor_id;
    }
    parallel_for(piece.count, elements_at_once, [&](size_t begin, size_t end) {
      const uint64_t at = piece.shard_offset + begin;
      const AdamWBuffers buffers{
          .gradients = problem.gradients.as<float>() + at,
          .first_moment_f32 = elements<float>(problem.first_moment, at),
          .second_moment_f32 = elements<float>(problem.second_moment, at),
          .first_moment_bf16 = elements<BFloat16>(problem.first_moment, at),
          .second_moment_bf16 = elements<BFloat16>(problem.second_moment, at),
          .master = elements<float>(problem.master.empty() ? problem.weights : problem.master, at),
          .weights_bf16 = elements<BFloat16>(problem.weights, at)};
      kernel(update, buffers, piece.element + begin, end - begin);
    });
  }
}

}  // namespace cpu

std::vector<AdamWPiece> pieces_between(const std::vector<AdamWPiece>& pieces, uint64_t begin, uint64_t end) {
  std::vector<AdamWPiece> result;
  for (const AdamWPiece& piece : pieces) {
    const uint64_t from = std::max(begin, piece.shard_offset);
    const uint64_t to = std::min(end, piece.shard_offset + piece.count);
    if (from >= to) continue;
    AdamWPiece& part = result.emplace_back(piece);
    part.shard_offset = from - begin;
    part.element = piece.element + (from - piece.shard_offset);
    part.count = to - from;
  }
  return result;
}

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

AdamW::AdamW(Arena& arena, const AdamWConfig& config, std::vector<ParameterSegment> segments, uint64_t begin,
             uint64_t end, DType weights_dtype)
    : config_(config), segments_(std::move(segments)), begin_(begin), end_(end), weights_dtype_(weights_dtype) {
  validate(config_);
  check_float_dtype(weights_dtype, "weights");
  NIBBLE_CHECK(begin <= end && begin % elements_a_block == 0, "shard of the optimizer");
  for (const ParameterSegment& segment : segments_) {
    NIBBLE_CHECK(segment.offset % elements_a_block == 0, "parameters start at multiples of 8");
  }
  const auto count = static_cast<int64_t>(end - begin);
  first_moment_ = allocate_tensor(arena, config_.moment_dtype, {count});
  second_moment_ = allocate_tensor(arena, config_.moment_dtype, {count});
  if (weights_dtype == DType::bf16 && config_.master_dtype == DType::f32) {
    master_ = allocate_tensor(arena, DType::f32, {count});
  }
}

Tensor AdamW::shard_of(const Tensor& weights) const {
  NIBBLE_CHECK(weights.dtype() == weights_dtype_ && end_ <= static_cast<uint64_t>(weights.elements()), "flat weights");
  return weights.reshape({weights.elements()}).slice(static_cast<int64_t>(begin_), static_cast<int64_t>(end_));
}

void AdamW::set_weights(std::span<const float> values, const Tensor& weights) {
  NIBBLE_CHECK(values.size() == end_ - begin_, "values of the shard");
  const HostStage stored(shard_of(weights));
  const HostStage exact(master_);
  if (weights_dtype_ == DType::f32) {
    std::ranges::copy(values, stored.as<float>().begin());
  } else {
    std::ranges::transform(values, stored.as<BFloat16>().begin(), [](float value) { return bf16_nearest(value); });
  }
  if (!master_.empty()) std::ranges::copy(values, exact.as<float>().begin());
  stored.finish();
  exact.finish();
}

void AdamW::read_weights(std::span<float> values, const Tensor& weights) const {
  NIBBLE_CHECK(values.size() == end_ - begin_, "values of the shard");
  const HostCopy stored(master_.empty() ? shard_of(weights) : master_);
  if (stored.tensor().dtype() == DType::f32) {
    std::ranges::copy(stored.as<float>(), values.begin());
  } else {
    std::ranges::transform(stored.as<BFloat16>(), values.begin(), [](BFloat16 value) { return to_float(value); });
  }
}

void AdamW::step(const Step& step, const Tensor& weights, const Tensor& gradients) {
  const ProfileScope scope(OperatorFamily::optimizer, "adamw");
  const auto decay_rate = static_cast<float>(step.learning_rate * config_.weight_decay);
  const AdamWProblem problem{.update = constants(config_, step),
                             .pieces = pieces_of(segments_, begin_, end_, decay_rate),
                             .gradients = gradients,
                             .weights = shard_of(weights),
                             .first_moment = first_moment_,
                             .second_moment = second_moment_,
                             .master = master_};
  NIBBLE_CHECK(static_cast<uint64_t>(gradients.elements()) == end_ - begin_, "gradients of the shard");
  NIBBLE_CHECK(gradients.device() == weights.device(), "gradients and weights are on one device");
  const bool apart = first_moment_.device() != weights.device();
  NIBBLE_CHECK(!apart || config_.offload, "the optimizer's state is on the device of the weights");
  if (apart) {
    step_on_cpu(problem);
  } else {
    NIBBLE_DISPATCH(weights.device(), adamw, problem);
  }
}

void AdamW::step_on_cpu(const AdamWProblem& problem) const {
  const auto part = [](const Tensor& tensor, uint64_t begin, uint64_t end) {
    return tensor.empty() ? tensor : tensor.slice(static_cast<int64_t>(begin), static_cast<int64_t>(end));
  };
  const auto update = [&](uint64_t begin, uint64_t end, const Tensor& gradients, const Tensor& weights) {
    cpu::adamw({.update = problem.update,
                .pieces = pieces_between(problem.pieces, begin, end),
                .gradients = gradients,
                .weights = weights,
                .first_moment = part(problem.first_moment, begin, end),
                .second_moment = part(problem.second_moment, begin, end),
                .master = part(problem.master, begin, end)});
  };
  if constexpr (built_with_cuda) {
    cuda::update_in_strips({.gradients = problem.gradients, .weights = problem.weights, .update = update});
  }
}

std::vector<NamedState> AdamW::state() const {
  std::vector<NamedState> buffers = {{"adam_m", first_moment_}, {"adam_v", second_moment_}};
  if (!master_.empty()) buffers.push_back({"master", master_});
  return buffers;
}

}  // namespace nibble
