// The quantiser's kernels for saved nvfp4 operands, which they decode as they read them.
#include "quant/quantize/cuda/quantize_cast.inl"

namespace nibble::cuda {

template void launch_cast<SavedCode>(CastKind kind, unsigned patches, const CastLaunch& problem);

}  // namespace nibble::cuda
