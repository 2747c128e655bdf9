// The body of launch_cast, compiled once for every kind of source, in quantize_cast_f32.cu, quantize_cast_bf16.cu and
// quantize_cast_saved.cu. Internal to quant.
#include "dist/base/error.h"
#include "quant/quantize/cuda/quantize_cast.cuh"

namespace nibble::cuda {

template <class T>
void launch_cast(CastKind kind, unsigned tiles, const CastLaunch& problem) {
  switch (kind) {
    case CastKind::nearest: return launch_cast_of<T, CastKind::nearest>(tiles, problem);
    case CastKind::four_over_six: return launch_cast_of<T, CastKind::four_over_six>(tiles, problem);
    case CastKind::stochastic: return launch_cast_of<T, CastKind::stochastic>(tiles, problem);
    case CastKind::published: return launch_cast_of<T, CastKind::published>(tiles, problem);
    case CastKind::square: return launch_cast_of<T, CastKind::square>(tiles, problem);
    case CastKind::post_hoc: return launch_cast_of<T, CastKind::post_hoc>(tiles, problem);
    case CastKind::scaled: return launch_cast_of<T, CastKind::scaled>(tiles, problem);
    case CastKind::nvfp4: return launch_cast_of<T, CastKind::nvfp4>(tiles, problem);
    case CastKind::any:
      if constexpr (std::is_same_v<T, SavedCode>) {
        NIBBLE_CHECK(false, "saved operands make no pairs");
      } else {
        return launch_cast_of<T, CastKind::any>(tiles, problem);
      }
  }
}

}  // namespace nibble::cuda
