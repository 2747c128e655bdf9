// The quantiser's kernels for FP32 sources.
#include "quant/quantize/cuda/quantize_cast.inl"

namespace nibble::cuda {

template void launch_cast<float>(CastKind kind, unsigned patches, const CastLaunch& problem);

}  // namespace nibble::cuda
