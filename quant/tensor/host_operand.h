// An operand that the CPU can read: the operand itself where it is on the CPU, else a copy made by the constructor, its
// block scales in rows.
#pragma once

#include <vector>

#include "quant/tensor/quantized_tensor.h"
#include "quant/tensor/tensor_copy.h"

namespace nibble {

class HostOperand {
 public:
  explicit HostOperand(const QuantizedTensor& operand);
  const QuantizedTensor& operand() const { return operand_; }

 private:
  std::vector<HostCopy> copies_;
  std::vector<uint8_t> block_scales_;
  QuantizedTensor operand_;
};

}  // namespace nibble
