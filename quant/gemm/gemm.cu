// Chooses the backend of each GEMM (quant/gemm/gemm_backend_kind.h).
#include "quant/gemm/gemm.h"

#include <set>

#include "dist/base/error.h"
#include "dist/base/log_line.h"
#include "quant/gemm/cuda/gemm_backend.h"
#include "quant/gemm/cuda/gemm_self_test.h"
#include "quant/gemm/gemm_backend_kind.h"

namespace nibble::cuda {
namespace {

GemmBackendKind backend_kind = GemmBackendKind::automatic;
GemmFallback fallback = GemmFallback::exact;

void warn_once(const std::string& message) {
  static std::set<std::string> told;
  if (told.insert(message).second) write_log(LogLevel::warning, message);
}

std::string name_of_pair(Format a, Format b) {
  return std::string(nibble::name_of(a)) + (a == b ? "" : " x " + std::string(nibble::name_of(b)));
}

std::string describe_shape(const GemmShape& shape) {
  return "a GEMM " + std::to_string(shape.m) + " x " + std::to_string(shape.n) + " x " + std::to_string(shape.k) +
         " of " + name_of_pair(shape.a, shape.b) + " operands";
}

// Only formats with block scales are tested: their scales are where libraries have gone wrong.
bool passed_self_test(GemmBackend& backend, const GemmShape& shape) {
  if (traits_of(shape.a).block == 0) return true;
  return is_sound(backend, shape.a) && (shape.b == shape.a || is_sound(backend, shape.b));
}

bool is_native(GemmBackend& backend, const GemmShape& shape) {
  return backend.refusal(shape).empty() && passed_self_test(backend, shape);
}

// Returns why the automatic choice is not a native backend.
std::string reason_for_emulation(const GemmShape& shape) {
  const std::string refusal = cublaslt_gemm().refusal(shape);
  if (!refusal.empty()) return refusal;
  return cublaslt_gemm().description() + " failed the self-test";
}

// Says once that GEMMs run in the exact kernels, or refuses that.
void fall_back_to_exact(const std::string& reason) {
  if (fallback == GemmFallback::exact) {
    return warn_once(reason + ": it runs in nibble's own kernels, which are exact but slow");
  }
  throw Error(ExitCode::bad_config,
              reason + ", and nibble's own exact kernels, which are some 150 times slower, must be asked for by name",
              "install cuBLASLt 12.9 or later (libcublasLt.so.13) or put its directory into LD_LIBRARY_PATH, or set "
              "cuda.gemm to exact");
}

GemmBackend& automatic_backend(const GemmShape& shape) {
  if (is_native(cublaslt_gemm(), shape)) return cublaslt_gemm();
  if (is_native(cudnn_gemm(), shape)) return cudnn_gemm();
  const std::string what = "a GEMM of " + name_of_pair(shape.a, shape.b) + " operands";
  const std::string refusal = emulated_gemm().refusal(shape);
  if (!refusal.empty()) {
    fall_back_to_exact(what + " has no library: " + refusal);
    return exact_gemm();
  }
  if (fallback == GemmFallback::none) {
    throw Error(ExitCode::bad_config, "cuda.strict: " + what + " is not native: " + reason_for_emulation(shape),
                "set cuda.gemm to emulated, which asks for decoded operands by name, or cuda.strict to false");
  }
  return emulated_gemm();
}

GemmBackend& named_backend(const GemmShape& shape) {
  const bool for_cudnn = shape.a == Format::nvfp4 && shape.b == Format::nvfp4;
  switch (backend_kind) {
    case GemmBackendKind::automatic: break;
    case GemmBackendKind::exact: return exact_gemm();
    case GemmBackendKind::cublaslt: return cublaslt_gemm();
    case GemmBackendKind::cudnn: return for_cudnn ? cudnn_gemm() : cublaslt_gemm();
    case GemmBackendKind::emulated: return emulated_gemm();
  }
  return automatic_backend(shape);
}

GemmBackend& backend_for(const GemmShape& shape) {
  if (backend_kind == GemmBackendKind::automatic) return automatic_backend(shape);
  GemmBackend& backend = named_backend(shape);
  const std::string refusal = backend.refusal(shape);
  if (!refusal.empty()) {
    throw Error(ExitCode::bad_config,
                "cuda.gemm=" + std::string(name_of(backend_kind)) + " cannot multiply " +
                    name_of_pair(shape.a, shape.b) + " operands: " + refusal,
                "set cuda.gemm to automatic, which emulates what is not native");
  }
  return backend;
}

bool is_decoded(const GemmShape& shape) {
  return shape.outer_scales || shape.a != shape.b || is_quantized(shape.a);
}

}  // namespace

void set_gemm_backend(GemmBackendKind chosen) {
  backend_kind = chosen;
}

void set_gemm_fallback(GemmFallback slowest) {
  fallback = slowest;
}

GemmBackendKind gemm_backend() {
  return backend_kind;
}

std::string describe_gemm(Format a, Format b) {
  const GemmShape shape{.a = a, .b = b};
  GemmBackend& backend = backend_for(shape);
  const std::string pair = name_of_pair(a, b) + ": ";
  if (&backend == &exact_gemm()) return pair + "exact, " + backend.description();
  if (&backend != &emulated_gemm() || !is_decoded(shape)) return pair + "native, " + backend.description();
  const bool fp32 = a == Format::f32 || b == Format::f32;
  const std::string reason =
      backend_kind == GemmBackendKind::emulated ? backend.description() : reason_for_emulation(shape);
  return pair + "emulated in " + (fp32 ? "fp32" : "bf16") + " (" + reason + ")";
}

size_t gemm_scratch_bytes(const GemmShape& shape) {
  return backend_for(shape).scratch_bytes(shape);
}

GemmDescription describe_gemm(const GemmProblem& problem) {
  const GemmShape shape = shape_of(problem);
  GemmBackend& backend = backend_for(shape);
  const bool exact = &backend == &exact_gemm();
  std::string algorithm = backend.algorithm(problem);
  if (&backend == &emulated_gemm() && backend_kind == GemmBackendKind::automatic) {
    algorithm += ": " + reason_for_emulation(shape);
  }
  return {.library = exact ? "nibble" : backend.description(), .algorithm = algorithm, .exact = exact};
}

void gemm(const GemmProblem& problem) {
  const GemmShape shape = shape_of(problem);
  if (shape.m == 0 || shape.n == 0) return;
  NIBBLE_CHECK(!shape.row_scales, "GPUs multiply rows with scales of their own one after the other");
  if (shape.k == 0) {  // libraries do not agree on the result
    exact_gemm().multiply(problem, Trial::none);
    return;
  }
  GemmBackend& backend = backend_for(shape);
  if (backend_kind == GemmBackendKind::automatic && problem.scratch.bytes() < backend.scratch_bytes(shape)) {
    fall_back_to_exact(describe_shape(shape) + " has a shape that its scratch memory was not planned for");
    exact_gemm().multiply(problem, Trial::none);
    return;
  }
  if (backend.multiply(problem, Trial::first_use)) return;
  const std::string reason =
      backend.description() + " has no algorithm, or none that passes its trial, for " + describe_shape(shape);
  if (backend_kind != GemmBackendKind::automatic) {
    throw Error(ExitCode::bad_config, reason, "set cuda.gemm to automatic or exact");
  }
  fall_back_to_exact(reason);
  exact_gemm().multiply(problem, Trial::none);
}

}  // namespace nibble::cuda
