#include "model/layers/parameter.h"

#include <algorithm>

#include "dist/device/thread_pool.h"
#include "model/layers/normal_quantile.h"
#include "quant/format/philox.h"

namespace nibble {
namespace {

constexpr uint64_t offset_multiple = 16;
constexpr uint64_t elements_per_task = 1 << 14;

// Fills elements [begin, end) of one parameter. Element e uses word e % 4 of random block e / 4.
void fill_normal(const Parameter& parameter, uint64_t seed, uint64_t begin, uint64_t end, float* values) {
  const NoiseStream stream{.seed = seed, .tensor_id = parameter.tensor_id, .purpose = Purpose::weight_init};
  PhiloxBlock block{};
  for (uint64_t element = begin; element < end; ++element) {
    if (element == begin || element % 4 == 0) block = random_block(stream, element / 4);
    const double p = (block.word[element % 4] + 0.5) * 0x1p-32;
    values[element - begin] = static_cast<float>(parameter.init_std * normal_quantile(p));
  }
}

}  // namespace

uint32_t ParameterTable::add(std::string name, std::vector<int64_t> shape, Initialization initialization,
                             double init_std, bool decay) {
  uint64_t count = 1;
  for (int64_t extent : shape) count = checked_multiply(count, narrow<uint64_t>(extent));
  const uint32_t tensor_id = narrow<uint32_t>(parameters_.size());
  parameters_.push_back({.name = std::move(name),
                         .shape = std::move(shape),
                         .tensor_id = tensor_id,
                         .initialization = initialization,
                         .init_std = init_std,
                         .decay = decay,
                         .offset = flat_size_,
                         .count = count});
  NIBBLE_CHECK(count < (uint64_t{1} << 40) && tensor_id < (1U << 24), "beyond the limits of the random streams");
  flat_size_ = round_up(flat_size_ + count, offset_multiple);
  return tensor_id;
}

Tensor ParameterTable::view(const Tensor& flat, uint32_t tensor_id) const {
  NIBBLE_CHECK(static_cast<uint64_t>(flat.elements()) == flat_size_, "not a flat buffer of these parameters");
  const Parameter& parameter = parameters_.at(tensor_id);
  const int64_t begin = narrow<int64_t>(parameter.offset);
  const Tensor elements = flat.slice(begin, begin + narrow<int64_t>(parameter.count));
  const std::vector<int64_t>& shape = parameter.shape;
  NIBBLE_CHECK(shape.size() == 1 || shape.size() == 2, "parameters are vectors or matrices");
  return shape.size() == 1 ? elements : elements.reshape({shape[0], shape[1]});
}

void initialize(const ParameterTable& table, uint64_t seed, uint64_t begin, uint64_t end, float* values) {
  NIBBLE_CHECK(begin <= end && end <= table.flat_size(), "range outside the flat buffer");
  std::fill(values, values + (end - begin), 0.0F);
  for (const Parameter& parameter : table.parameters()) {
    const uint64_t first = std::max(begin, parameter.offset);
    const uint64_t last = std::min(end, parameter.offset + parameter.count);
    if (first >= last) continue;
    float* part = values + (first - begin);
    if (parameter.initialization == Initialization::ones) {
      std::fill(part, part + (last - first), 1.0F);
      continue;
    }
    const uint64_t element = first - parameter.offset;
    parallel_for(last - first, elements_per_task, [&](size_t task_begin, size_t task_end) {
      fill_normal(parameter, seed, element + task_begin, element + task_end, part + task_begin);
    });
  }
}

}  // namespace nibble
