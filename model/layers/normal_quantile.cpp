#include "model/layers/normal_quantile.h"

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace nibble {
namespace {

// Evaluates a polynomial; the coefficients begin with the highest power.
template <size_t count>
double polynomial(const double (&coefficients)[count], double x) {
  double sum = coefficients[0];
  for (size_t i = 1; i < count; ++i) sum = sum * x + coefficients[i];
  return sum;
}

// Coefficients for |p - 1/2| <= 0.425.
constexpr double center_numerator[] = {2509.0809287301226727, 33430.575583588128105, 67265.770927008700853,
                                       45921.953931549871457, 13731.693765509461125, 1971.5909503065514427,
                                       133.14166789178437745, 3.3871328727963666080};
constexpr double center_denominator[] = {
    5226.4952788528545610, 28729.085735721942674, 39307.895800092710610, 21213.794301586595867,
    5394.1960214247511077, 687.18700749205790830, 42.313330701600911252, 1.0};
// Coefficients for sqrt(-log(min(p, 1 - p))) <= 5.
constexpr double tail_numerator[] = {7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1,
                                     1.27045825245236838258,    3.64784832476320460504,    5.76949722146069140550,
                                     4.63033784615654529590,    1.42343711074968357734};
constexpr double tail_denominator[] = {
    1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
    6.89767334985100004550e-1, 1.67638483018380384940,    2.05319162663775882187,    1.0};

}  // namespace

double log_f64(double x) {
  constexpr double ln2_high = 0x1.62e42fee00000p-1;  // 32 bits, so that its product with an exponent is exact
  constexpr double ln2_low = 0x1.a39ef35793c76p-33;
  constexpr uint64_t sqrt_half = 0x3FE6A09E667F3BCD;  // bits of sqrt(1/2)

  // x = mantissa * 2^exponent with mantissa in [sqrt(1/2), sqrt(2)).
  const uint64_t offset = std::bit_cast<uint64_t>(x) - sqrt_half;
  const double exponent = static_cast<double>(static_cast<int64_t>(offset) >> 52);
  const double mantissa = std::bit_cast<double>((offset & 0xFFFFFFFFFFFFF) + sqrt_half);

  // log(mantissa) = 2 atanh(s) = 2 s (1 + s^2/3 + s^4/5 + ...) with s^2 < 0.0295; the first omitted term is below
  // 2^-63.
  const double f = mantissa - 1.0;
  const double s = f / (2.0 + f);
  const double z = s * s;
  double series = 1.0 / 25.0;
  for (int odd = 23; odd >= 3; odd -= 2) series = series * z + 1.0 / odd;
  // 2 s = f - s f keeps the large term f exact.
  const double tail = 2.0 * s * (z * series) - s * f;
  return exponent * ln2_high + (f + (tail + exponent * ln2_low));
}

double normal_quantile(double p) {
  const double q = p - 0.5;
  if (std::fabs(q) <= 0.425) {
    const double r = 0.180625 - q * q;
    return q * polynomial(center_numerator, r) / polynomial(center_denominator, r);
  }
  const double r = std::sqrt(-log_f64(q < 0.0 ? p : 1.0 - p)) - 1.6;
  const double x = polynomial(tail_numerator, r) / polynomial(tail_denominator, r);
  return q < 0.0 ? -x : x;
}

}  // namespace nibble
