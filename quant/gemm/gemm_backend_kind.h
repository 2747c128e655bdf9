// The backends that compute GEMMs on a GPU, behind one interface (quant/gemm/cuda/gemm_backend.h):
//   exact     our own kernels: the bits of the CPU for every pair of formats; for verification, and where there is no
//             cuBLASLt
//   cublaslt  cuBLASLt on the operands as they are: bf16, f32, fp8 (sm_89 and later), mxfp8 and nvfp4 (Blackwell)
//   cudnn     nvfp4 by a graph of cuDNN (Blackwell)
//   emulated  the operands are decoded, exactly, to BF16 in the scratch memory of the problem, then multiplied by
//             cuBLASLt in BF16; nvfp4 with outer scales, which BF16 does not hold, and pairs with f32 in FP32 (no TF32)
// Libraries sum in an order of their own, which is the same in every run on the same kind of GPU with the same library:
// algorithms are chosen once a shape, tried on its operands and kept in a plan, and sums are never split along the
// inner axis. All backends take alpha from the tensor scales on the device, so nobody waits for the device.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "dist/base/enum_names.h"
#include "quant/format/format.h"

namespace nibble::cuda {

enum class GemmBackendKind : uint8_t { automatic, exact, cublaslt, cudnn, emulated };
constexpr auto enum_names(GemmBackendKind) {
  return std::to_array<EnumName<GemmBackendKind>>({{GemmBackendKind::automatic, "automatic"},
                                                   {GemmBackendKind::exact, "exact"},
                                                   {GemmBackendKind::cublaslt, "cublaslt"},
                                                   {GemmBackendKind::cudnn, "cudnn"},
                                                   {GemmBackendKind::emulated, "emulated"}});
}

// Chooses the backend of all GEMMs from now on; it must be set before scratch memory is planned. `automatic`: native
// (cublaslt, else cudnn) where device, library and shape allow it and the self-test (quant/gemm/cuda/gemm_self_test.h)
// passed, else emulated; exact without cuBLASLt. `cudnn` leaves pairs other than nvfp4 to cublaslt;
// `emulated` leaves pairs that need no decoding to it, too. If a named backend cannot multiply a pair,
// gemm_scratch_bytes(), gemm() and describe_gemm() throw ExitCode::bad_config.
void set_gemm_backend(GemmBackendKind kind);
GemmBackendKind gemm_backend();

// The slowest backend that `automatic` may fall back to: exact kernels, with a warning; emulation; or none, so that
// every GEMM is native. Where that does not suffice, gemm_scratch_bytes(), gemm() and describe_gemm() throw
// ExitCode::bad_config. It is `exact` at first.
enum class GemmFallback : uint8_t { exact, emulated, none };
void set_gemm_fallback(GemmFallback slowest);

// Returns a description such as "nvfp4: native, cuBLASLt 13.1.0" or "nvfp4: emulated in bf16 (NVIDIA H100 has no FP4
// units)".
std::string describe_gemm(Format a, Format b);

// Exports and imports the algorithms of cuBLASLt chosen so far, as text: a run that continues imports the plan of the
// run before, so that its GEMMs have the same bits. The import ignores, with a warning, a plan made on another device,
// by another version of the library or in another version of the text format.
std::string export_gemm_plan();
void import_gemm_plan(std::string_view text);

}  // namespace nibble::cuda
