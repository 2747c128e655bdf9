// The bias of a linear layer: a vector that is added to each row of its product.
#pragma once

#include <string>
#include <vector>

#include "model/layers/layer_arenas.h"
#include "model/layers/parameter.h"
#include "model/layers/weight_view.h"

namespace nibble {

class Bias {
 public:
  // Adds the vector to the table; it is zero at first.
  Bias(std::string name, std::vector<TensorPart> parts, int64_t features, DType dtype, ParameterTable& table);

  void allocate(const LayerArenas& arenas);
  void bind(const BucketView& bucket);
  // output [tokens, features] += the bias.
  void forward(const Tensor& output) const;
  // Adds the gradient of the bias; that of the product is grad_output itself.
  void backward(const Tensor& grad_output) const;

 private:
  uint32_t id_;
  int64_t features_;
  WeightView bias_;   // [features]
  Tensor workspace_;  // f32 [token_ranges, features]
};

}  // namespace nibble
