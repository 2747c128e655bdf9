// Compares causal grouped attention with FP64, and its gradient with finite differences. Causality, threads and
// instruction sets are tested to the bit.
#include "model/ops/attention/attention.h"

#include <cmath>
#include <cstdio>
#include <filesystem>

#include "model/attention_fixture.h"
#include "quant/isa/instruction_set.h"

namespace nibble {
namespace {

using namespace test;

// The magnitudes that roundings are relative to.
struct Magnitudes {
  double score = 0;       // largest sum of |query * key|, scaled
  double grad_score = 0;  // largest sum of |grad_output * value|
  double key_mass = 0;    // largest sum of one key's probabilities over all queries of its group
  double log_sum_exp = 0;

  Magnitudes(const Attention& shape, const Values& qkv, const Values& grad_output) {
    auto absolute_dot = [&](const Values& a, size_t first, const Values& b, size_t second) {
      double sum = 0;
      for (size_t i = 0; i < shape.head_dim; ++i) sum += std::abs(a[first + i] * b[second + i]);
      return sum;
    };
    std::vector<double> mass(qkv.size());
    for (size_t s = 0; s < shape.sequences; ++s) {
      for (size_t head = 0; head < shape.query_heads; ++head) {
        for (size_t i = 0; i < shape.length; ++i) {
          const Values scores = shape.scores(qkv, s, i, head);
          const Values probability = Attention::softmax(scores);
          log_sum_exp = std::max(log_sum_exp, std::abs(Attention::log_sum_exp(scores)));
          for (size_t j = 0; j <= i; ++j) {
            const size_t key = shape.key(s, j, head);
            score = std::max(score, shape.scale() * absolute_dot(qkv, shape.query(s, i, head), qkv, key));
            grad_score =
                std::max(grad_score, absolute_dot(grad_output, shape.output(s, i, head), qkv, shape.value(s, j, head)));
            key_mass = std::max(key_mass, mass[key] += probability[j]);
          }
        }
      }
    }
  }
};

// Bounds of how far roundings can change the results.
struct Tolerance {
  double score, output, gradient;

  explicit Tolerance(const Problem& problem) {
    const Attention& shape = problem.attention;
    const Values qkv = problem.qkv();
    const Magnitudes sizes(shape, qkv, problem.grad_output());
    const double head_dim = static_cast<double>(shape.head_dim);
    const double length = static_cast<double>(shape.length);
    const size_t group = shape.query_heads / shape.kv_heads;
    const double queries = length * static_cast<double>(group);
    // A score is a chain of head_dim roundings; the sum of exponentials has length / 16 of them.
    score = ((head_dim + 4) * sizes.score + length / 16 + 8 + 2 * sizes.log_sum_exp) * unit_roundoff;
    // A probability's relative error is the error of its exponent.
    const double probability = 2 * score;
    output = (probability + (length + 4) * unit_roundoff) * largest(qkv);
    // The gradient of a score is probability * (x - mean) with |x| <= grad_score, and its error is relative to that. A
    // query's gradient adds `length` of them, of total probability 1; a key's and a value's add those of all their
    // queries.
    const double grad_score = 2 * sizes.grad_score * (probability + (2 * head_dim + queries + 8) * unit_roundoff);
    const double mass = std::max(1.0, sizes.key_mass);
    gradient = std::max(shape.scale() * grad_score * largest(qkv) * mass,
                        (probability + queries * unit_roundoff) * mass * largest(problem.grad_output()));
  }
};

TEST(Attention, AgreesWithTheReference) {
  for (const Problem& problem : problems()) {
    const Values qkv = problem.qkv();
    const auto result = run<float>(problem, qkv);
    const Tolerance tolerance(problem);
    expect_near(widened(result.output), problem.attention.forward(qkv), tolerance.output, "output");
    expect_near(widened(result.grad_qkv), problem.attention.backward(problem.grad_output(), qkv), tolerance.gradient,
                "gradient");
    const size_t length = problem.attention.length;
    for (size_t at = 0; at < result.log_sum_exp.size(); ++at) {
      const size_t head = at / length % problem.attention.query_heads;
      const size_t sequence = at / length / problem.attention.query_heads;
      const Values scores = problem.attention.scores(qkv, sequence, at % length, head);
      ASSERT_NEAR(static_cast<double>(result.log_sum_exp[at]), Attention::log_sum_exp(scores), tolerance.score) << at;
    }
  }
}

TEST(Attention, TolerancesAreFarBelowTheResults) {
  for (const Problem& problem : problems()) {
    const Tolerance tolerance(problem);
    const Values qkv = problem.qkv();
    EXPECT_LT(tolerance.output, 2e-2 * largest(problem.attention.forward(qkv)));
    EXPECT_LT(tolerance.gradient, 2e-2 * largest(problem.attention.backward(problem.grad_output(), qkv)));
  }
}

TEST(Attention, GradientIsTheDerivative) {
  for (const Problem& problem :
       {Problem{{1, 67, 2, 1, 4}}, Problem{{2, 9, 4, 2, 6}}, Problem{{1, 67, 2, 1, 4, packed(1, 67, {60, 3})}}}) {
    const Values grad_output = problem.grad_output();
    const Values qkv = problem.qkv();
    const Values differences = finite_differences(
        qkv, [&](const Values& at) { return inner_product(grad_output, problem.attention.forward(at)); });
    expect_near(problem.attention.backward(grad_output, qkv), differences, 1e-7, "reference");
    expect_near(widened(run<float>(problem, qkv).grad_qkv), differences, Tolerance(problem).gradient + 1e-7, "FP32");
  }
}

// Bounds of how far the roundings to BF16 can change the results, element by element: roundings of the probabilities,
// of the gradients of scores, of the output (which backward reads) and of the results.
class Bf16Bounds {
 public:
  Values output, gradient;

  explicit Bf16Bounds(const Problem& problem)
      : shape_(problem.attention), qkv_(problem.qkv()), grad_output_(problem.grad_output()) {
    output = shape_.forward(qkv_);
    gradient = shape_.backward(grad_output_, qkv_);
    for (Values* values : {&output, &gradient}) {
      for (double& value : *values) value = bf16_roundoff * std::abs(value);
    }
    for (size_t s = 0; s < shape_.sequences; ++s) {
      for (size_t head = 0; head < shape_.query_heads; ++head) {
        for (size_t i = 0; i < shape_.length; ++i) add_query(s, head, i);
      }
    }
  }

 private:
  static constexpr double bf16_roundoff = 0x1p-8;

  void add_query(size_t s, size_t head, size_t i) {
    const Values probability = Attention::softmax(shape_.scores(qkv_, s, i, head));
    const size_t query = shape_.query(s, i, head);
    const size_t out = shape_.output(s, i, head);
    Values grad_probability(i + 1);
    double mean = 0;
    double mean_error = 0;  // error of the sum of grad_output * output
    for (size_t j = 0; j <= i; ++j) {
      for (size_t at = 0; at < shape_.head_dim; ++at) {
        const double value = qkv_[shape_.value(s, j, head) + at];
        grad_probability[j] += grad_output_[out + at] * value;
        output[out + at] += bf16_roundoff * probability[j] * std::abs(value);
        mean_error += 2 * bf16_roundoff * std::abs(grad_output_[out + at]) * probability[j] * std::abs(value);
      }
      mean += probability[j] * grad_probability[j];
    }
    for (size_t j = 0; j <= i; ++j) {
      const size_t key = shape_.key(s, j, head);
      const double error =
          probability[j] * (bf16_roundoff * std::abs(grad_probability[j] - mean) + mean_error) * shape_.scale();
      for (size_t at = 0; at < shape_.head_dim; ++at) {
        gradient[query + at] += error * std::abs(qkv_[key + at]);
        gradient[key + at] += error * std::abs(qkv_[query + at]);
        gradient[shape_.value(s, j, head) + at] += bf16_roundoff * probability[j] * std::abs(grad_output_[out + at]);
      }
    }
  }

  const Attention& shape_;
  const Values qkv_, grad_output_;
};

double norm(const Values& values) {
  return std::sqrt(inner_product(values, values));
}

void expect_within(const Values& actual, const Values& expected, const Values& bounds, double fp32_tolerance,
                   const char* what) {
  Values errors;
  for (size_t at = 0; at < expected.size(); ++at) {
    errors.push_back(actual[at] - expected[at]);
    // The factor 1 / 64 allows for products of errors.
    ASSERT_LE(std::abs(errors[at]), bounds[at] * (1 + 1.0 / 64) + fp32_tolerance) << what << " at " << at;
  }
  // The roundings are independent, so together they stay far below the bounds, and they are a small part of the
  // results.
  EXPECT_LT(norm(errors), 0.5 * norm(bounds) + 1e-12) << what;
  EXPECT_LT(norm(errors), 0x1p-7 * norm(expected)) << what;
}

TEST(Attention, Bf16AgreesWithTheReference) {
  for (const Problem& problem : problems()) {
    const auto narrow = run<BFloat16>(problem, problem.qkv());
    const Bf16Bounds bounds(problem);
    const Tolerance tolerance(problem);
    expect_within(widened(narrow.output), problem.attention.forward(problem.qkv()), bounds.output, tolerance.output,
                  "output");
    expect_within(widened(narrow.grad_qkv), problem.attention.backward(problem.grad_output(), problem.qkv()),
                  bounds.gradient, tolerance.gradient, "gradient");
    // These values read nothing in BF16 but the exact inputs.
    const auto wide = run<float>(problem, problem.qkv());
    for (size_t at = 0; at < wide.log_sum_exp.size(); ++at) {
      ASSERT_NEAR(narrow.log_sum_exp[at], wide.log_sum_exp[at], 2 * tolerance.score) << at;
    }
  }
}

// Changing tokens from `changed` on leaves every bit of the outputs before it, inside a block of queries and across
// blocks.
TEST(Attention, LaterTokensHaveNoInfluence) {
  const Problem problem{{2, 150, 4, 2, 8}};
  const Attention& attention = problem.attention;
  const Values qkv = problem.qkv();
  const auto before = run<float>(problem, qkv);
  for (size_t changed : {1, 37, 64, 100, 149}) {
    Values other = qkv;
    for (size_t at = 0; at < other.size(); ++at) {
      if (at / attention.width() % attention.length >= changed) other[at] = -50 * other[at] + 3;
    }
    const auto after = run<float>(problem, other);
    const size_t features = attention.query_heads * attention.head_dim;
    size_t different = 0;
    for (size_t at = 0; at < after.output.size(); ++at) {
      const bool earlier = at / features % attention.length < changed;
      const bool same = bits_of(after.output[at]) == bits_of(before.output[at]);
      if (earlier) {
        ASSERT_TRUE(same) << "token " << at / features << " sees beyond " << changed;
      }
      different += same ? 0 : 1;
    }
    EXPECT_GT(different, 0U) << "the change must be visible later";
    for (size_t at = 0; at < after.log_sum_exp.size(); ++at) {
      if (at % attention.length < changed) {
        ASSERT_EQ(after.log_sum_exp[at], before.log_sum_exp[at]) << at;
      }
    }
  }
}

// A prefix alone has the bits that it has inside a longer sequence, so generation sees what training saw.
TEST(Attention, LengthChangesNoBit) {
  const Problem whole{{1, 150, 4, 2, 8}};
  const Values qkv = whole.qkv();
  const auto expected = run<float>(whole, qkv);
  for (size_t length : {1, 16, 63, 64, 80, 128}) {
    Problem prefix = whole;
    prefix.attention.length = length;
    const Values part(qkv.begin(), qkv.begin() + static_cast<std::ptrdiff_t>(length * whole.attention.width()));
    const auto actual = run<float>(prefix, part);
    EXPECT_EQ(std::memcmp(actual.output.data(), expected.output.data(), actual.output.size() * sizeof(float)), 0)
        << length;
  }
}

TEST(Attention, EqualKeysAverageTheValues) {
  const Problem problem{{1, 100, 1, 1, 2}};
  Values qkv(100 * 6);
  for (size_t i = 0; i < 100; ++i) {
    qkv[i * 6] = 1;                                // query
    qkv[i * 6 + 2] = 0.5;                          // key
    qkv[i * 6 + 4] = static_cast<double>(i) - 50;  // value
  }
  const auto result = run<float>(problem, qkv);
  for (size_t i = 0; i < 100; ++i) {
    ASSERT_NEAR(static_cast<double>(result.output[2 * i]), static_cast<double>(i) / 2 - 50, 1e-4) << i;
    ASSERT_EQ(result.output[2 * i + 1], 0.0f) << i;
  }
}

TEST(Attention, HugeScoresSelectOneKey) {
  const Problem problem{{1, 80, 1, 1, 2}};
  Values qkv(80 * 6);
  for (size_t i = 0; i < 80; ++i) {
    qkv[i * 6] = 1e4;
    qkv[i * 6 + 2] = i == 5 ? 1e4 : -1e4;
    qkv[i * 6 + 4] = static_cast<double>(i);
  }
  const auto result = run<float>(problem, qkv);
  for (size_t i = 5; i < 80; ++i) ASSERT_EQ(result.output[2 * i], 5.0f) << i;
  for (float value : result.grad_qkv) ASSERT_TRUE(std::isfinite(value));
}

// The problems have enough heads for the threads, or so few that one head is shared among them.
TEST(Attention, ThreadsChangeNoBit) {
  for (const Problem& problem : {Problem{{3, 130, 6, 2, 16}}, Problem{{1, 700, 2, 1, 12}}, Problem{{1, 331, 1, 1, 16}},
                                 Problem{{3, 130, 6, 2, 16, packed(3, 130, {40, 2, 90})}},
                                 Problem{{1, 700, 2, 1, 12, packed(1, 700, {300, 9})}}}) {
    expect_same_for_any_threads([&] { return bytes_of_run<BFloat16>(problem); });
    expect_same_for_any_threads([&] { return bytes_of_run<float>(problem); });
  }
}

// The next test runs this one, once for every level.
TEST(Attention, DISABLED_PrintBits) {
  std::string bytes;
  for (const Problem& problem : problems()) bytes += bytes_of_run<BFloat16>(problem) + bytes_of_run<float>(problem);
  uint64_t hash = 0xCBF29CE484222325u;
  for (char byte : bytes) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001B3u;
  std::printf("bits %016llx\n", static_cast<unsigned long long>(hash));
}

std::string bits_on(InstructionSet level) {
  const std::string program = std::filesystem::read_symlink("/proc/self/exe").string();
  const std::string command = "NIBBLE_ISA=" + std::string(name_of(level)) + " '" + program +
                              "' --gtest_also_run_disabled_tests --gtest_filter=Attention.DISABLED_PrintBits";
  FILE* output = popen(command.c_str(), "r");
  if (output == nullptr) return "";
  std::string bits;
  char line[256];
  while (std::fgets(line, sizeof line, output) != nullptr) {
    if (std::strncmp(line, "bits ", 5) == 0) bits = line;
  }
  return pclose(output) == 0 ? bits : "";
}

TEST(Attention, InstructionSetsChangeNoBit) {
  const std::string expected = bits_on(InstructionSet::portable);
  ASSERT_NE(expected, "");
  for (InstructionSet level : available_instruction_sets()) EXPECT_EQ(bits_on(level), expected) << name_of(level);
}

TEST(Attention, RefusesASmallWorkspace) {
  const AttentionShape shape{1, 8, 2, 1, 4};
  set_compute_threads(1);
  std::vector<float> qkv(8 * 16);
  std::vector<float> output(8 * 8);
  std::vector<float> log_sum_exp(8 * 2);
  const int64_t floats = cpu::attention_workspace_floats(shape, 1);
  std::vector<float> workspace(static_cast<size_t>(floats));
  AttentionForward problem{shape, view(qkv, {8, 16}), view(output, {8, 8}), view(log_sum_exp, {1, 2, 8}),
                           view(workspace, {floats})};
  EXPECT_NO_THROW(attention_forward(problem));
  problem.workspace = problem.workspace.slice(0, floats - 1);
  EXPECT_THROW(attention_forward(problem), Error);
}

}  // namespace
}  // namespace nibble
