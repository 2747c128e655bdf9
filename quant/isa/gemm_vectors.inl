// Operations on the vectors of GEMM kernels: a part of gemm_kernels.inl and gemm_codes.inl, which say what a source
// defines before it includes them.

ALWAYS_INLINE Vector load(const float* from) {
  Vector value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}
ALWAYS_INLINE Vector load(const uint16_t* from) {  // BF16
  using LaneHalves = uint16_t __attribute__((vector_size(2 * lanes)));
  LaneHalves half;
  __builtin_memcpy(&half, from, sizeof half);
  return reinterpret_cast<Vector>(__builtin_convertvector(half, UnsignedVector) << 16);
}
ALWAYS_INLINE void store(float* to, Vector value) {
  __builtin_memcpy(to, &value, sizeof value);
}

// Loads the first `count` elements, then zeros; reads nothing beyond them.
template <class Element>
ALWAYS_INLINE Vector load_partial(const Element* from, int64_t count) {
  Element buffer[lanes] = {};
  for (int64_t i = 0; i < count; ++i) buffer[i] = from[i];
  return load(buffer);
}
template <class Element>
ALWAYS_INLINE Vector load_up_to(const Element* from, int64_t count) {
  return count >= lanes ? load(from) : load_partial(from, count);
}

// Decodes one code a lane as the functions of quant/format/codec.h do.
template <ElementCode element>
ALWAYS_INLINE Vector decode(UnsignedVector codes) {
  constexpr int sign_position = element == ElementCode::e2m1 ? 3 : 7;
  constexpr int mantissa_bits = element == ElementCode::e2m1 ? 1 : element == ElementCode::e4m3 ? 3 : 2;
  constexpr uint32_t bias = element == ElementCode::e2m1 ? 1 : element == ElementCode::e4m3 ? 7 : 15;
  const UnsignedVector magnitude = codes & ((1U << sign_position) - 1);
  const UnsignedVector normal = (magnitude << (23 - mantissa_bits)) + ((127 - bias) << 23);
  // The subnormal value is made as a normal number of the smallest exponent, less its leading one, so that no subnormal
  // FP32 number, which would be slow, appears.
  const auto leading_one = reinterpret_cast<Vector>(UnsignedVector{} + ((128 - bias) << 23));
  const Vector subnormal = reinterpret_cast<Vector>(normal + (1U << 23)) - leading_one;
  const auto code = reinterpret_cast<IntVector>(magnitude);  // AVX2 compares signed integers only
  UnsignedVector bits = code < (1 << mantissa_bits) ? reinterpret_cast<UnsignedVector>(subnormal) : normal;
  if constexpr (element == ElementCode::e4m3) bits = code == 0x7F ? UnsignedVector{} + 0x7FC00000U : bits;
  if constexpr (element == ElementCode::e5m2) bits = code > 0x7B ? bits | 0x7F800000U : bits;
  return reinterpret_cast<Vector>(bits | ((codes >> sign_position) << 31));
}
