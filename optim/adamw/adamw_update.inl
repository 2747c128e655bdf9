// The loops of optim/adamw/adamw_update.h, compiled once for each instruction-set level, in a namespace without a name.
// The including file defines before it
//   random_halves(const NoiseStream& stream, uint64_t block, uint16_t* halves)
// which writes the 128 random halves of blocks block .. block + 15 of a stream, in the order of optim/adamw/adamw.h;
// `halves` is aligned to 64 bytes.

// What a buffer holds, and how values are rounded to it.
enum class Storage { none, f32, bf16_nearest, bf16_stochastic };

template <Storage storage>
NIBBLE_INLINE float load(const float* exact, const BFloat16* rounded, size_t i) {
  // The null pointer of the two is not read. NOLINTNEXTLINE(clang-analyzer-core.*)
  return storage == Storage::f32 ? exact[i] : to_float(rounded[i]);
}

// Updates a full strip. `master` and `weights` say how each is written; the master is read if there is one, else the
// weights.
template <Storage moments, Storage master, Storage weights>
NIBBLE_INLINE void update_strip(const AdamWUpdate& update, const AdamWBuffers& at, uint64_t element) {
  alignas(64) uint16_t halves[3][adamw_strip];
  const uint64_t block = element / 8;
  if constexpr (weights == Storage::bf16_stochastic) random_halves(update.weight_noise, block, halves[0]);
  if constexpr (moments == Storage::bf16_stochastic) {
    random_halves(update.first_moment_noise, block, halves[1]);
    random_halves(update.second_moment_noise, block, halves[2]);
  }
  const AdamWUpdate constants = update;
  const AdamWBuffers to = at;
#pragma GCC ivdep
  for (size_t i = 0; i < adamw_strip; ++i) {
    const float m_before = load<moments>(to.first_moment_f32, to.first_moment_bf16, i);
    const float v_before = load<moments>(to.second_moment_f32, to.second_moment_bf16, i);
    const float w_before = load < master == Storage::f32 ? Storage::f32 : weights > (to.master, to.weights_bf16, i);
    const auto [m, v, w] = updated(constants, to.gradients[i], {m_before, v_before, w_before});
    if constexpr (moments == Storage::f32) {
      to.first_moment_f32[i] = m;
      to.second_moment_f32[i] = v;
    } else {
      to.first_moment_bf16[i] = bf16_stochastic(m, halves[1][i]);
      to.second_moment_bf16[i] = bf16_stochastic(v, halves[2][i]);
    }
    if constexpr (master == Storage::f32) to.master[i] = w;
    if constexpr (weights == Storage::bf16_nearest) to.weights_bf16[i] = bf16_nearest(w);
    if constexpr (weights == Storage::bf16_stochastic) to.weights_bf16[i] = bf16_stochastic(w, halves[0][i]);
  }
}

template <class T>
NIBBLE_INLINE T* at_offset(T* pointer, size_t offset) {
  return pointer == nullptr ? nullptr : pointer + offset;
}

// A copy in which a strip is updated that has only `count` elements.
struct StripCopy {
  float gradients[adamw_strip] = {};
  float f32[3][adamw_strip] = {};      // moments and master
  BFloat16 bf16[3][adamw_strip] = {};  // moments and weights

  template <class T>
  static NIBBLE_INLINE T* enter(T* buffer, const T* source, size_t count) {
    if (source == nullptr) return nullptr;
    for (size_t i = 0; i < count; ++i) buffer[i] = source[i];
    return buffer;
  }
  template <class T>
  static NIBBLE_INLINE void leave(const T* buffer, T* target, size_t count) {
    if (target == nullptr) return;
    for (size_t i = 0; i < count; ++i) target[i] = buffer[i];
  }
};

template <Storage moments, Storage master, Storage weights>
void update_range(const AdamWUpdate& update, const AdamWBuffers& buffers, uint64_t element, size_t count) {
  size_t first = 0;
  for (; first + adamw_strip <= count; first += adamw_strip) {
    const AdamWBuffers at{.gradients = buffers.gradients + first,
                          .first_moment_f32 = at_offset(buffers.first_moment_f32, first),
                          .second_moment_f32 = at_offset(buffers.second_moment_f32, first),
                          .first_moment_bf16 = at_offset(buffers.first_moment_bf16, first),
                          .second_moment_bf16 = at_offset(buffers.second_moment_bf16, first),
                          .master = at_offset(buffers.master, first),
                          .weights_bf16 = at_offset(buffers.weights_bf16, first)};
    update_strip<moments, master, weights>(update, at, element + first);
  }
  const size_t rest = count - first;
  if (rest == 0) return;
  StripCopy copy;
  for (size_t i = 0; i < rest; ++i) copy.gradients[i] = buffers.gradients[first + i];
  const AdamWBuffers at{
      .gradients = copy.gradients,
      .first_moment_f32 = StripCopy::enter(copy.f32[0], at_offset(buffers.first_moment_f32, first), rest),
      .second_moment_f32 = StripCopy::enter(copy.f32[1], at_offset(buffers.second_moment_f32, first), rest),
      .first_moment_bf16 = StripCopy::enter(copy.bf16[0], at_offset(buffers.first_moment_bf16, first), rest),
      .second_moment_bf16 = StripCopy::enter(copy.bf16[1], at_offset(buffers.second_moment_bf16, first), rest),
      .master = StripCopy::enter(copy.f32[2], at_offset(buffers.master, first), rest),
      .weights_bf16 = StripCopy::enter(copy.bf16[2], at_offset(buffers.weights_bf16, first), rest)};
  update_strip<moments, master, weights>(update, at, element + first);
  StripCopy::leave(at.first_moment_f32, at_offset(buffers.first_moment_f32, first), rest);
  StripCopy::leave(at.second_moment_f32, at_offset(buffers.second_moment_f32, first), rest);
  StripCopy::leave(at.first_moment_bf16, at_offset(buffers.first_moment_bf16, first), rest);
  StripCopy::leave(at.second_moment_bf16, at_offset(buffers.second_moment_bf16, first), rest);
  StripCopy::leave(at.master, at_offset(buffers.master, first), rest);
  StripCopy::leave(at.weights_bf16, at_offset(buffers.weights_bf16, first), rest);
}

template <Storage moments>
void update_weights(const AdamWUpdate& update, const AdamWBuffers& buffers, uint64_t element, size_t count) {
  if (buffers.master == nullptr) {
    update_range<moments, Storage::none, Storage::bf16_stochastic>(update, buffers, element, count);
  } else if (buffers.weights_bf16 == nullptr) {
    update_range<moments, Storage::f32, Storage::none>(update, buffers, element, count);
  } else {
    update_range<moments, Storage::f32, Storage::bf16_nearest>(update, buffers, element, count);
  }
}

void update_tensor(const AdamWUpdate& update, const AdamWBuffers& buffers, uint64_t element, size_t count) {
  if (buffers.first_moment_f32 != nullptr) {
    update_weights<Storage::f32>(update, buffers, element, count);
  } else {
    update_weights<Storage::bf16_stochastic>(update, buffers, element, count);
  }
}
