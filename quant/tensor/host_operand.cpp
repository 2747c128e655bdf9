#include "quant/tensor/host_operand.h"

#include <span>

#include "quant/format/swizzle.h"

namespace nibble {

HostOperand::HostOperand(const QuantizedTensor& operand) : operand_(operand) {
  if (operand.values.device() == DeviceKind::cpu) return;
  copies_.reserve(4);
  for (Tensor* part : {&operand_.values, &operand_.block_scales, &operand_.outer_scales, &operand_.tensor_scale}) {
    if (!part->empty()) *part = copies_.emplace_back(*part).tensor();
  }
  if (operand.layout != OperandLayout::swizzled) return;
  const int block = traits_of(operand.format).block;
  NIBBLE_CHECK(block > 0, "swizzled are the scales of blocks");
  const int64_t blocks = operand.inner / block;
  const auto* swizzled = operand_.block_scales.as<uint8_t>();
  block_scales_.reserve(static_cast<size_t>(operand.rows * blocks));
  for (int64_t row = 0; row < operand.rows; ++row) {
    for (int64_t column = 0; column < blocks; ++column) {
      block_scales_.push_back(swizzled[swizzled_scale_offset(row, column, blocks)]);
    }
  }
  operand_.block_scales = tensor_of(std::span(block_scales_), {operand.rows, blocks});
  operand_.layout = OperandLayout::rows;
}

}  // namespace nibble
