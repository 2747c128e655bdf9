// The body of launch_cast, compiled once for every kind of source, in quantize_cast_f32.cu, quantize_cast_bf16.cu and
// quantize_cast_saved.cu. Internal to quant.
#include "dist/base/error.h"
#include "quant/quantize/cuda/quantize_cast.cuh"

namespace nibble::cuda {

template <class T>
void launch_cast(CastKind kind, unsigned patches, const CastLaunch& problem) {
  switch (kind) {
    case CastKind::nearest: return launch_cast_of<T, CastKind::nearest>(patches, problem);
    case CastKind::four_over_six: return launch_cast_of<T, CastKind::four_over_six>(patches, problem);
    case CastKind::stochastic: return launch_cast_of<T, CastKind::stochastic>(patches, problem);
    case CastKind::published: return launch_cast_of<T, CastKind::published>(patches, problem);
    case CastKind::square: return launch_cast_of<T, CastKind::square>(patches, problem);
    case CastKind::post_hoc: return launch_cast_of<T, CastKind::post_hoc>(patches, problem);
    case CastKind::scaled: return launch_cast_of<T, CastKind::scaled>(patches, problem);
    case CastKind::nvfp4: return launch_cast_of<T, CastKind::nvfp4>(patches, problem);
    case CastKind::any:
      if constexpr (std::is_same_v<T, SavedCode>) {
        NIBBLE_CHECK(false, "saved operands make no pairs");
      } else {
        return launch_cast_of<T, CastKind::any>(patches, problem);
      }
  }
}

}  // namespace nibble::cuda
