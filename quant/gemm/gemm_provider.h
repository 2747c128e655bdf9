// Who multiplies on a GPU, behind one interface (quant/gemm/cuda/gemm_backend.h):
//   exact     our own kernels: the bits of the CPU for every pair of formats; the path for verification, and where
//             there is no cuBLASLt
//   cublaslt  cuBLASLt on the operands as they are: bf16, f32, fp8 (sm_89 and later), mxfp8 and nvfp4 (Blackwell)
//   cudnn     nvfp4 by a graph of cuDNN (Blackwell)
//   emulated  operands decoded, exactly, to BF16 in the scratch memory of the problem, then a BF16 product of cuBLASLt;
//             nvfp4 with outer scales, which BF16 does not hold, and pairs with f32 in FP32 (no TF32)
// The products of libraries sum in an order of their own, which is the same in every run on the same kind of GPU with
// the same library: algorithms are chosen once a shape and kept in a plan, and sums are never split along the inner
// axis. All take alpha from the tensor scales on the device: nobody waits for the device.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "quant/format/format.h"

namespace nibble::cuda {

enum class GemmProvider : uint8_t { automatic, exact, cublaslt, cudnn, emulated };

// For all products from now on; to be set before scratch memory is planned. `automatic`: native (cublaslt, else cudnn)
// where device, library and shape allow it and the self-test (quant/gemm/cuda/gemm_self_test.h) passed, else emulated;
// exact, with a warning, without cuBLASLt. With `cudnn`, pairs other than nvfp4 are those of cublaslt; with `emulated`,
// pairs that need no decoding too. A provider that was named but cannot multiply a pair: ExitCode::bad_config from
// gemm_scratch_bytes(), gemm() and describe_gemm().
void set_gemm_provider(GemmProvider provider);
GemmProvider gemm_provider();
// "automatic", "exact", "cublaslt", "cudnn", "emulated".
std::string_view name_of(GemmProvider provider);

// "nvfp4: native, cuBLASLt 13.1.0"; "nvfp4: emulated in bf16 (NVIDIA H100 has no FP4 units)".
std::string describe_gemm(Format a, Format b);

// The algorithms of cuBLASLt chosen so far, as text: a run that continues imports the plan of the one before, so that
// its products have the same bits. import: what was chosen on another device, by another version of the library or by
// another version of the format is ignored with a warning.
std::string export_gemm_plan();
void import_gemm_plan(std::string_view text);

}  // namespace nibble::cuda
