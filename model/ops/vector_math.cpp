#include "model/ops/vector_math.h"

namespace nibble::detail {

const float lowest_exponent = -87.6f;
const float highest_exponent = 89.0f;

}  // namespace nibble::detail
