#include "optim/adamw.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "dist/error.h"
#include "dist/profile.h"
#include "dist/thread_pool.h"
#include "dist/vectorize.h"
#include "quant/codec.h"
#include "quant/philox.h"

namespace nibble {
namespace {

constexpr size_t elements_a_block = 8;  // 16 random bits each
constexpr size_t strip = 128;           // elements handled at once: 16 blocks, one a vector lane
constexpr size_t elements_at_once = 64 * strip;

// Everything the update of one segment needs that does not change from element to element.
struct Update {
  float beta1, complement1, beta2, complement2;
  float correction1, correction2;
  float epsilon, rate, decay_rate, grad_scale;
  NoiseStream weight_noise, first_moment_noise, second_moment_noise;
};

// The same elements of every buffer. One of each pair of pointers may be null, according to the dtypes.
struct Buffers {
  const float* gradients;
  float* first_moment_f32;
  float* second_moment_f32;
  BFloat16* first_moment_bf16;
  BFloat16* second_moment_bf16;
  float* master;           // FP32 values that the update reads and writes: FP32 weights, or masters of BF16 ones
  BFloat16* weights_bf16;  // null for FP32 weights
};

// The random bits of elements [first, first + 128) of a tensor, first a multiple of 8: random_block of sixteen
// consecutive indices, written so that a vector lane is a block.
NIBBLE_INLINE void random_halves(const NoiseStream& stream, uint64_t first, uint32_t* halves) {
  constexpr size_t lanes = strip / elements_a_block;
  uint32_t word0[lanes], word1[lanes], word2[lanes], word3[lanes];
  for (size_t lane = 0; lane < lanes; ++lane) {
    const uint64_t index = first / elements_a_block + lane;
    word0[lane] = static_cast<uint32_t>(index);
    word1[lane] = (static_cast<uint32_t>(index >> 32) & 0xFFu) | (stream.micro_batch << 8);
    word2[lane] = stream.step;
    word3[lane] = (stream.tensor_id & 0xFFFFFFu) | (static_cast<uint32_t>(stream.purpose) << 24);
  }
  auto key0 = static_cast<uint32_t>(stream.seed);
  auto key1 = static_cast<uint32_t>(stream.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    for (size_t lane = 0; lane < lanes; ++lane) {
      const uint64_t product0 = uint64_t{0xD2511F53u} * word0[lane];
      const uint64_t product1 = uint64_t{0xCD9E8D57u} * word2[lane];
      word0[lane] = static_cast<uint32_t>(product1 >> 32) ^ word1[lane] ^ key0;
      word1[lane] = static_cast<uint32_t>(product1);
      word2[lane] = static_cast<uint32_t>(product0 >> 32) ^ word3[lane] ^ key1;
      word3[lane] = static_cast<uint32_t>(product0);
    }
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  for (size_t lane = 0; lane < lanes; ++lane) {
    uint32_t* const half = halves + lane * elements_a_block;
    const uint32_t words[4] = {word0[lane], word1[lane], word2[lane], word3[lane]};
    for (size_t word = 0; word < 4; ++word) {
      half[2 * word] = words[word] & 0xFFFFu;
      half[2 * word + 1] = words[word] >> 16;
    }
  }
}

NIBBLE_INLINE void load(const float* exact, const BFloat16* rounded, size_t count, float* values) {
  if (exact != nullptr) {
    for (size_t i = 0; i < count; ++i) values[i] = exact[i];
  } else {
    for (size_t i = 0; i < count; ++i) values[i] = to_float(rounded[i]);
  }
}

// To whichever of the two buffers is there.
NIBBLE_INLINE void store(const float* values, size_t count, const NoiseStream& noise, uint64_t element, float* exact,
                         BFloat16* rounded) {
  if (exact != nullptr) {
    for (size_t i = 0; i < count; ++i) exact[i] = values[i];
  } else if (rounded != nullptr) {
    uint32_t halves[strip];
    random_halves(noise, element, halves);
    for (size_t i = 0; i < count; ++i) rounded[i] = bf16_stochastic(values[i], halves[i]);
  }
}

// Updates `count` elements of a tensor from its element `element` on, a multiple of 8.
NIBBLE_VECTORIZE void update_range(const Update& update, const Buffers& at, uint64_t element, size_t count) {
  float m[strip], v[strip], w[strip];
  for (size_t first = 0; first < count; first += strip) {
    const size_t n = count - first < strip ? count - first : strip;
    const auto from = [first](auto* pointer) { return pointer == nullptr ? pointer : pointer + first; };
    load(from(at.first_moment_f32), from(at.first_moment_bf16), n, m);
    load(from(at.second_moment_f32), from(at.second_moment_bf16), n, v);
    load(from(at.master), from(at.weights_bf16), n, w);
    const float* gradients = at.gradients + first;
    for (size_t i = 0; i < n; ++i) {
      const float g = gradients[i] * update.grad_scale;
      m[i] = update.beta1 * m[i] + update.complement1 * g;
      v[i] = update.beta2 * v[i] + update.complement2 * (g * g);
      const float direction = (m[i] * update.correction1) / (std::sqrt(v[i] * update.correction2) + update.epsilon);
      w[i] = w[i] - (update.rate * direction + update.decay_rate * w[i]);
    }
    store(m, n, update.first_moment_noise, element + first, from(at.first_moment_f32), from(at.first_moment_bf16));
    store(v, n, update.second_moment_noise, element + first, from(at.second_moment_f32), from(at.second_moment_bf16));
    store(w, n, update.weight_noise, element + first, from(at.master), from(at.weights_bf16));
    if (at.master != nullptr && at.weights_bf16 != nullptr) {
      for (size_t i = 0; i < n; ++i) at.weights_bf16[first + i] = bf16_nearest(w[i]);
    }
  }
}

// By repeated squaring: the C library's pow may differ in its last bit between instruction sets.
double power(double base, uint64_t exponent) {
  double result = 1;
  for (double square = base; exponent != 0; exponent >>= 1, square *= square) {
    if ((exponent & 1) != 0) result *= square;
  }
  return result;
}

Update constants(const AdamWConfig& config, const AdamW::Step& step, const ParameterSegment& segment) {
  const auto stream = [&](Purpose purpose) {
    return NoiseStream{step.seed, narrow<uint32_t>(step.step), 0, segment.tensor_id, purpose};
  };
  return {.beta1 = static_cast<float>(config.beta1),
          .complement1 = static_cast<float>(1 - config.beta1),
          .beta2 = static_cast<float>(config.beta2),
          .complement2 = static_cast<float>(1 - config.beta2),
          .correction1 = static_cast<float>(1 / (1 - power(config.beta1, step.step + 1))),
          .correction2 = static_cast<float>(1 / (1 - power(config.beta2, step.step + 1))),
          .epsilon = static_cast<float>(config.epsilon),
          .rate = static_cast<float>(step.learning_rate),
          .decay_rate = segment.decay ? static_cast<float>(step.learning_rate * config.weight_decay) : 0.0f,
          .grad_scale = step.grad_scale,
          .weight_noise = stream(Purpose::master_rounding),
          .first_moment_noise = stream(Purpose::moment_m_rounding),
          .second_moment_noise = stream(Purpose::moment_v_rounding)};
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

void AdamW::set_weights(std::span<const float> values, const Tensor& weights) {
  NIBBLE_CHECK(values.size() == end_ - begin_ && weights.dtype() == weights_dtype_, "values of the shard");
  float* const exact = elements<float>(weights, begin_);
  BFloat16* const rounded = elements<BFloat16>(weights, begin_);
  float* const master = elements<float>(master_, 0);
  for (size_t i = 0; i < values.size(); ++i) {
    if (exact != nullptr) exact[i] = values[i];
    if (rounded != nullptr) rounded[i] = bf16_nearest(values[i]);
    if (master != nullptr) master[i] = values[i];
  }
}

void AdamW::read_weights(std::span<float> values, const Tensor& weights) const {
  NIBBLE_CHECK(values.size() == end_ - begin_ && weights.dtype() == weights_dtype_, "values of the shard");
  const float* const exact = master_.empty() ? elements<float>(weights, begin_) : elements<float>(master_, 0);
  const BFloat16* const rounded = elements<BFloat16>(weights, begin_);
  for (size_t i = 0; i < values.size(); ++i) values[i] = exact != nullptr ? exact[i] : to_float(rounded[i]);
}

void AdamW::step(const Step& step, const Tensor& weights, std::span<const float> gradients) {
  const ProfileScope scope(OperatorFamily::optimizer, "adamw");
  NIBBLE_CHECK(gradients.size() == end_ - begin_, "gradients of the shard");
  NIBBLE_CHECK(weights.dtype() == weights_dtype_ && end_ <= static_cast<uint64_t>(weights.elements()), "flat weights");
  for (const ParameterSegment& segment : segments_) {
    const uint64_t from = std::max(begin_, segment.offset);
    const uint64_t to = std::min(end_, segment.offset + segment.count);
    if (from >= to) continue;
    const Update update = constants(config_, step, segment);
    parallel_for(to - from, elements_at_once, [&](size_t range_begin, size_t range_end) {
      const uint64_t flat = from + range_begin;
      const uint64_t local = flat - begin_;
      const Buffers at{.gradients = gradients.data() + local,
                       .first_moment_f32 = elements<float>(first_moment_, local),
                       .second_moment_f32 = elements<float>(second_moment_, local),
                       .first_moment_bf16 = elements<BFloat16>(first_moment_, local),
                       .second_moment_bf16 = elements<BFloat16>(second_moment_, local),
                       .master = master_.empty() ? elements<float>(weights, flat) : elements<float>(master_, local),
                       .weights_bf16 = elements<BFloat16>(weights, flat)};
      update_range(update, at, flat - segment.offset, range_end - range_begin);
    });
  }
}

std::vector<NamedState> AdamW::state() const {
  std::vector<NamedState> buffers = {{"adam_m", first_moment_}, {"adam_v", second_moment_}};
  if (!master_.empty()) buffers.push_back({"master", master_});
  return buffers;
}

}  // namespace nibble
