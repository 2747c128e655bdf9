// The inverse of the standard normal distribution function, from additions, multiplications, divisions and square roots
// of FP64 in a fixed order, without library calls, so that every machine gives the same bits. Source: Wichura 1988,
// "Algorithm AS 241: The Percentage Points of the Normal Distribution", PPND16.
#pragma once

namespace nibble {

// Returns the natural logarithm of a positive normal number, within 2 ulp.
double log_f64(double x);

// Returns z with P(N(0, 1) <= z) = p, with a relative error below 1e-15, for p in [2^-33, 1 - 2^-33]. In this range AS
// 241's interval for the far tail, p < e^-25, is never needed.
double normal_quantile(double p);

}  // namespace nibble
