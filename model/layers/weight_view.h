// What a layer computes with: the weights of its parameters, and where their gradients are added up. Views are handed
// out for a bucket, the parameters of the embedding, of a block or of the head (model/exchange.h).
#pragma once

#include <cstdint>
#include <span>

#include "dist/base/error.h"
#include "quant/tensor/tensor.h"

namespace nibble {

// Of one parameter, in its own shape.
struct WeightView {
  Tensor values;    // dtype of the parameter
  Tensor gradient;  // f32; empty in inference
};

struct BucketView {
  uint32_t first_tensor = 0;  // tensor id of the bucket's first parameter
  std::span<const WeightView> tensors = {};
  // Changes with the weights' place or values, as far as the exchange knows: what a layer has made of the weights of
  // another version is out of date.
  uint64_t weights_version = 0;

  const WeightView& operator[](uint32_t tensor_id) const {
    NIBBLE_CHECK(tensor_id >= first_tensor && tensor_id - first_tensor < tensors.size(), "a parameter of the bucket");
    return tensors[tensor_id - first_tensor];
  }
};

}  // namespace nibble
