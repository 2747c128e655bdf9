// Vectors of sixteen 32-bit elements, shared by the AVX-512 kernels of GEMMs on codes. Each of their sources includes
// this file inside its anonymous namespace.

#define ALWAYS_INLINE inline __attribute__((always_inline))

constexpr int lanes = 16;
using Vector = float __attribute__((vector_size(64)));
using UnsignedVector = uint32_t __attribute__((vector_size(64)));
using IntVector = int32_t __attribute__((vector_size(64)));
using CodeVector = uint8_t __attribute__((vector_size(64)));
using Halves = uint16_t __attribute__((vector_size(32)));

ALWAYS_INLINE Vector fused(Vector a, Vector b, Vector c) {
  return _mm512_fmadd_ps(a, b, c);
}
ALWAYS_INLINE Vector broadcast(float value) {
  return _mm512_set1_ps(value);
}
ALWAYS_INLINE IntVector broadcast_int(int32_t value) {
  return reinterpret_cast<IntVector>(_mm512_set1_epi32(value));
}
// widen() reads 16 bytes; narrow() keeps the low halves of the elements. They use masked intrinsics because g++ 12
// believes that those without a mask read uninitialised memory (bug 105593).
ALWAYS_INLINE UnsignedVector widen(const uint8_t* bytes) {
  return reinterpret_cast<UnsignedVector>(
      _mm512_maskz_cvtepu8_epi32(0xFFFF, _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes))));
}
ALWAYS_INLINE Halves narrow(UnsignedVector values) {
  return reinterpret_cast<Halves>(_mm512_maskz_cvtepi32_epi16(0xFFFF, reinterpret_cast<__m512i>(values)));
}
ALWAYS_INLINE CodeVector lookup(CodeVector table, CodeVector index) {
  return reinterpret_cast<CodeVector>(
      _mm512_shuffle_epi8(reinterpret_cast<__m512i>(table), reinterpret_cast<__m512i>(index)));
}
ALWAYS_INLINE void stream(float* to, Vector value) {
  _mm512_stream_ps(to, value);
}
ALWAYS_INLINE void stream(uint16_t* to, Halves value) {
  _mm256_stream_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(value));
}
ALWAYS_INLINE void fence() {
  _mm_sfence();
}
