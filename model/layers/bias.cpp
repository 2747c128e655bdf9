#include "model/layers/bias.h"

#include <utility>

#include "model/ops/bias.h"

namespace nibble {

Bias::Bias(std::string name, std::vector<TensorPart> parts, int64_t features, DType dtype, ParameterTable& table)
    : id_(table.add({.name = std::move(name),
                     .shape = {features},
                     .use = TensorUse::vector,
                     .initialization = Initialization::zeros,
                     .parts = std::move(parts),
                     .dtype = dtype})),
      features_(features) {}

void Bias::allocate(const LayerArenas& arenas) {
  if (!arenas.training) return;
  const size_t mark = arenas.workspace.mark();
  workspace_ = allocate_tensor(arenas.workspace, DType::f32, {token_ranges, features_});
  arenas.workspace.release(mark);
}

void Bias::bind(const BucketView& bucket) {
  bias_ = bucket[id_];
}

void Bias::forward(const Tensor& output) const {
  add_bias(output, bias_.values);
}

void Bias::backward(const Tensor& grad_output) const {
  bias_backward({.grad_output = grad_output, .grad_bias = bias_.gradient, .workspace = workspace_});
}

}  // namespace nibble
