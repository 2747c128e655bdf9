// The inverse of the standard normal distribution function, in additions, multiplications, divisions and square roots
// of FP64 in a fixed order, without library calls: every machine gives the same bits.
// Source: Wichura 1988, "Algorithm AS 241: The Percentage Points of the Normal Distribution", PPND16.
#pragma once

namespace nibble {

// Natural logarithm of a positive normal number, within 2 ulp.
double log_f64(double x);

// z with P(N(0, 1) <= z) = p, relative error below 1e-15, for p in [2^-33, 1 - 2^-33] (so AS 241's interval for the far
// tail, p < e^-25, is never needed).
double normal_quantile(double p);

}  // namespace nibble
