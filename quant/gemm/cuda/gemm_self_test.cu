#include "quant/gemm/cuda/gemm_self_test.h"

#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <random>

#include "dist/base/log_line.h"
#include "quant/format/codec.h"
#include "quant/format/swizzle.h"
#include "quant/gemm/cuda/gemm_backend.h"
#include "quant/gemm/gemm_backend_kind.h"
#include "quant/tensor/tensor_copy.h"

namespace nibble::cuda {
namespace {

// The shape has more than one swizzle cell of scales in both directions, none of them whole.
constexpr int64_t m = 136;
constexpr int64_t n = 144;
constexpr int64_t k = 192;

// One operand's bytes on the CPU, with swizzled scales.
struct ProbeOperand {
  Format format;
  int64_t rows;
  std::vector<uint8_t> codes, scales;
  float tensor_scale = 1;

  ProbeOperand(Format format_, int64_t rows_, uint8_t code);
  int64_t blocks() const { return k / traits_of(format).block; }
  bool has_powers() const { return traits_of(format).block_scale == ScaleCode::e8m0; }
  // Sets the scale to 2^power.
  void set_scale(int64_t row, int64_t block, int power) {
    const int one = has_powers() ? 127 : 7 << 3;
    const int step = has_powers() ? 1 : 1 << 3;
    scales[static_cast<size_t>(swizzled_scale_offset(row, block, blocks()))] = static_cast<uint8_t>(one + step * power);
  }
};

uint8_t code_of_one(Format format) {
  switch (traits_of(format).element) {
    case ElementCode::e2m1: return 0x22;  // two codes of 1
    case ElementCode::e5m2: return 0x3C;
    default: return 0x38;
  }
}

ProbeOperand::ProbeOperand(Format format_, int64_t rows_, uint8_t code) : format(format_), rows(rows_) {
  codes.assign(static_cast<size_t>(rows * k * traits_of(format).code_bits / 8), code);
  scales.assign(static_cast<size_t>(swizzled_scale_bytes(rows, blocks())), 0);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t block = 0; block < blocks(); ++block) set_scale(row, block, 0);
  }
}

// Fills the operand with codes and scales of all sizes, magnitudes from an eighth to eight.
void fill_randomly(ProbeOperand& operand, unsigned seed) {
  std::mt19937 generator(seed);
  const ElementCode element = traits_of(operand.format).element;
  for (uint8_t& code : operand.codes) {
    const auto word = static_cast<uint32_t>(generator());
    if (element == ElementCode::e2m1) code = static_cast<uint8_t>(word);
    if (element == ElementCode::e4m3) code = static_cast<uint8_t>((word & 0x80U) | (0x20U + word % 0x30U));
    if (element == ElementCode::e5m2) code = static_cast<uint8_t>((word & 0x80U) | (0x30U + word % 0x18U));
  }
  for (int64_t row = 0; row < operand.rows; ++row) {
    for (int64_t block = 0; block < operand.blocks(); ++block) {
      operand.set_scale(row, block, static_cast<int>(generator() % 5) - 2);
    }
  }
}

// Returns the operand without signs: rounding errors are measured against its GEMM.
ProbeOperand magnitudes_of(ProbeOperand operand) {
  const uint8_t kept = traits_of(operand.format).code_bits == 4 ? 0x77 : 0x7F;
  for (uint8_t& code : operand.codes) code = code & kept;
  return operand;
}

// Device memory for one GEMM, and the results of two backends.
class Bench {
 public:
  Bench(Format a, Format b) : arena_("GEMM self-test", DeviceKind::cuda) {
    planned(arena_, [&] { lay_out(a, b); });
  }

  void load(const ProbeOperand& a, const ProbeOperand& b) {
    upload(a, a_);
    upload(b, b_);
  }
  // Fills the output with `before`, puts the GEMM into it, and returns it; empty where the backend refuses.
  std::vector<float> multiply(GemmBackend& backend, DType dtype, bool accumulate, float before);

 private:
  void lay_out(Format a, Format b) {
    a_ = allocate(a, m);
    b_ = allocate(b, n);
    f32_ = allocate_tensor(arena_, DType::f32, {m, n});
    bf16_ = allocate_tensor(arena_, DType::bf16, {m, n});
  }
  QuantizedTensor allocate(Format format, int64_t rows) {
    OperandSpec spec;
    spec.format = format;
    return allocate_operand(arena_, spec, DType::f32, rows, k);
  }
  static void upload(const ProbeOperand& from, const QuantizedTensor& to) {
    const auto send = [](const void* bytes, const Tensor& tensor) {
      copy_bytes({tensor.data(), DeviceKind::cuda, bytes, DeviceKind::cpu, tensor.bytes()});
    };
    const float scale[2] = {from.tensor_scale, 1.0F};
    send(from.codes.data(), to.values);
    send(from.scales.data(), to.block_scales);
    send(scale, to.tensor_scale);
  }

  Arena arena_;
  QuantizedTensor a_, b_;
  Tensor f32_, bf16_;
};

std::vector<float> Bench::multiply(GemmBackend& backend, DType dtype, bool accumulate, float before) {
  constexpr auto count = static_cast<size_t>(m * n);
  std::vector<float> result(count, before);
  std::vector<BFloat16> narrow(count, bf16_nearest(before));
  const bool is_bf16 = dtype == DType::bf16;
  const Tensor& output = is_bf16 ? bf16_ : f32_;
  void* const memory = is_bf16 ? static_cast<void*>(narrow.data()) : result.data();
  copy_bytes({output.data(), DeviceKind::cuda, memory, DeviceKind::cpu, output.bytes()});
  GemmProblem problem{a_, b_, output};
  problem.accumulate = accumulate;
  if (!backend.multiply(problem, Trial::none)) return {};
  copy_bytes({memory, DeviceKind::cpu, output.data(), DeviceKind::cuda, output.bytes()});
  for (size_t i = 0; is_bf16 && i < count; ++i) result[i] = to_float(narrow[i]);
  return result;
}

// ---- Comparison ----

using Expected = std::function<double(int64_t row, int64_t column)>;
using Tolerance = std::function<double(int64_t row, int64_t column)>;
double none(int64_t /*row*/, int64_t /*column*/) {
  return 0;
}

// Compares an output with the expected one; returns an empty text if all is as expected.
std::string compare(const std::vector<float>& got, const Expected& expected, const Tolerance& tolerance) {
  if (got.empty()) return "the library has no algorithm for it";
  for (int64_t row = 0; row < m; ++row) {
    for (int64_t column = 0; column < n; ++column) {
      const double value = got[static_cast<size_t>(row * n + column)];
      const double wanted = expected(row, column);
      if (std::abs(value - wanted) <= tolerance(row, column)) continue;
      return "element (" + std::to_string(row) + ", " + std::to_string(column) + ") is " + std::to_string(value) +
             " instead of " + std::to_string(wanted);
    }
  }
  return {};
}

// ---- Probes ----

struct Subject {
  GemmBackend& backend;
  Format a, b;
  Bench bench;
};
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

std::string one_scale_among_ones(Subject& subject) {
  const ProbeOperand ones_a(subject.a, m, code_of_one(subject.a));
  const ProbeOperand ones_b(subject.b, n, code_of_one(subject.b));
  const int64_t block = traits_of(subject.a).block;
  const int64_t last = k / block - 1;
  const std::array<std::array<int64_t, 2>, 7> places{
      {{0, 0}, {1, 3}, {31, 4}, {32, last}, {100, 1}, {127, 2}, {m - 1, last}}};
  for (const auto& [row, at] : places) {
    for (const bool in_a : {true, false}) {
      ProbeOperand a = ones_a;
      ProbeOperand b = ones_b;
      (in_a ? a : b).set_scale(row, at, 1);
      subject.bench.load(a, b);
      const auto expected = [&, row_ = row](int64_t i, int64_t j) {
        return static_cast<double>(k + ((in_a ? i : j) == row_ ? block : 0));
      };
      const std::string finding =
          compare(subject.bench.multiply(subject.backend, DType::f32, false, not_a_number), expected, none);
      if (!finding.empty()) {
        return "the scale of block " + std::to_string(at) + " of row " + std::to_string(row) + " of operand " +
               (in_a ? "a" : "b") + " doubled: " + finding;
      }
    }
  }
  return {};
}

std::string tensor_scales(Subject& subject) {
  ProbeOperand a(subject.a, m, code_of_one(subject.a));
  ProbeOperand b(subject.b, n, code_of_one(subject.b));
  a.tensor_scale = 0.5F;
  b.tensor_scale = 0.75F;
  subject.bench.load(a, b);
  const auto expected = [](int64_t, int64_t) { return 0.375 * static_cast<double>(k); };
  return compare(subject.bench.multiply(subject.backend, DType::f32, false, not_a_number), expected, none);
}

// Checks the order of elements: one element of `a` in a row is not zero, so the result is one column of b.
std::string order_of_elements(Subject& subject) {
  ProbeOperand a(subject.a, m, 0);
  ProbeOperand b(subject.b, n, 0);
  fill_randomly(b, 3);
  const bool four_bits = traits_of(subject.a).code_bits == 4;
  for (int64_t row = 0; row < m; ++row) {
    const int64_t place = row * k + row * 5 % k;
    const uint8_t one = code_of_one(subject.a);
    const auto nibble = static_cast<uint8_t>(place % 2 == 0 ? one & 0x0F : one & 0xF0);
    a.codes[static_cast<size_t>(four_bits ? place / 2 : place)] = four_bits ? nibble : one;
  }
  subject.bench.load(a, b);
  const std::vector<float> wanted = subject.bench.multiply(exact_gemm(), DType::f32, false, 0);
  const auto expected = [&](int64_t i, int64_t j) { return wanted[static_cast<size_t>(i * n + j)]; };
  return compare(subject.bench.multiply(subject.backend, DType::f32, false, not_a_number), expected, none);
}

struct RandomProblem {
  ProbeOperand a, b;
  explicit RandomProblem(const Subject& subject) : a(subject.a, m, 0), b(subject.b, n, 0) {
    fill_randomly(a, 1);
    fill_randomly(b, 2);
    a.tensor_scale = 0.3F;
    b.tensor_scale = 0.7F;
  }
};

std::string numbers_of_all_sizes(Subject& subject, DType dtype, bool accumulate) {
  const RandomProblem problem(subject);
  const float before = accumulate ? 3.0F : not_a_number;
  subject.bench.load(magnitudes_of(problem.a), magnitudes_of(problem.b));
  const std::vector<float> sizes = subject.bench.multiply(exact_gemm(), DType::f32, false, 0);
  subject.bench.load(problem.a, problem.b);
  const std::vector<float> wanted = subject.bench.multiply(exact_gemm(), DType::f32, accumulate, accumulate ? 3.0F : 0);
  const auto at = [](int64_t i, int64_t j) { return static_cast<size_t>(i * n + j); };
  const auto expected = [&](int64_t i, int64_t j) { return wanted[at(i, j)]; };
  // The errors of both sides are at most a unit of 2^-24 of the sum of magnitudes a term, where 8-bit units do not keep
  // fewer bits of a sum; the last roundings come on top.
  const bool eight_bits = traits_of(subject.a).code_bits == 8;
  const double unit = eight_bits ? 0x1p-12 : 2.0 * static_cast<double>(k) * 0x1p-24;
  const auto tolerance = [&](int64_t i, int64_t j) {
    return unit * sizes[at(i, j)] + std::abs(wanted[at(i, j)]) * (dtype == DType::bf16 ? 0x1p-8 : 0x1p-22);
  };
  return compare(subject.bench.multiply(subject.backend, dtype, accumulate, before), expected, tolerance);
}

std::string the_same_ten_times(Subject& subject) {
  const RandomProblem problem(subject);
  subject.bench.load(problem.a, problem.b);
  const std::vector<float> first = subject.bench.multiply(subject.backend, DType::f32, false, not_a_number);
  for (int run = 1; run < 10; ++run) {
    const auto expected = [&](int64_t i, int64_t j) { return first[static_cast<size_t>(i * n + j)]; };
    const std::string finding =
        compare(subject.bench.multiply(subject.backend, DType::f32, false, not_a_number), expected, none);
    if (!finding.empty()) return "run " + std::to_string(run + 1) + ": " + finding;
  }
  return {};
}

struct Probe {
  const char* name;
  std::string (*run)(Subject&);
};
constexpr std::array<Probe, 7> probes{{
    {"one scale of 2 among ones", one_scale_among_ones},
    {"scales of whole tensors", tensor_scales},
    {"order of elements", order_of_elements},
    {"fp32 output", [](Subject& subject) { return numbers_of_all_sizes(subject, DType::f32, false); }},
    {"bf16 output", [](Subject& subject) { return numbers_of_all_sizes(subject, DType::bf16, false); }},
    {"sum with the output", [](Subject& subject) { return numbers_of_all_sizes(subject, DType::f32, true); }},
    {"ten times the same", the_same_ten_times},
}};

// Returns the format of the other operand: no native GEMM takes two operands in E5M2.
Format partner_of(Format format) {
  return format == Format::mxfp8_e5m2 ? Format::mxfp8_e4m3 : format;
}

std::vector<ProbeResult> test(GemmBackend& backend, Format format) {
  Subject subject{backend, format, partner_of(format), Bench(format, partner_of(format))};
  std::vector<ProbeResult> results;
  for (const Probe& probe : probes) {
    ProbeResult result;
    result.backend = backend.description();
    result.format = nibble::name_of(format);
    result.probe = probe.name;
    try {
      result.finding = probe.run(subject);
    } catch (const Error& error) {
      result.finding = error.what();
    }
    result.passed = result.finding.empty();
    results.push_back(std::move(result));
  }
  return results;
}

std::map<std::pair<GemmBackend*, Format>, bool>& verdicts() {
  static std::map<std::pair<GemmBackend*, Format>, bool> of_process;
  return of_process;
}

bool is_native(GemmBackend& backend, Format format) {
  return backend.refusal({.a = format, .b = partner_of(format)}).empty();
}

}  // namespace

std::vector<ProbeResult> run_gemm_self_test() {
  std::vector<ProbeResult> all;
  for (GemmBackend* backend : {&cublaslt_gemm(), &cudnn_gemm()}) {
    for (const Format format : {Format::nvfp4, Format::mxfp8_e4m3, Format::mxfp8_e5m2}) {
      if (!is_native(*backend, format)) continue;
      for (ProbeResult& result : test(*backend, format)) all.push_back(std::move(result));
    }
  }
  return all;
}

bool is_sound(GemmBackend& backend, Format format) {
  const auto key = std::make_pair(&backend, format);
  const auto known = verdicts().find(key);
  if (known != verdicts().end()) return known->second;
  bool sound = true;
  for (const ProbeResult& result : test(backend, format)) {
    if (result.passed) continue;
    sound = false;
    write_log(LogLevel::warning, result.backend + " fails the self-test of " + result.format + " GEMMs, \"" +
                                     result.probe + "\": " + result.finding +
                                     "; they do not run there, but emulated or by another backend");
    break;
  }
  verdicts()[key] = sound;
  return sound;
}

bool native_gemm_is_sound() {
  for (GemmBackend* backend : {&cublaslt_gemm(), &cudnn_gemm()}) {
    if (is_native(*backend, Format::nvfp4) && is_sound(*backend, Format::nvfp4)) return true;
  }
  return false;
}

void forget_gemm_self_test() {
  verdicts().clear();
}

}  // namespace nibble::cuda
