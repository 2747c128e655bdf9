#include "model/exchange.h"

#include <atomic>

namespace nibble {
namespace {

// No two versions of weights have the same number, whichever exchange hands them out.
uint64_t next_version() {
  static std::atomic<uint64_t> last{0};
  return ++last;
}

}  // namespace

void Exchange::release(uint32_t /*bucket*/, Direction /*direction*/) {}

void Exchange::complete(uint32_t /*bucket*/) {}

void LocalExchange::bind(const ParameterTable& table, const Tensor& weights, const Tensor& gradients) {
  NIBBLE_CHECK(gradients.empty() || gradients.dtype() == DType::f32, "gradients are fp32");
  if (weights.data() != weights_.data()) weights_version_ = next_version();
  weights_ = weights;
  views_.clear();
  names_.clear();
  for (const Bucket& bucket : table.buckets()) names_.push_back(bucket.name);
  first_tensor_.assign(1, 0);
  for (const Parameter& parameter : table.parameters()) {
    while (first_tensor_.size() <= parameter.bucket) first_tensor_.push_back(parameter.tensor_id);
    views_.push_back({.values = table.view(weights, parameter.tensor_id),
                      .gradient = gradients.empty() ? Tensor() : table.view(gradients, parameter.tensor_id)});
  }
  first_tensor_.resize(table.buckets().size() + 1, static_cast<uint32_t>(views_.size()));
}

BucketView LocalExchange::acquire(uint32_t bucket, Direction /*direction*/) {
  NIBBLE_CHECK(!views_.empty(), "bind() comes before the first pass");
  const uint32_t first = first_tensor_[bucket];
  return {.first_tensor = first,
          .tensors = std::span(views_).subspan(first, first_tensor_[bucket + 1] - first),
          .weights_version = weights_version_};
}

}  // namespace nibble
