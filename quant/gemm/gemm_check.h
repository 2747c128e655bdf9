// Compares a part of a GEMM's output with the exact product of the same operands, which the CPU computes: on a CPU by
// the portable kernels, on a GPU from copies of the operands' rows. Neither the GEMM nor its operands change by it.
//
// The outputs of nibble's own kernels are equal in every bit. A library sums in an order and with roundings of its own;
// its output may differ from the exact one by
//   u ||a_i|| ||b_j|| + the last rounding of both,   u = 16 sqrt(k) 2^-24,  at least 2^-12 where an operand has eight
//   bits
// because the roundings of k partial sums, taken as independent, stay below 8 sqrt(k) 2^-24 times the sum of the
// magnitudes but for one case in 10^13 (Higham and Mary, "A new approach to probabilistic rounding error analysis",
// 2019), on either side, and because eight-bit units keep fewer bits of a sum. The sum of magnitudes is at most the
// product of the norms.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "quant/gemm/gemm_problem.h"
#include "quant/tensor/host_operand.h"

namespace nibble {

// A part of an output.
struct GemmTile {
  int64_t first_row = 0, rows = 0;
  int64_t first_column = 0, columns = 0;
};

// Tiles of at most 128 x 512 elements cover `whole`. Return how many they are, and number `key` modulo that.
int64_t gemm_tiles(const GemmTile& whole);
GemmTile gemm_tile(const GemmTile& whole, uint64_t key);

class GemmCheck {
 public:
  // Call it before the GEMM, to whose output it may add. `tile` begins at a multiple of 128 rows and columns.
  GemmCheck(const GemmProblem& problem, const GemmTile& tile);
  // Call it after the GEMM. Waits for the device. Returns an empty text, or the first element that is not what it must
  // be: in every bit if `exact`, else within the bound above.
  std::string difference(bool exact) const;

 private:
  // Rows of an operand, on the CPU and along the inner axis.
  class Rows {
   public:
    Rows(const QuantizedTensor& operand, int64_t first, int64_t count);
    const QuantizedTensor& operand() const { return operand_; }
    std::vector<double> norms() const;

   private:
    HostOperand copy_;
    std::vector<std::byte> gathered_;
    QuantizedTensor operand_;
  };
  std::vector<std::byte> read_tile() const;

  GemmProblem problem_;
  GemmTile tile_;
  Rows a_, b_;
  std::vector<std::byte> exact_;  // [rows, columns] of the output's dtype
};

}  // namespace nibble
