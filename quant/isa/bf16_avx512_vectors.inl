// Vectors of sixteen 32-bit elements, shared by the AVX-512 kernels of BF16 GEMMs. Each of their sources includes this
// file inside its anonymous namespace.

constexpr int lanes = 16;
using Vector = float __attribute__((vector_size(64)));
using UnsignedVector = uint32_t __attribute__((vector_size(64)));
using Words = uint16_t __attribute__((vector_size(32)));
using HalfWords = uint16_t __attribute__((vector_size(64)));

inline __attribute__((always_inline)) UnsignedVector load_words(const uint16_t* from) {
  Words words;
  __builtin_memcpy(&words, from, sizeof words);
  return __builtin_convertvector(words, UnsignedVector);
}
inline __attribute__((always_inline)) UnsignedVector load_words(const uint16_t* from, int64_t count) {
  const auto there = static_cast<__mmask16>((1U << count) - 1U);
  return __builtin_convertvector(reinterpret_cast<Words>(_mm256_maskz_loadu_epi16(there, from)), UnsignedVector);
}
