// Vectors of 16 lanes for cast_nvfp4_avx512.cpp, which includes this file inside an anonymous namespace: everything
// here must have internal linkage, because the file is compiled for machines that may not be this one.

#define ALWAYS_INLINE inline __attribute__((always_inline))

using Floats = __m512;
using Words = __m512i;
constexpr int block_size = 16;

template <int value_>
struct Index {
  static constexpr int value = value_;
};

ALWAYS_INLINE Words words(uint32_t value) {
  return _mm512_set1_epi32(static_cast<int>(value));
}
ALWAYS_INLINE Words bits_of(Floats value) {
  return _mm512_castps_si512(value);
}
ALWAYS_INLINE Floats floats_of(Words value) {
  return _mm512_castsi512_ps(value);
}
// Selects bit by bit. `elsewhere` is the first operand, which the instruction overwrites, so the caller should not need
// it any more.
ALWAYS_INLINE Words select(Words mask, Words where_set, Words elsewhere) {
  return _mm512_ternarylogic_epi32(elsewhere, where_set, mask, 0xD8);
}
ALWAYS_INLINE Words exclusive_or(Words a, Words b, Words c) {
  return _mm512_ternarylogic_epi32(a, b, c, 0x96);
}
ALWAYS_INLINE Floats with_sign_of(Floats sign, Floats magnitude) {
  return floats_of(select(words(0x80000000u), bits_of(sign), bits_of(magnitude)));
}
// Returns the larger magnitude. Neither argument may be NaN.
ALWAYS_INLINE Floats largest_magnitude(Floats a, Floats b) {
  return _mm512_range_ps(a, b, 0x0B);
}
// Returns the value, but no farther from zero than `limit`.
ALWAYS_INLINE Floats clamped(Floats value, Floats limit) {
  return _mm512_range_ps(value, limit, 0x02);
}

// ---- Memory ----

ALWAYS_INLINE void transpose(Words (&r)[16]) {
  Words t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
    t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xDD);
    t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
    t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xDD);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
    r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xDD);
    r[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
    r[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xDD);
  }
}

// These return the BF16 numbers in the low and in the high halves of words.
ALWAYS_INLINE Floats low_half(Words pair) {
  return floats_of(_mm512_slli_epi32(pair, 16));
}
ALWAYS_INLINE Floats high_half(Words pair) {
  return floats_of(_mm512_and_si512(pair, words(0xFFFF0000u)));
}

// ---- Philox4x32-10, as quant/format/philox.h has it ----

constexpr uint32_t philox_multiplier[2] = {0xD2511F53u, 0xCD9E8D57u};

// The values that are the same for all counters that differ in word 0 only: with them two rounds are half done.
struct PhiloxPrefix {
  uint32_t key[10][2];
  uint32_t first;      // round 1: word 2 is hi(word 0 * m0) ^ first
  uint32_t second[2];  // round 2: words 0 and 2 are hi(word 2 * m1) ^ second[0], word 3 ^ second[1]
  uint32_t third;      // round 3: word 3
};

ALWAYS_INLINE PhiloxPrefix philox_prefix(const uint32_t (&key)[2], const uint32_t (&counter)[3],
                                         uint32_t set_in_word1) {
  PhiloxPrefix prefix;
  for (uint32_t round = 0; round < 10; ++round) {
    prefix.key[round][0] = key[0] + round * 0x9E3779B9u;
    prefix.key[round][1] = key[1] + round * 0xBB67AE85u;
  }
  const uint64_t product1 = uint64_t{philox_multiplier[1]} * counter[1];
  const uint32_t word0 = static_cast<uint32_t>(product1 >> 32) ^ (counter[0] | set_in_word1) ^ key[0];
  prefix.first = counter[2] ^ key[1];
  const uint64_t product0 = uint64_t{philox_multiplier[0]} * word0;
  prefix.second[0] = static_cast<uint32_t>(product1) ^ prefix.key[1][0];
  prefix.second[1] = static_cast<uint32_t>(product0 >> 32) ^ prefix.key[1][1];
  prefix.third = static_cast<uint32_t>(product0);
  return prefix;
}

// Eight counters in the low halves of 64-bit elements; what lies above them is ignored.
struct PhiloxState {
  Words word[4];
};
ALWAYS_INLINE void philox_round(PhiloxState& state, Words key0, Words key1) {
  const Words product0 = _mm512_mul_epu32(state.word[0], words(philox_multiplier[0]));
  const Words product1 = _mm512_mul_epu32(state.word[2], words(philox_multiplier[1]));
  state.word[0] = exclusive_or(_mm512_srli_epi64(product1, 32), state.word[1], key0);
  state.word[1] = product1;
  state.word[2] = exclusive_or(_mm512_srli_epi64(product0, 32), state.word[3], key1);
  state.word[3] = product0;
}
ALWAYS_INLINE PhiloxState philox_start(const PhiloxPrefix& prefix, Words index) {
  const Words product0 = _mm512_mul_epu32(index, words(philox_multiplier[0]));
  const Words word2 = _mm512_xor_si512(_mm512_srli_epi64(product0, 32), words(prefix.first));
  const Words product1 = _mm512_mul_epu32(word2, words(philox_multiplier[1]));
  PhiloxState state;
  state.word[0] = _mm512_xor_si512(_mm512_srli_epi64(product1, 32), words(prefix.second[0]));
  state.word[1] = product1;
  state.word[2] = _mm512_xor_si512(product0, words(prefix.second[1]));
  state.word[3] = words(prefix.third);
  return state;
}

// Draws the random words of 16 lanes of `tiles` tiles. In tile t, lane 2 j takes element j of indices[2 t], and lane 2
// j + 1 element j of indices[2 t + 1].
template <int tiles>
ALWAYS_INLINE void draw_noise(const PhiloxPrefix& prefix, const Words* indices, Words (&noise)[tiles][4]) {
  PhiloxState states[2 * tiles];
#pragma GCC unroll 4
  for (int i = 0; i < 2 * tiles; ++i) states[i] = philox_start(prefix, indices[i]);
#pragma GCC unroll 8
  for (int round = 2; round < 10; ++round) {
    const Words key0 = words(prefix.key[round][0]);
    const Words key1 = words(prefix.key[round][1]);
#pragma GCC unroll 4
    for (int i = 0; i < 2 * tiles; ++i) philox_round(states[i], key0, key1);
  }
#pragma GCC unroll 2
  for (int t = 0; t < tiles; ++t) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      noise[t][i] = _mm512_mask_shuffle_epi32(states[2 * t].word[i], 0xAAAA, states[2 * t + 1].word[i], _MM_PERM_CCAA);
    }
  }
}

// ---- Rotation of 16 points, as quant/format/hadamard.h has it: the value is a BF16 number before and after ----

ALWAYS_INLINE Floats rounded_to_bf16(Floats value) {
  const Words bits = bits_of(value);
  const __mmask16 odd = _mm512_test_epi32_mask(bits, words(0x10000u));
  const Words down = _mm512_add_epi32(bits, words(0x7FFFu));
  return floats_of(_mm512_and_si512(_mm512_mask_add_epi32(down, odd, bits, words(0x8000u)), words(0xFFFF0000u)));
}

ALWAYS_INLINE void round_to_bf16(Floats (&v)[16]) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) v[i] = rounded_to_bf16(v[i]);
}

template <int stride>
ALWAYS_INLINE void butterflies(Floats (&v)[16]) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    if ((i & stride) != 0) continue;
    const Floats a = v[i];
    const Floats b = v[i + stride];
    v[i] = _mm512_add_ps(a, b);
    v[i + stride] = _mm512_sub_ps(a, b);
  }
}

// Rotates without rounding the result. Products by the factors are exact, so fusing them changes nothing.
ALWAYS_INLINE void rotate(Floats (&v)[16], uint32_t signs) {
  alignas(64) float factor[16];
  _mm512_store_ps(factor,
                  _mm512_mask_blend_ps(static_cast<__mmask16>(signs), _mm512_set1_ps(0.25f), _mm512_set1_ps(-0.25f)));
  __asm__("" : "+m"(factor));  // makes the compiler broadcast by loads, not by shuffles of the register
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    const Floats a = _mm512_mul_ps(v[i], _mm512_set1_ps(factor[i]));
    const Floats b = v[i + 1];
    const Floats of_b = _mm512_set1_ps(factor[i + 1]);
    v[i] = _mm512_fmadd_ps(b, of_b, a);
    v[i + 1] = _mm512_fnmadd_ps(b, of_b, a);
  }
  butterflies<2>(v);
  butterflies<4>(v);
  butterflies<8>(v);
}

// ---- E4M3 scales of blocks, one a lane ----

struct Scale {
  Words code;  // code in the low byte
  Floats value;
};

// Rounds a magnitude to the nearest E4M3 number. Adding 2^20 times the power of two below (at least 2^-6) rounds to the
// last digit of E4M3; adding 19 more units of it makes the low byte of the sum of exponent and mantissa the code.
ALWAYS_INLINE Scale scale_nearest(Floats d) {
  const Floats bounded = _mm512_min_ps(d, _mm512_set1_ps(448.0f));
  const Words power = _mm512_max_epu32(_mm512_and_si512(bits_of(bounded), words(0x7F800000u)), words(121u << 23));
  const Floats unit = _mm512_set1_ps(1048576.0f + 19.0f);
  const Floats sum = _mm512_fmadd_ps(floats_of(power), unit, bounded);
  return {_mm512_add_epi32(_mm512_srli_epi32(bits_of(sum), 20), bits_of(sum)),
          _mm512_fnmadd_ps(floats_of(power), unit, sum)};
}

// Does block_scale_guarded() of quant/format/codec.h.
ALWAYS_INLINE Scale scale_guarded(Floats d) {
  const Floats enlarged = _mm512_mul_ps(d, _mm512_set1_ps(1.0625f));
  const Scale normal = scale_nearest(enlarged);
  const __mmask16 subnormal = _mm512_cmp_ps_mask(enlarged, _mm512_set1_ps(0.015625f), _CMP_LT_OQ);
  const Words units =
      _mm512_cvt_roundps_epi32(_mm512_mul_ps(d, _mm512_set1_ps(512.0f)), _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC);
  const Floats value = _mm512_mul_ps(_mm512_cvtepi32_ps(units), _mm512_set1_ps(0.001953125f));
  return {_mm512_mask_mov_epi32(normal.code, subnormal, units), _mm512_mask_mov_ps(normal.value, subnormal, value)};
}

ALWAYS_INLINE Floats element_factor(const Scale& scale, float decode) {
  const Floats reciprocal = _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_mul_ps(scale.value, _mm512_set1_ps(decode)));
  return _mm512_min_ps(reciprocal, _mm512_set1_ps(3.402823466e+38f));
}

// ---- E2M1 ----
//
// The grid has three parts, with steps 0.5 below 2, 1 below 4 and 2 above. In each part a power of two is added whose
// last digit is the step (for stochastic rounding, a 256th of the step), and with it the code at which the part begins.
// The code, or the code times 256, then stands in the last digits of the sum, under the sign of the value.

constexpr float halves = 4194304.0f;    // 2^22: the last digit is 0.5
constexpr float wholes = 8388608.0f;    // 2^23: 1
constexpr float doubles = 16777216.0f;  // 2^24: 2

// The table is indexed by twice the value, rounded to an integer of 5 bits: at the borders both parts give the same
// code. Up to 9.75, which no block exceeds whose scale is not zero, a magnitude above 6 saturates.
constexpr float saturated = 536870912.0f + 448.0f;  // 2^29: the last digit is 64
alignas(64) constexpr float nearest_parts[32] = {
    halves,     halves,      halves,      halves,      halves,      wholes + 2,  wholes + 2,  wholes + 2,
    wholes + 2, doubles + 8, doubles + 8, doubles + 8, doubles + 8, saturated,   saturated,   saturated,
    saturated,  saturated,   saturated,   saturated,   doubles + 8, doubles + 8, doubles + 8, doubles + 8,
    wholes + 2, wholes + 2,  wholes + 2,  wholes + 2,  halves,      halves,      halves,      halves};

struct NearestParts {
  Floats low, high;
};
ALWAYS_INLINE NearestParts nearest_table() {
  return {_mm512_load_ps(nearest_parts), _mm512_load_ps(nearest_parts + 16)};
}
ALWAYS_INLINE Floats part_of(const NearestParts& parts, Floats value) {
  const Words index = bits_of(_mm512_add_ps(value, _mm512_set1_ps(1.5f * halves)));  // the last digit is 0.5
  return _mm512_permutex2var_ps(parts.low, index, parts.high);
}
ALWAYS_INLINE Words nearest_code(const NearestParts& parts, Floats value) {
  return bits_of(_mm512_add_ps(value, with_sign_of(value, part_of(parts, value))));
}
// Returns the value that a magnitude of at most 6 is rounded to.
ALWAYS_INLINE Floats nearest_magnitude(const NearestParts& parts, Floats magnitude) {
  const Floats part = part_of(parts, magnitude);
  return _mm512_sub_ps(_mm512_add_ps(magnitude, part), part);
}

// The table is indexed by the low bits of the exponent: 15 below 2, 0 below 4, 1 above. `round_up` 256ths of the step
// are added.
ALWAYS_INLINE Floats stochastic_table(int round_up) {
  const auto more = static_cast<float>(round_up);
  const float below2 = halves / 256 + more * 0.001953125f;
  const float below4 = wholes / 256 + (512.0f + more) * 0.00390625f;
  const float above = doubles / 256 + (1024.0f + more) * 0.0078125f;
  return _mm512_setr_ps(below4, above, below2, below2, below2, below2, below2, below2, below2, below2, below2, below2,
                        below2, below2, below2, below2);
}
ALWAYS_INLINE Floats stochastic_part(Floats parts, Floats value) {
  const Words exponent = _mm512_srli_epi32(bits_of(largest_magnitude(value, _mm512_set1_ps(1.0f))), 23);
  return _mm512_permutexvar_ps(exponent, parts);
}

// Adds factor * (byte `j` of each word) to the sum; the factor is 1 or -1.
struct ByteByShift {
  template <int j, int factor>
  static ALWAYS_INLINE Words add(Words sum, Words bytes) {
    const Words byte = _mm512_and_si512(_mm512_srli_epi32(bytes, 8 * j), words(0xFFu));
    return factor > 0 ? _mm512_add_epi32(sum, byte) : _mm512_sub_epi32(sum, byte);
  }
};
// ByteByDot is in assembly, so that the rest of the file may run on a processor without VNNI.
struct ByteByDot {
  template <int j, int factor>
  static ALWAYS_INLINE Words add(Words sum, Words bytes) {
    const Words weights = words((factor > 0 ? 0x01u : 0xFFu) << (8 * j));
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(bytes), "v"(weights));
    return sum;
  }
};

// Rounds with centred noise: a value times 1 - 2^-24 rounds to nearest as the value does with ties down, since a tie is
// at least that much below its successor.
template <class Byte, int j>
ALWAYS_INLINE Words stochastic_code(Floats parts, Floats value, Words noise) {
  const Floats part = with_sign_of(value, stochastic_part(parts, value));
  return Byte::template add<j, -1>(bits_of(_mm512_fmadd_ps(value, _mm512_set1_ps(0x1.FFFFFEp-1f), part)), noise);
}
template <class Byte, int j>
ALWAYS_INLINE Floats stochastic_magnitude(Floats parts, Floats magnitude, Words noise) {
  const Floats part = stochastic_part(parts, magnitude);
  const Words sum =
      Byte::template add<j, -1>(bits_of(_mm512_fmadd_ps(magnitude, _mm512_set1_ps(0x1.FFFFFEp-1f), part)), noise);
  const Words whole = words(~0xFFu);
  return _mm512_sub_ps(floats_of(_mm512_and_si512(sum, whole)), floats_of(_mm512_and_si512(bits_of(part), whole)));
}
template <class Byte, int j>
ALWAYS_INLINE Words published_code(Floats parts, Floats value, Words noise) {
  const Floats bounded = clamped(value, _mm512_set1_ps(6.0f));
  const Floats part = with_sign_of(bounded, stochastic_part(parts, bounded));
  return Byte::template add<j, 1>(bits_of(_mm512_add_round_ps(bounded, part, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC)),
                                  noise);
}

// ---- Packing ----

constexpr uint32_t rotated_left(uint32_t value, int by) {
  return by % 32 == 0 ? value : value << (by % 32) | value >> (32 - by % 32);
}

// Puts code k of eight into a word, in nibble 2 (k % 4) + k / 4. The code is in bits `low` to low + 2, under the sign.
// A sign first lands three nibbles (low = 8) or one (low = 0) lower than it belongs.
template <int low, int k>
ALWAYS_INLINE Words placed(Words packed, Words code) {
  constexpr int by = (8 * (k & 3) + (k & 4) + 32 - low) % 32;
  const Words turned = by == 0 ? code : _mm512_rol_epi32(code, by);
  return k == 0 ? turned : select(words(rotated_left(0x80000000u | 7u << low, by)), turned, packed);
}
template <int low>
ALWAYS_INLINE Words pack(const Words (&codes)[8]) {
  Words packed = placed<low, 0>(codes[0], codes[0]);
  packed = placed<low, 1>(packed, codes[1]);
  packed = placed<low, 2>(packed, codes[2]);
  packed = placed<low, 3>(packed, codes[3]);
  packed = placed<low, 4>(packed, codes[4]);
  packed = placed<low, 5>(packed, codes[5]);
  packed = placed<low, 6>(packed, codes[6]);
  packed = placed<low, 7>(packed, codes[7]);
  return select(words(0x88888888u), _mm512_rol_epi32(packed, low == 0 ? 4 : 12), packed);
}

// Does in_row_order() of cast_blocks.h.
ALWAYS_INLINE Words in_row_order(Words word) {
  Words low = _mm512_and_si512(word, words(0x0F0F0F0Fu));
  Words high = _mm512_and_si512(_mm512_srli_epi32(word, 4), words(0x0F0F0F0Fu));
  low = _mm512_and_si512(_mm512_or_si512(low, _mm512_srli_epi32(low, 4)), words(0x00FF00FFu));
  high = _mm512_and_si512(_mm512_or_si512(high, _mm512_srli_epi32(high, 4)), words(0x00FF00FFu));
  low = _mm512_or_si512(low, _mm512_srli_epi32(low, 8));
  high = _mm512_or_si512(high, _mm512_srli_epi32(high, 8));
  return select(words(0xFFFFu), low, _mm512_slli_epi32(high, 16));
}
