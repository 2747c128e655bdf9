// What is known of a GEMM on a GPU without the GPU: whether its kind has units for the operands, and what decoding
// takes. Internal to quant, and to plans for GPUs that are not there.
#pragma once

#include <cstdint>
#include <string>

#include "dist/device/device.h"
#include "quant/gemm/gemm_problem.h"

namespace nibble::cuda {

// Returns why cuBLASLt has no native GEMM of this shape on a GPU of this compute capability (ten times the major
// number, and the minor one); empty: it has. `device` is the GPU's name in the text. A shape of 0 x 0 x 0 stands for
// any shape.
std::string native_gemm_refusal(const GemmShape& shape, int capability, const std::string& device);

// How many rows of an operand [rows, k] are decoded at a time, and the bytes for them; 0 for what needs no decoding.
struct DecodedPart {
  int64_t rows = 0, bytes = 0;
};
struct DecodedParts {
  bool fp32 = false;  // decoded to FP32, not to BF16
  DecodedPart a, b;
};
DecodedParts decoded_parts(const GemmShape& shape);
bool is_decoded(Format format, bool fp32);

// Sets the size in bytes of a decoded operand above which emulation decodes it some rows (128 or more) at a time; 256
// MiB at first. It must be set before scratch memory is planned.
void set_largest_decoded_part(int64_t bytes);

// Returns gemm_scratch_bytes() (quant/gemm/gemm.h) of a GPU that is described only.
size_t described_scratch_bytes(const GemmShape& shape, const DescribedGpu& gpu);

}  // namespace nibble::cuda
