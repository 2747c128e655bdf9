// The operands of attention on both devices, for tests of its kernels and of the choice among them.
#pragma once

#include <cmath>

#include "cuda/device_fixture.h"
#include "model/ops/attention/attention.h"

namespace nibble {

struct AttentionOperands {
  AttentionShape shape;
  TwinTensor qkv, output, log_sum_exp, grad_output, grad_qkv;
  TwinTensor document_starts;  // starts of documents, read where the shape has a mask

  AttentionOperands(const AttentionShape& size, DType dtype)
      : shape(size),
        qkv(dtype, {size.tokens(), size.qkv_features()}),
        output(dtype, {size.tokens(), size.output_features()}),
        log_sum_exp(DType::f32, {size.sequences, size.query_heads, size.sequence_length}),
        grad_output(dtype, {size.tokens(), size.output_features()}),
        grad_qkv(dtype, {size.tokens(), size.qkv_features()}),
        document_starts(DType::i32, {size.tokens()}) {
    qkv.fill_normal(1);
    grad_output.fill_normal(2);
  }

  // Sets documents of these lengths, over and over, from the start of every sequence on.
  void pack(const std::vector<int64_t>& lengths) {
    shape.document_mask = true;
    for (int64_t sequence = 0; sequence < shape.sequences; ++sequence) {
      int64_t start = 0;
      size_t document = static_cast<size_t>(sequence);
      for (int64_t position = 0; position < shape.sequence_length; ++position) {
        if (position - start == lengths[document % lengths.size()]) {
          start = position;
          ++document;
        }
        document_starts.cpu().as<int32_t>()[sequence * shape.sequence_length + position] = static_cast<int32_t>(start);
      }
    }
    document_starts.upload();
  }
  Tensor document_starts_on(DeviceKind device) const {
    return shape.document_mask ? document_starts.on(device) : Tensor();
  }

  // Returns a workspace that holds what earlier operators left there.
  TwinTensor workspace(DeviceKind device) const {
    TwinTensor memory(DType::f32, {attention_workspace_floats({.shape = shape, .dtype = qkv.cpu().dtype()}, device)});
    for (int64_t i = 0; i < memory.cpu().elements(); ++i) memory.cpu().as<float>()[i] = std::nanf("");
    memory.upload();
    return memory;
  }
  void forward_on(DeviceKind device, const Tensor& workspace_there) const {
    attention_forward({shape, qkv.on(device), output.on(device), log_sum_exp.on(device), workspace_there,
                       document_starts_on(device)});
    synchronize(device);
  }
  void forward() const {
    for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
      forward_on(device, workspace(device).on(device));
    }
  }
  // Runs the forward pass on a GPU, in a workspace that was planned for inference with another shape.
  void forward_as_planned_for(const AttentionShape& planned) const {
    const AttentionUse use{.shape = planned, .dtype = qkv.cpu().dtype(), .training = false};
    const TwinTensor memory(DType::f32, {attention_workspace_floats(use, DeviceKind::cuda)});
    forward_on(DeviceKind::cuda, memory.gpu());
  }
  void backward() const {
    for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
      attention_backward({shape, grad_output.on(device), qkv.on(device), output.on(device), log_sum_exp.on(device),
                          grad_qkv.on(device), workspace(device).on(device), document_starts_on(device)});
      synchronize(device);
    }
  }
};

}  // namespace nibble
