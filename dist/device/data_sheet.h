// Peak rates of GPUs by their data sheets.
#pragma once

#include <string_view>

namespace nibble {

// Returns the FLOP/s of dense BF16 products with FP32 sums of the GPU with this name (cudaDeviceProp::name); 0 if it is
// not known, as for slices (MIG) and for chips whose data sheet does not give it. Clocks and counts of multiprocessors
// do not tell the rate: H20 has the units of an H100 and a seventh of its rate.
// Sources: NVIDIA's data sheets and architecture white papers, without sparsity.
double data_sheet_bf16_flops(std::string_view name);

}  // namespace nibble
