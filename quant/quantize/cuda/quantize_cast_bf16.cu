// The quantiser's kernels for BF16 sources.
#include "quant/quantize/cuda/quantize_cast.inl"

namespace nibble::cuda {

template void launch_cast<BFloat16>(CastKind kind, unsigned patches, const CastLaunch& problem);

}  // namespace nibble::cuda
