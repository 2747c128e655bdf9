// Prints, as Markdown, the published figures of the quantisers beside ours. scripts/numerics_table.sh puts them into
// docs/numerics.md. The tests hold the same figures to stated tolerances (tests/quant/*_test.cpp).
#include <fmt/format.h>

#include <cmath>
#include <string>
#include <vector>

#include "dist/device/thread_pool.h"
#include "tests/quant/bias_numbers.h"
#include "tests/quant/layer_numbers.h"
#include "tests/quant/nvidia_numbers.h"
#include "tests/quant/published_numbers.h"

namespace nibble::test {
namespace {

void heading(const std::string& title, const std::string& what, const std::vector<std::string>& columns) {
  fmt::print("\n**{}.** {}\n\n|", title, what);
  for (const std::string& column : columns) fmt::print(" {} |", column);
  fmt::print("\n|");
  for (size_t i = 0; i < columns.size(); ++i) fmt::print("---|");
  fmt::print("\n");
}
void row(const std::vector<std::string>& cells) {
  fmt::print("|");
  for (const std::string& cell : cells) fmt::print(" {} |", cell);
  fmt::print("\n");
}

std::string number(double value, int digits) {
  return value == not_published ? "" : fmt::format("{:.{}f}", value, digits);
}
std::string percent_off(double ours, double published) {
  return published == not_published ? "" : fmt::format("{:+.2f} %", 100 * (ours / published - 1));
}
std::string off(double ours, double published, int digits) {
  return published == not_published ? "" : fmt::format("{:+.{}f}", ours - published, digits);
}
std::string with_error(double value, double error, int digits) {
  return fmt::format("{:.{}f} ± {:.{}f}", value, digits, error, digits);
}

void print_roundings() {
  heading("One tensor", "2048 x 2048 normal deviates, 8 draws. The squared bias is from two averages of 4 draws.",
          {"method", "paper", "published", "ours", "difference", "shrinkage: published", "ours",
           "squared bias x 1e6: published", "ours"});
  const Matrix normal = normal_f32(2048, 2048, 42);
  for (const PublishedRounding& published : published_roundings()) {
    const bool random = is_random(published.spec);
    const RoundingError ours = rounding_error(normal, published.spec, random ? 8 : 1);
    const double mse = 1e3 * ours.mse.value;
    const std::string bias =
        random ? with_error(1e6 * ours.bias_squared.value, 1e6 * ours.bias_squared.error, 1) : "the error";
    row({published.method, number(published.paper, 1), number(published.mse, 3), fmt::format("{:.3f}", mse),
         percent_off(mse, published.mse), number(published.shrinkage, 5),
         with_error(ours.shrinkage.value, ours.shrinkage.error, 5),
         random ? number(published.bias_squared, 1) : "the error", bias});
  }
  for (int rotations : {1, 2}) {
    const RoundingError ours = rounding_error(normal, ms_eden(EdenCorrection::post_hoc, 0, rotations), 8);
    row({rotations == 1 ? "MS-EDEN post hoc, ours" : "the same, two rotations", "", "",
         fmt::format("{:.3f}", 1e3 * ours.mse.value), "", "", with_error(ours.shrinkage.value, ours.shrinkage.error, 5),
         "", with_error(1e6 * ours.bias_squared.value, 1e6 * ours.bias_squared.error, 1)});
  }
}

void print_nvidia() {
  heading("NVIDIA's roundings", "1024 x 1024 normal deviates in BF16.", {"method", "published", "ours", "difference"});
  const Matrix normal = normal_matrix(1024, 1024, 42);
  for (const PublishedNvidia& published : published_nvidia()) {
    const double ours = 1e3 * rounding_error(normal, published.spec, 1).mse.value;
    row({published.method, number(published.mse, 2), number(ours, 2), percent_off(ours, published.mse)});
  }
  const OperandSpec unguarded = nvfp4(BlockShape::row, Rounding::stochastic_published);
  const ClippedFigures clipped = clipped_by(unguarded, normal);
  const Estimate shrinkage = rounding_error(normal, unguarded, 4).shrinkage;
  fmt::print(
      "\nStochastic rounding without the guard shrinks by {} (published 3.9e-3): {:.1f} % of the blocks and {:.1f} % "
      "of "
      "the\nelements are clipped (49.6 and 3.4). With the guard none are.\n",
      with_error(1e3 * shrinkage.value, 1e3 * shrinkage.error, 2) + " x 1e-3", clipped.blocks, clipped.elements);
  heading("Underflow", "Percent of the elements that rounding to nearest makes zero, 1024 x 1024.",
          {"data", "1x16: published", "ours", "16x16: published", "ours", "1x16 across rows: published", "ours"});
  for (const PublishedUnderflow& published : published_underflow()) {
    const UnderflowFigures ours = underflow_of(published.sigma);
    row({published.data, number(published.rows, 1), number(ours.rows, 1), number(published.square, 1),
         number(ours.square, 1), number(published.columns, 1), number(ours.columns, 1)});
  }
}

void print_scale_rules() {
  heading("Choices of scale on other data", "2048 x 1024 deviates.",
          {"data", "nearest: published", "ours", "four over six: published", "ours", "blocks at 4: published", "ours",
           "search: published", "ours"});
  for (const PublishedScaleRule& published : published_scale_rules()) {
    const ScaleRuleErrors ours = scale_rule_errors(deviates(published.distribution, 2048, 1024, 2));
    row({published.data, number(published.six, 2), number(ours.six, 2), number(published.four_over_six, 2),
         number(ours.four_over_six, 2), fmt::format("{:.0f} %", 100 * published.share_of_four),
         fmt::format("{:.1f} %", 100 * ours.share_of_four), number(published.search, 2), number(ours.search, 2)});
  }
}

void print_rows_and_ranges() {
  heading("Rows of many sizes", "Rows of 128 times 2^0 .. 2^8, means over rows.",
          {"method", "published", "ours", "difference", "shrinkage: published", "ours"});
  for (const PublishedRows& published : published_rows()) {
    const RowErrors ours = errors_of_rows(published.spec, is_random(published.spec) ? 8 : 1);
    const double mse = 1e3 * ours.mse.value;
    row({published.method, number(published.mse, 2), number(mse, 2), percent_off(mse, published.mse),
         number(published.shrinkage, 5), with_error(ours.shrinkage.value, ours.shrinkage.error, 5)});
  }
  heading("Range of the grid", "The block's maximum falls on 6 * 16/17 / f: published, ours.",
          {"f", "nearest", "MS-EDEN per 16", "per 128, published", "post hoc, published"});
  const Matrix normal = normal_f32(512, 8192, 43);
  for (const PublishedRange& published : published_ranges()) {
    const RangeSpecs specs = specs_of_range(published.factor);
    const auto pair = [&](const OperandSpec& spec, double mse) {
      return fmt::format("{:.2f}, {:.2f}", mse, 1e3 * rounding_error(normal, spec, is_random(spec) ? 2 : 1).mse.value);
    };
    row({fmt::format("{:.4g}", published.factor), pair(specs.nearest, published.nearest),
         pair(specs.per_16, published.per_16), pair(specs.per_128, published.per_128),
         pair(specs.post_hoc, published.post_hoc)});
  }
}

void print_averages() {
  heading("Averaged products",
          "Two 256 x 2048 matrices of normal deviates; effective bits of the average of so many draws,\n"
          "published, ours (difference). One bit for four times the draws is unbiased.",
          {"operands", "1", "4", "16", "64"});
  for (const PublishedAverages& published : published_averages()) {
    const std::vector<double> ours = product_bits(published.spec);
    std::vector<std::string> cells = {published.method};
    for (size_t i = 0; i < ours.size(); ++i) {
      cells.push_back(
          fmt::format("{:.3f}, {:.3f} ({})", published.bits[i], ours[i], off(ours[i], published.bits[i], 3)));
    }
    row(cells);
  }
  heading("Averages of one tensor", "Error of the average of B draws, times B: published, ours.",
          {"method", "B = 1", "16", "256"});
  for (const PublishedDecay& published : published_decays()) {
    const std::vector<double> ours = tensor_decay(published.spec, 256);
    std::vector<std::string> cells = {published.method};
    for (size_t i = 0; i < ours.size(); ++i) {
      cells.push_back(fmt::format("{:.4g}, {:.4g}", published.scaled_errors[i], ours[i]));
    }
    row(cells);
  }
}

void print_layers() {
  heading("A whole layer",
          "512 tokens, 384 features in, 512 out, all normal deviates; the schemes as Quartet II's authors ran them.\n"
          "Forward error x 1e3, effective bits of one draw of dX and dW, and what 64 draws add to dW.",
          {"scheme", "forward: published", "ours", "difference", "dX: published", "ours", "difference", "dW: published",
           "ours", "difference", "gain: published", "ours"});
  for (const PublishedLayer& published : published_layers()) {
    const LayerFigures ours = layer_figures(published.recipe, averaged_counts);
    const double dx = ours.grad_input_bits.front();
    const double dw = ours.grad_weight_bits.front();
    row({published.scheme, number(published.forward, 1), number(ours.forward, 1),
         percent_off(ours.forward, published.forward), number(published.grad_input_bits, 3), number(dx, 3),
         off(dx, published.grad_input_bits, 3), number(published.grad_weight_bits, 3), number(dw, 3),
         off(dw, published.grad_weight_bits, 3), number(published.grad_weight_gain, 2),
         number(ours.grad_weight_bits.back() - dw, 2)});
  }
}

std::string range_of_figures(double least, double most) {
  return least == most ? fmt::format("{:g}", least) : fmt::format("{:g} to {:g}", least, most);
}

void print_sparse() {
  heading("Sparse inputs", "Squared relative bias x 1e4 of vectors of 128 with so many elements that are not zero.",
          {"elements", "published", "MS-EDEN per 16", "post hoc", "post hoc, two rotations", "stochastic"});
  for (const PublishedSparse& published : published_sparse()) {
    const Matrix vectors = sparse_vectors(4096, published.nonzero, 5);
    const auto bias = [&](const OperandSpec& spec) {
      const Estimate estimate = rounding_error(vectors, spec, 64).bias_squared;
      return with_error(1e4 * estimate.value, 1e4 * estimate.error, 3);
    };
    row({std::to_string(published.nonzero), range_of_figures(published.least, published.most),
         bias(ms_eden(EdenCorrection::per_16)), bias(ms_eden(EdenCorrection::post_hoc)),
         bias(ms_eden(EdenCorrection::post_hoc, 0, 2)), bias(stochastic())});
  }
  const auto mean = mean_of_concentrated(ms_eden(EdenCorrection::post_hoc));
  const auto twice = mean_of_concentrated(ms_eden(EdenCorrection::post_hoc, 0, 2));
  fmt::print(
      "\nThe mean of e0 + 0.1 e1 in 128 dimensions: {:.4f} and {:.3f} (published 0.9901 and 0.198); with two "
      "rotations\n"
      "{:.4f} and {:.3f}. The squared bias of dW when 2, 4 of 128 tokens have a gradient: {:.2f}e-3, {:.2f}e-3 "
      "(published "
      "1.6e-3,\n1.9e-3); with two rotations {:.0e}, {:.0e}.\n",
      mean[0], mean[1], twice[0], twice[1],
      1e3 * bias_of_weight_gradient(ms_eden(EdenCorrection::post_hoc), 2, 1024).value,
      1e3 * bias_of_weight_gradient(ms_eden(EdenCorrection::post_hoc), 4, 1024).value,
      std::fabs(bias_of_weight_gradient(ms_eden(EdenCorrection::post_hoc, 0, 2), 2, 1024).value),
      std::fabs(bias_of_weight_gradient(ms_eden(EdenCorrection::post_hoc, 0, 2), 4, 1024).value));
}

void print_correlations() {
  heading("Operands that are nearly parallel",
          "Relative bias x 1e4 of <Q(a), Q(b)>, a and b rotated alike; MS-EDEN per 16.",
          {"correlation of a and b", "published", "ours", "stochastic, ours"});
  for (const PublishedParallel& published : published_parallel()) {
    const auto bias = [&](const OperandSpec& spec) {
      const Estimate estimate = bias_of_parallel_operands(spec, published.correlation, 64);
      return with_error(1e4 * estimate.value, 1e4 * estimate.error, 2);
    };
    row({fmt::format("{:g}", published.correlation),
         published.bias == 0 ? "below 1" : fmt::format("{:.3g}", 1e4 * published.bias),
         bias(ms_eden(EdenCorrection::per_16)), bias(stochastic())});
  }
  const Estimate sums = error_of_row_sums(ms_eden(EdenCorrection::post_hoc), 16);
  fmt::print(
      "\nNoise of different rows, steps, micro-batches, tensors and purposes is uncorrelated\n"
      "(`tests/quant/correlation_test.cpp`). The squared error of sums of |q| over 1024 rows is {} x 1e-6: published "
      "15.8,\nand 667 where rows share their noise.\n",
      with_error(1e6 * sums.value, 1e6 * sums.error, 1));
}

void print_all() {
  fmt::print(
      "Errors are relative squared errors x 1e3 unless another unit is named; ± is one standard error. *Paper*: as "
      "printed in\narXiv:2601.22813. *Published*: measured there, or with an independent program written from the "
      "papers' "
      "equations.\nMachine: 2 cores of an Intel Xeon (Sapphire Rapids); the figures are statistics, not timings.\n");
  print_roundings();
  print_nvidia();
  print_scale_rules();
  print_rows_and_ranges();
  print_averages();
  print_layers();
  print_sparse();
  print_correlations();
}

}  // namespace
}  // namespace nibble::test

int main() {
  nibble::set_compute_threads(nibble::available_threads(1));
  nibble::test::print_all();
  return 0;
}
