// Helpers of the operator tests: numbers to compute with, finite differences, comparisons.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <type_traits>

#include "dist/device/thread_pool.h"
#include "model/reference_ops.h"
#include "quant/format/codec.h"
#include "quant/tensor/tensor.h"

namespace nibble::test {

using reference::Values;

constexpr double unit_roundoff = 0x1p-24;  // of FP32

// Returns uniform numbers in [-bound, bound) that are exact in BF16, so that every storage type holds the same numbers.
inline Values random_values(uint64_t seed, size_t count, double bound = 1) {
  Values values;
  uint64_t state = seed * 0x9E3779B97F4A7C15u;
  for (size_t i = 0; i < count; ++i) {
    state += 0x9E3779B97F4A7C15u;
    uint64_t bits = state;
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9u;
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EBu;
    const double uniform = static_cast<double>((bits ^ (bits >> 31)) >> 11) * 0x1p-52 - 1;
    values.push_back(static_cast<double>(to_float(bf16_nearest(static_cast<float>(bound * uniform)))));
  }
  return values;
}

template <class T>
std::vector<T> stored(const Values& values) {
  std::vector<T> result;
  for (double value : values) {
    if constexpr (std::is_same_v<T, float>) {
      result.push_back(static_cast<float>(value));
    } else {
      result.push_back(bf16_nearest(static_cast<float>(value)));
    }
  }
  return result;
}

template <class T>
Values widened(const std::vector<T>& values) {
  Values result;
  for (T value : values) result.push_back(static_cast<double>(to_float(value)));
  return result;
}

template <class T>
Tensor view(std::vector<T>& values, std::initializer_list<int64_t> shape) {
  return tensor_of(std::span<T>(values), shape);
}

inline double largest(const Values& values) {
  double result = 0;
  for (double value : values) result = std::max(result, std::abs(value));
  return result;
}

inline double inner_product(const Values& a, const Values& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// Returns the gradient of a scalar function by central differences.
template <class Function>
Values finite_differences(Values at, Function&& function, double step = 1e-5) {
  Values gradient;
  for (double& coordinate : at) {
    const double centre = coordinate;
    coordinate = centre + step;
    const double above = function(at);
    coordinate = centre - step;
    const double below = function(at);
    coordinate = centre;
    gradient.push_back((above - below) / (2 * step));
  }
  return gradient;
}

inline void expect_near(const Values& actual, const Values& expected, double tolerance, const char* what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], tolerance) << what << " at " << i;
  }
}

// Expects the BF16 operator to be the FP32 operator with results rounded once, to the bit.
inline void expect_rounded(const std::vector<BFloat16>& actual, const std::vector<float>& unrounded, const char* what) {
  ASSERT_EQ(actual.size(), unrounded.size()) << what;
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_EQ(actual[i].bits, bf16_nearest(unrounded[i]).bits) << what << " at " << i;
  }
}

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

// function() returns the bytes of all results; they must not depend on the number of threads.
template <class Function>
void expect_same_for_any_threads(Function&& function) {
  set_compute_threads(1);
  const std::string expected = function();
  for (int threads : {2, 4}) {
    set_compute_threads(threads);
    EXPECT_TRUE(function() == expected) << threads << " threads give other bits";
  }
  set_compute_threads(1);
}

}  // namespace nibble::test
