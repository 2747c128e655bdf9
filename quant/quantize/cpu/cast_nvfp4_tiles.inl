// Cuts a source into tiles, for cast_nvfp4_avx512.cpp, which includes this file inside an anonymous namespace. Tiles
// are taken two at a time. Each kind of source has a class with
//   value(tile, position)   a vector of 16 lanes; tile 0 or 1
//   set_amax(amax)          the largest magnitude of each lane, of both tiles; neither is NaN
//   largest()               bits of the largest magnitudes in any order; NaN counts as larger than infinity

// The place of a tile in its operand. Its lanes are the rows row, row + row_step, ...
struct TileBounds {
  int64_t row;
  int64_t row_step;
  int64_t position;
  int64_t present;  // rows that exist, 16 at most; 0: there is no such tile
};

ALWAYS_INLINE int64_t rows_present(const TileRange& range, int64_t row) {
  const int64_t left = range.last_row - row;
  return left < 0 ? 0 : (left < 16 ? left : 16);
}
ALWAYS_INLINE __mmask16 lane_mask(int64_t present) {
  return static_cast<__mmask16>((1u << present) - 1u);
}

ALWAYS_INLINE Floats largest_magnitude_of(const Floats (&v)[16]) {
  Floats largest[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    largest[i] = largest_magnitude(largest_magnitude(v[i], v[i + 4]), largest_magnitude(v[i + 8], v[i + 12]));
  }
  return largest_magnitude(largest_magnitude(largest[0], largest[1]), largest_magnitude(largest[2], largest[3]));
}
template <class Tiles>
ALWAYS_INLINE void set_amax_of_values(const Tiles& tiles, Floats (&amax)[2]) {
#pragma GCC unroll 2
  for (int tile = 0; tile < 2; ++tile) {
    Floats v[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) v[i] = tiles.value(tile, i);
    amax[tile] = largest_magnitude_of(v);
  }
}

// Includes a magnitude's bits: as integers they are ordered, infinity and NaN last.
ALWAYS_INLINE void include_magnitude(Floats value, Words& largest) {
  largest = _mm512_max_epu32(largest, _mm512_and_si512(bits_of(value), words(0x7FFFFFFFu)));
}
ALWAYS_INLINE Words largest_of_pairs(Words pairs) {
  return _mm512_max_epu32(_mm512_slli_epi32(pairs, 16), bits_of(high_half(pairs)));
}
template <class Tiles>
ALWAYS_INLINE Words largest_of_values(const Tiles& tiles) {
  Words largest[2] = {};
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    include_magnitude(tiles.value(0, i), largest[0]);
    include_magnitude(tiles.value(1, i), largest[1]);
  }
  return _mm512_max_epu32(largest[0], largest[1]);
}

// Returns the largest magnitudes of `count` vectors of pairs of BF16 numbers.
template <int count>
ALWAYS_INLINE Words largest_pair(const Words* pairs, int64_t stride) {
  Words largest[2] = {};
#pragma GCC unroll 16
  for (int i = 0; i < count; ++i) {
    const auto* pair = reinterpret_cast<const uint16_t*>(pairs) + i * stride;
    largest[i & 1] = _mm512_max_epu16(largest[i & 1], _mm512_and_si512(_mm512_loadu_si512(pair), words(0x7FFF7FFFu)));
  }
  return _mm512_max_epu16(largest[0], largest[1]);
}

// Two tiles of a BF16 source whose lanes lie side by side: of 32 columns, tile 0 has the even ones, in the low halves
// of words, and tile 1 the odd ones, in the high halves.
struct ColumnPairs {
  const uint16_t* first;
  int64_t stride;
  ALWAYS_INLINE Floats value(int tile, int i) const {
    const Words pair = _mm512_loadu_si512(first + i * stride);
    return tile == 0 ? low_half(pair) : high_half(pair);
  }
  ALWAYS_INLINE void set_amax(Floats (&amax)[2]) const {
    const Words largest = largest_pair<16>(reinterpret_cast<const Words*>(first), stride);
    amax[0] = low_half(largest);
    amax[1] = high_half(largest);
  }
  ALWAYS_INLINE Words largest() const {
    return largest_of_pairs(largest_pair<16>(reinterpret_cast<const Words*>(first), stride));
  }
};

// Two tiles of such a BF16 source that are 16 neighbouring columns each, of which some may be missing.
struct Columns {
  const uint16_t* first;
  int64_t stride;
  __mmask16 mask[2];
  ALWAYS_INLINE Floats value(int tile, int i) const {
    const __m256i values = _mm256_maskz_loadu_epi16(mask[tile], first + i * stride + 16 * tile);
    return floats_of(_mm512_slli_epi32(_mm512_cvtepu16_epi32(values), 16));
  }
  ALWAYS_INLINE void set_amax(Floats (&amax)[2]) const { set_amax_of_values(*this, amax); }
  ALWAYS_INLINE Words largest() const { return largest_of_values(*this); }
};
struct F32Columns {
  const float* first;
  int64_t stride;
  __mmask16 mask[2];
  ALWAYS_INLINE Floats value(int tile, int i) const {
    return _mm512_maskz_loadu_ps(mask[tile], first + i * stride + 16 * tile);
  }
  ALWAYS_INLINE void set_amax(Floats (&amax)[2]) const { set_amax_of_values(*this, amax); }
  ALWAYS_INLINE Words largest() const { return largest_of_values(*this); }
};

// Two tiles of a BF16 source whose positions lie side by side: after transposing, words of two positions, eight a tile.
struct Rows {
  Words pairs[16];
  ALWAYS_INLINE Floats value(int tile, int i) const {
    const Words pair = pairs[8 * tile + i / 2];
    return i % 2 == 0 ? low_half(pair) : high_half(pair);
  }
  ALWAYS_INLINE void set_amax(Floats (&amax)[2]) const {
#pragma GCC unroll 2
    for (int tile = 0; tile < 2; ++tile) {
      const Words largest = largest_pair<8>(pairs + 8 * tile, 32);
      amax[tile] = _mm512_max_ps(low_half(largest), high_half(largest));
    }
  }
  ALWAYS_INLINE Words largest() const {
    return largest_of_pairs(largest_pair<16>(pairs, 32));
  }
};
// Two tiles of FP32 values in memory: those of transposed rows, or rotated ones.
struct Kept {
  Floats values[2][16];
  ALWAYS_INLINE Floats value(int tile, int i) const { return values[tile][i]; }
  ALWAYS_INLINE void set_amax(Floats (&amax)[2]) const { set_amax_of_values(*this, amax); }
  ALWAYS_INLINE Words largest() const { return largest_of_values(*this); }
};

struct Rotation {
  const uint16_t* signs;
  int64_t first_position;
  bool f32;  // the source is FP32: it is rounded to BF16 first

  template <class Tiles>
  ALWAYS_INLINE void load(const Tiles& tiles, const TileBounds& bounds, int tile, Floats (&v)[16]) const {
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) v[i] = tiles.value(tile, i);
    if (f32) round_to_bf16(v);
    rotate(v, signs[(bounds.position - first_position) / block_size]);
  }
};

// ---- Going through a source ----
//
// Work has Stage<Tiles>, with members tiles and places, prepare(stage) and finish(stage).

// Prepares two tiles before it finishes the two before them. The latency of the scales, each a chain of dependent
// operations, is thus hidden behind the codes of others.
template <class Tiles, class Work>
class Pipeline {
 public:
  explicit Pipeline(Work& work) : work_(work) {}
  ~Pipeline() {
    if (count_ > 0) work_.finish(stages_[(count_ - 1) % 2]);
  }
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;

  Tiles& next_tiles() { return stages_[count_ % 2].tiles; }
  ALWAYS_INLINE void push(const TileBounds& first, const TileBounds& second) {
    typename Work::template Stage<Tiles>& stage = stages_[count_ % 2];
    stage.bounds[0] = first;
    stage.bounds[1] = second;
    work_.prepare(stage);
    if (count_ > 0) work_.finish(stages_[(count_ + 1) % 2]);
    ++count_;
  }

 private:
  Work& work_;
  typename Work::template Stage<Tiles> stages_[2];
  int64_t count_ = 0;
};

template <class Work>
void work_on_bf16_rows(const TileSource& source, const TileRange& range, Work& work) {
  Pipeline<Rows, Work> pipeline(work);
  for (int64_t row = range.first_row; row < range.last_row; row += 16) {
    const int64_t present = rows_present(range, row);
    const auto* first = static_cast<const uint16_t*>(source.data) + row * source.stride;
    for (int64_t position = range.first_position; position < range.last_position; position += 32) {
      const bool two = range.last_position - position > 16;
      const __mmask32 columns = two ? 0xFFFFFFFFu : 0xFFFFu;
      Words pairs[16];
#pragma GCC unroll 16
      for (int lane = 0; lane < 16; ++lane) {
        pairs[lane] = _mm512_maskz_loadu_epi16(lane < present ? columns : 0, first + lane * source.stride + position);
      }
      transpose(pairs);
      Rows& tiles = pipeline.next_tiles();
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) tiles.pairs[i] = pairs[i];
      pipeline.push({row, 1, position, present}, {row, 1, position + 16, two ? present : 0});
    }
  }
}

template <class Work>
void work_on_f32_rows(const TileSource& source, const TileRange& range, Work& work) {
  Pipeline<Kept, Work> pipeline(work);
  for (int64_t row = range.first_row; row < range.last_row; row += 16) {
    const int64_t present = rows_present(range, row);
    const auto* first = static_cast<const float*>(source.data) + row * source.stride;
    for (int64_t position = range.first_position; position < range.last_position; position += 32) {
      const bool two = range.last_position - position > 16;
      Kept& tiles = pipeline.next_tiles();
#pragma GCC unroll 2
      for (int tile = 0; tile < 2; ++tile) {
        const __mmask16 columns = tile == 0 || two ? 0xFFFFu : 0;
        Words values[16];
#pragma GCC unroll 16
        for (int lane = 0; lane < 16; ++lane) {
          values[lane] = _mm512_maskz_loadu_epi32(lane < present ? columns : 0,
                                                  first + lane * source.stride + position + 16 * tile);
        }
        transpose(values);
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) tiles.values[tile][i] = floats_of(values[i]);
      }
      pipeline.push({row, 1, position, present}, {row, 1, position + 16, two ? present : 0});
    }
  }
}

// Works on the columns from `first_row` on, at the range's positions.
template <class Tiles, class Element, class Work>
void work_on_columns(const TileSource& source, const TileRange& range, int64_t first_row, Work& work) {
  Pipeline<Tiles, Work> pipeline(work);
  for (int64_t position = range.first_position; position < range.last_position; position += 16) {
    for (int64_t row = first_row; row < range.last_row; row += 32) {
      const auto* first = static_cast<const Element*>(source.data) + position * source.stride + row;
      const int64_t present[2] = {rows_present(range, row), rows_present(range, row + 16)};
      pipeline.next_tiles() = {first, source.stride, {lane_mask(present[0]), lane_mask(present[1])}};
      pipeline.push({row, 1, position, present[0]}, {row + 16, 1, position, present[1]});
    }
  }
}

template <class Work>
void work_on_column_pairs(const TileSource& source, const TileRange& range, Work& work) {
  Pipeline<ColumnPairs, Work> pipeline(work);
  for (int64_t position = range.first_position; position < range.last_position; position += 16) {
    const auto* first = static_cast<const uint16_t*>(source.data) + position * source.stride;
    for (int64_t row = range.first_row; row < range.last_row; row += 32) {
      pipeline.next_tiles() = {first + row, source.stride};
      pipeline.push({row, 2, position, 16}, {row + 1, 2, position, 16});
    }
  }
}

// Works on a range. `together` makes the lanes of each tile consecutive rows.
template <class Work>
void work_on(const TileSource& source, const TileRange& range, bool together, Work& work) {
  if (!source.transpose) {
    return source.f32 ? work_on_f32_rows(source, range, work) : work_on_bf16_rows(source, range, work);
  }
  if (source.f32) return work_on_columns<F32Columns, float>(source, range, range.first_row, work);
  int64_t first_row = range.first_row;
  if (!together) {
    TileRange pairs = range;
    pairs.last_row = first_row = range.first_row + (range.last_row - range.first_row) / 32 * 32;
    work_on_column_pairs(source, pairs, work);
  }
  if (first_row < range.last_row) work_on_columns<Columns, uint16_t>(source, range, first_row, work);
}
