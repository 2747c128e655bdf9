// Checks how averages of quantised GEMMs converge: they gain one bit for four times the draws if they are unbiased.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/quant/layer_numbers.h"
#include "tests/quant/published_numbers.h"

namespace nibble::test {
namespace {

// 0.03 bits are 4 % of the error; the error of 64 draws over 256 x 256 products, which share 512 rounded rows, varies
// by 1 %.
TEST(Averaging, ProductsOfNormalMatrices) {
  for (const PublishedAverages& published : published_averages()) {
    SCOPED_TRACE(published.method);
    const std::vector<double> bits = product_bits(published.spec);
    for (size_t i = 0; i < bits.size(); ++i) {
      EXPECT_NEAR(bits[i], published.bits[i], 0.03) << averaged_counts[i] << " draws";
    }
  }
}

// Over 131072 elements the error of 256 draws has a standard error of sqrt(2/131072) = 0.4 %, more where the error of a
// block's scale moves 16 elements together; the published figures, of a tensor of unknown size, at least the same.
TEST(Averaging, OneTensor) {
  for (const PublishedDecay& published : published_decays()) {
    SCOPED_TRACE(published.method);
    const std::vector<double> ours = tensor_decay(published.spec, 64);
    for (size_t i = 0; i < ours.size(); ++i) {
      EXPECT_NEAR(ours[i], published.scaled_errors[i], 0.02 * published.scaled_errors[i]) << tensor_counts[i];
    }
  }
}

// 2 % of an error are 0.0144 bits. The figures are the mean of two layers: the forward error of one varies by 0.8 %.
TEST(Averaging, WholeLayers) {
  for (const PublishedLayer& published : published_layers()) {
    SCOPED_TRACE(published.scheme);
    const LayerFigures ours = layer_figures(published.recipe, averaged_counts);
    EXPECT_NEAR(ours.forward, published.forward, 0.02 * published.forward);
    if (published.grad_input_bits != not_published) {
      EXPECT_NEAR(ours.grad_input_bits.front(), published.grad_input_bits, 0.0144);
      EXPECT_NEAR(ours.grad_weight_bits.front(), published.grad_weight_bits, 0.0144);
    }
    EXPECT_NEAR(ours.grad_input_bits.back() - ours.grad_input_bits.front(), 3.0, 0.03);
    EXPECT_NEAR(ours.grad_weight_bits.back() - ours.grad_weight_bits.front(), published.grad_weight_gain, 0.03);
  }
}

}  // namespace
}  // namespace nibble::test
