#include "model/layers/parameter.h"

#include <algorithm>

#include "dist/device/thread_pool.h"
#include "model/layers/normal_quantile.h"
#include "quant/format/philox.h"

namespace nibble {
namespace {

constexpr uint64_t elements_per_task = 1 << 14;

DType dtype_of_width(uint8_t width) {
  return width == 4 ? DType::f32 : DType::bf16;
}

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

void ParameterTable::begin_bucket(std::string name) {
  buckets_.push_back({.name = std::move(name), .range = {flat_size_, flat_size_}});
}

uint32_t ParameterTable::add(ParameterDescription description) {
  if (buckets_.empty()) begin_bucket("parameters");
  uint64_t count = 1;
  for (int64_t extent : description.shape) count = checked_multiply(count, narrow<uint64_t>(extent));
  const uint32_t tensor_id = narrow<uint32_t>(parameters_.size());
  NIBBLE_CHECK(count < (uint64_t{1} << 40) && tensor_id < (1U << 24), "beyond the limits of the random streams");
  const auto width = static_cast<uint8_t>(size_of(description.dtype));
  parameters_.push_back({{.name = std::move(description.name),
                          .shape = std::move(description.shape),
                          .tensor_id = tensor_id,
                          .offset = flat_size_,
                          .count = count,
                          .bucket = narrow<uint32_t>(buckets_.size() - 1),
                          .width = width,
                          .use = description.use,
                          .decay = description.decay,
                          .parts = std::move(description.parts)},
                         description.initialization,
                         description.init_std});
  flat_size_ = round_up(flat_size_ + count, Layout::alignment);
  buckets_.back().range.end = flat_size_;
  first_byte_.push_back(weight_bytes_);
  weight_bytes_ += checked_multiply(flat_size_ - parameters_.back().offset, uint64_t{width});
  return tensor_id;
}

Layout ParameterTable::layout() const {
  return {buckets_, {parameters_.begin(), parameters_.end()}};
}

Tensor ParameterTable::view(const Tensor& flat, uint32_t tensor_id) const {
  const Parameter& parameter = parameters_.at(tensor_id);
  const bool by_bytes = flat.dtype() == DType::u8;
  NIBBLE_CHECK(static_cast<uint64_t>(flat.elements()) == (by_bytes ? weight_bytes_ : flat_size_),
               "not a flat buffer of these parameters");
  const int64_t begin = narrow<int64_t>(by_bytes ? first_byte_[tensor_id] : parameter.offset);
  const int64_t count = narrow<int64_t>(parameter.count);
  Tensor elements = flat.slice(begin, begin + (by_bytes ? count * parameter.width : count));
  if (by_bytes) elements = Tensor(elements.data(), dtype_of_width(parameter.width), {count}, flat.device());
  const std::vector<int64_t>& shape = parameter.shape;
  NIBBLE_CHECK(shape.size() == 1 || shape.size() == 2, "parameters are vectors or matrices");
  return shape.size() == 1 ? elements : elements.reshape({shape[0], shape[1]});
}

Tensor allocate_weights(Arena& arena, const Layout& layout) {
  const uint64_t elements = layout.elements();
  for (const uint8_t width : {uint8_t{2}, uint8_t{4}}) {
    if (layout.weight_bytes() != elements * width) continue;
    return allocate_tensor(arena, dtype_of_width(width), {narrow<int64_t>(elements)});
  }
  return allocate_tensor(arena, DType::u8, {narrow<int64_t>(layout.weight_bytes())});
}

void initialize(const ParameterTable& table, uint64_t seed, uint64_t begin, uint64_t end, float* values) {
  NIBBLE_CHECK(begin <= end && end <= table.flat_size(), "range outside the flat buffer");
  std::fill(values, values + (end - begin), 0.0F);
  for_each_part(table.parameters(), {begin, end}, [&](size_t index, Range range) {
    const Parameter& parameter = table.parameters()[index];
    if (parameter.initialization == Initialization::zeros) return;  // as they are
    float* const part = values + (range.begin - begin);
    if (parameter.initialization == Initialization::ones) {
      std::fill(part, part + range.count(), 1.0F);
      return;
    }
    const uint64_t element = range.begin - parameter.offset;
    parallel_for(range.count(), elements_per_task, [&](size_t task_begin, size_t task_end) {
      fill_normal(parameter, seed, element + task_begin, element + task_end, part + task_begin);
    });
  });
}

}  // namespace nibble
