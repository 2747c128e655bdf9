// The algorithms of cuBLASLt for the GEMMs of a run: each is chosen once, kept, and carried from run to run as text,
// since another algorithm may sum in another order.
//
//   nibble gemm plan 2
//   device NVIDIA H100 80GB HBM3
//   library 130100
//   <the 13 numbers of a key> <8 words of the algorithm, hexadecimal> <workspace bytes>
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace nibble {

// m, n, k; types of a, b and the output as the library numbers them; whether a and b are transposed; scale mode of
// blocks; alignment of a, b and the output in bytes, at most 256; elements from row to row of the output.
struct GemmPlanKey {
  std::array<int64_t, 13> numbers{};
  friend bool operator<(const GemmPlanKey& a, const GemmPlanKey& b) { return a.numbers < b.numbers; }
};

struct PlannedAlgorithm {
  std::array<uint64_t, 8> words{};  // cublasLtMatmulAlgo_t
  uint64_t workspace_bytes = 0;
  friend bool operator==(const PlannedAlgorithm&, const PlannedAlgorithm&) = default;
};

// The device and the library version for which a plan is valid.
struct GemmPlanOrigin {
  std::string device;
  uint64_t library_version = 0;
  friend bool operator==(const GemmPlanOrigin&, const GemmPlanOrigin&) = default;
};

class GemmPlan {
 public:
  // Returns the algorithm of a key, or null where none has been chosen.
  const PlannedAlgorithm* find(const GemmPlanKey& key) const;
  void keep(const GemmPlanKey& key, const PlannedAlgorithm& algorithm);
  void forget(const GemmPlanKey& key);
  void clear() { algorithms_.clear(); }

  std::string text(const GemmPlanOrigin& origin) const;
  // Adds the algorithms of `text`. A plan of another origin is ignored with a warning. Throws ExitCode::bad_data for
  // text that is no plan.
  void read(std::string_view text, const GemmPlanOrigin& origin);

 private:
  std::map<GemmPlanKey, PlannedAlgorithm> algorithms_;
};

}  // namespace nibble
