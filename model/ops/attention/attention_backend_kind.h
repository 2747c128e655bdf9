// The choice of the GPU kernels for attention: cuDNN's fused kernels, or nibble's own, which have the bits of the CPU.
// It is a setting of the process and must be made before the model plans its memory.
#pragma once

#include <string>

#include "dist/base/enum_names.h"
#include "model/ops/attention/attention.h"

namespace nibble {

enum class AttentionBackendKind : uint8_t {
  automatic,  // cuDNN where it supports the shape and bf16, else exact
  exact,      // kernels with the bits of the CPU
  cudnn       // cuDNN, or an error where it cannot run
};
constexpr auto enum_names(AttentionBackendKind) {
  return std::to_array<EnumName<AttentionBackendKind>>({{AttentionBackendKind::automatic, "automatic"},
                                                        {AttentionBackendKind::exact, "exact"},
                                                        {AttentionBackendKind::cudnn, "cudnn"}});
}

void set_attention_backend(AttentionBackendKind kind);
AttentionBackendKind attention_backend();

// Returns, for the log, which kernels compute attention of this use on the GPU of this process, and why:
// "cuDNN 9.19.0 (engine 6 forward, 5 backward)" or "exact: built without cuDNN". It makes the plans that it describes.
std::string describe_attention_backend(const AttentionUse& use);

}  // namespace nibble
