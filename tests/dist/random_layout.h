// Layouts with tensors of every kind, drawn from a seed, for tests of placements and of what uses them.
#pragma once

#include <fmt/format.h>

#include <random>

#include "dist/base/error.h"
#include "dist/zero/layout.h"

namespace nibble {

inline Layout random_layout(uint32_t seed) {
  std::mt19937 random(seed);
  const auto draw = [&](int low, int high) {
    return static_cast<int64_t>(low + static_cast<int>(random() % static_cast<uint32_t>(high - low + 1)));
  };
  std::vector<Bucket> buckets;
  std::vector<TensorLayout> tensors;
  uint64_t offset = 0;
  uint32_t id = 0;
  const int64_t count = draw(1, 5);
  for (int64_t b = 0; b < count; ++b) {
    Bucket bucket{.name = fmt::format("bucket{}", b), .range = {offset, offset}};
    for (int64_t t = draw(1, 6); t > 0; --t) {
      TensorLayout tensor{.name = fmt::format("tensor{}", tensors.size()),
                          .tensor_id = id,
                          .offset = offset,
                          .grain = uint64_t{16} << draw(0, 8),
                          .bucket = static_cast<uint32_t>(b)};
      switch (draw(0, 3)) {
        case 0: tensor.shape = {draw(1, 700)}, tensor.use = TensorUse::vector; break;
        case 1: tensor.shape = {draw(1, 90), draw(1, 90)}; break;
        case 2: {
          const int64_t first = 16 * draw(1, 5);
          const int64_t second = 16 * draw(1, 5);
          tensor.shape = {first + second, draw(1, 70)};
          tensor.parts = {{"gate", first}, {"up", second}};
          break;
        }
        default:
          tensor.shape = {draw(2, 6), 16 * draw(1, 4), draw(1, 40)};
          tensor.matrices = static_cast<uint32_t>(tensor.shape[0]);
      }
      if (draw(0, 3) == 0) tensor.width = 4;
      tensor.count = 1;
      for (const int64_t extent : tensor.shape) tensor.count *= static_cast<uint64_t>(extent);
      offset = round_up(offset + tensor.count, Layout::alignment);
      id += tensor.matrices;
      tensors.push_back(tensor);
    }
    bucket.range.end = offset;
    buckets.push_back(bucket);
  }
  return {std::move(buckets), std::move(tensors)};
}

}  // namespace nibble
