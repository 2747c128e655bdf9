#include "model/ops/row/vector_math.h"

namespace nibble::detail {

const float lowest_exponent = smallest_argument_of_exp;
const float highest_exponent = largest_argument_of_exp;

}  // namespace nibble::detail
