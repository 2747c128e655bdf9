// Compares the head in chunks with the same operators on the whole micro-batch, and tests what chunks must not change.
#include "model/objectives/head.h"

#include <gtest/gtest.h>

#include <limits>
#include <numeric>

#include "dist/device/thread_pool.h"
#include "model/exchange.h"
#include "model/model_fixture.h"
#include "model/ops/loss/cross_entropy.h"

namespace nibble::test {
namespace {

constexpr StepContext context{.seed = 5, .step = 3, .micro_batch = 1};
constexpr double unit_roundoff = 0x1p-24;
constexpr int64_t hidden = 32;
constexpr int64_t vocabulary = 8208;  // so large that chunks have their least length
constexpr int64_t sequence_length = 16;

ModelConfig config_of(DType dtype, int64_t vocab = vocabulary) {
  ModelConfig config = tiny_config();
  config.pattern = "-";
  config.vocab_size = vocab;
  config.hidden_size = hidden;
  config.dtype = dtype;
  config.tied_head = false;
  return config;
}

// Fills a tensor with numbers of the storage type, made from small integers.
void fill(const Tensor& tensor, uint64_t seed, float scale) {
  const std::vector<int32_t> values = random_tokens(static_cast<size_t>(tensor.elements()), 257, seed);
  for (size_t i = 0; i < values.size(); ++i) {
    const float value = scale * static_cast<float>(values[i] - 128);
    if (tensor.dtype() == DType::f32) {
      tensor.as<float>()[i] = value;
    } else {
      tensor.as<BFloat16>()[i] = bf16_nearest(value);
    }
  }
}

std::vector<float> numbers(const Tensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = tensor.dtype() == DType::f32 ? tensor.as<float>()[i] : to_float(tensor.as<BFloat16>()[i]);
  }
  return values;
}

struct Result {
  double loss = 0;
  std::vector<float> gradient;                          // [tokens, hidden]
  std::vector<float> grad_weight;                       // [vocabulary, hidden]
  std::vector<float> grad_norm;                         // [hidden]
  std::vector<float> normed, grad_normed, grad_logits;  // of the whole micro-batch; the bounds are computed from them
};

// The weights, input and targets of a head, and memory for its gradients.
class Problem {
 public:
  Problem(const ModelConfig& model_config, const Recipe& model_recipe, int64_t sequence_count)
      : config(model_config), recipe(model_recipe), sequences(sequence_count), tokens(sequences * sequence_length) {
    ParameterTable table;
    const Head parameters(config, recipe, {sequences, sequence_length, true}, 0, table);
    const auto size = static_cast<int64_t>(table.flat_size());
    for (int pass = 0; pass < 2; ++pass) {
      weights = allocate_tensor(arena_, config.dtype, {size});
      gradients = allocate_tensor(arena_, DType::f32, {size});
      input = allocate_tensor(arena_, config.dtype, {tokens, hidden});
      gradient = allocate_tensor(arena_, config.dtype, {tokens, hidden});
      if (pass == 0) arena_.commit();
    }
    fill(weights, 1, 0x1p-8F);
    fill(input, 2, 0x1p-6F);
    targets = random_tokens(static_cast<size_t>(tokens), config.vocab_size, 3);
  }

  Tensor target_tensor() { return tensor_of(std::span(targets), {tokens}); }
  ObjectivePass pass() { return {.input = input, .targets = target_tensor(), .context = context}; }
  void clear() {
    std::fill_n(gradients.as<float>(), gradients.elements(), 0.0F);
    fill(gradient, 4, 1);  // will be overwritten
  }
  Result results(const ParameterTable& table, double loss) const {
    return {.loss = loss,
            .gradient = numbers(gradient),
            .grad_weight = numbers(table.view(gradients, 1)),
            .grad_norm = numbers(table.view(gradients, 0)),
            .normed = {},
            .grad_normed = {},
            .grad_logits = {}};
  }

  ModelConfig config;
  Recipe recipe;
  int64_t sequences, tokens;
  Tensor weights, gradients, input, gradient;
  std::vector<int32_t> targets;

 private:
  Arena arena_{"test"};
};

class HeadUnderTest {
 public:
  explicit HeadUnderTest(Problem& problem, bool training = true)
      : problem_(problem),
        head(problem.config, problem.recipe, {problem.sequences, sequence_length, training}, 0, table_) {
    head.allocate(weights_, workspace_);
    for (Arena* arena : {&weights_, &workspace_, head.arenas().front()}) arena->commit();
    head.allocate(weights_, workspace_);
    head.linears().front()->set_non_finite(Tensor(&non_finite_, DType::i64, {1}));
    exchange_.bind(table_, problem.weights, training ? problem.gradients : Tensor());
    head.bind(exchange_.acquire(0, Direction::backward), {});
  }
  Result run(float scale) {
    problem_.clear();
    head.loss_and_gradient(problem_.pass(), {.input = problem_.gradient, .scale = scale});
    return problem_.results(table_, sum_of_losses(head.losses()));
  }
  double loss() { return head.loss(problem_.pass()); }

 private:
  Problem& problem_;
  ParameterTable table_;
  LocalExchange exchange_;
  Arena weights_{"weights"}, workspace_{"workspace"};
  int64_t non_finite_ = 0;

 public:
  Head head;
};

// Runs the operators one after the other, each on the whole micro-batch.
Result run_whole(Problem& problem, float scale) {
  const ModelConfig& config = problem.config;
  const int64_t tokens = problem.tokens;
  ParameterTable table;
  Norm norm("norm.weight", config, table);
  const uint32_t id = table.add({.name = "head.weight", .shape = {config.vocab_size, hidden}, .init_std = 1});
  Linear linear({.name = "head.weight",
                 .weight_id = id,
                 .features_in = hidden,
                 .features_out = config.vocab_size,
                 .dtype = config.dtype,
                 .recipe = resolve(problem.recipe, "head.weight", -1, 1)});
  Arena weights("weights");
  Arena saved("saved");
  Arena workspace("workspace");
  Tensor normed, grad_normed, logits, grad_logits, losses;
  for (int pass = 0; pass < 2; ++pass) {
    const LayerArenas arenas{weights, saved, workspace, problem.sequences, sequence_length, true};
    normed = allocate_tensor(saved, config.dtype, {tokens, hidden});
    grad_normed = allocate_tensor(saved, config.dtype, {tokens, hidden});
    logits = allocate_tensor(saved, DType::f32, {tokens, config.vocab_size});
    grad_logits = allocate_tensor(saved, config.dtype, {tokens, config.vocab_size});
    losses = allocate_tensor(saved, DType::f32, {tokens});
    norm.allocate(arenas);
    linear.allocate(arenas);
    if (pass > 0) break;
    for (Arena* arena : {&weights, &saved, &workspace}) arena->commit();
  }
  LocalExchange exchange;
  exchange.bind(table, problem.weights, problem.gradients);
  const BucketView bucket = exchange.acquire(0, Direction::backward);
  norm.bind(bucket);
  int64_t non_finite = 0;
  linear.set_non_finite(Tensor(&non_finite, DType::i64, {1}));
  linear.bind(bucket);
  problem.clear();
  norm.forward(problem.input, normed);
  linear.forward({.input = normed, .output = logits, .context = context, .keep = true});
  cross_entropy({logits, problem.target_tensor(), grad_logits, scale, losses});
  const double loss = sum_of_losses(losses);
  linear.backward({.grad_output = grad_logits, .grad_input = grad_normed, .context = context});
  std::memset(problem.gradient.data(), 0, problem.gradient.bytes());
  norm.backward(grad_normed, problem.input, problem.gradient);
  Result result = problem.results(table, loss);
  result.normed = numbers(normed);
  result.grad_normed = numbers(grad_normed);
  result.grad_logits = numbers(grad_logits);
  return result;
}

struct Case {
  DType dtype;
  int64_t sequences;
  int64_t chunk;  // the expected length
};

// 544 tokens make chunks of 192, 192 and 160; 272 tokens make 144 and 128; 256 tokens make one.
const Case cases[] = {{DType::f32, 34, 192}, {DType::bf16, 34, 192}, {DType::bf16, 17, 144}, {DType::bf16, 16, 256}};

Recipe plain_of(DType dtype) {
  return plain(dtype == DType::f32 ? Format::f32 : Format::bf16);
}

class HeadTest : public testing::Test {
 protected:
  void TearDown() override { set_compute_threads(1); }
};

// Values of one token have the same bits. The gradient of a weight sums over tokens: chunks and their sum round
// differently, each term at most tokens + chunks times.
TEST_F(HeadTest, ChunksAgreeWithTheWholeMicroBatch) {
  constexpr float scale = 0.25F;
  for (const Case& test : cases) {
    Problem problem(config_of(test.dtype), plain_of(test.dtype), test.sequences);
    HeadUnderTest by_chunks(problem);
    ASSERT_EQ(by_chunks.head.chunk_tokens(), test.chunk);
    const Result expected = run_whole(problem, scale);
    const Result actual = by_chunks.run(scale);
    EXPECT_EQ(actual.loss, expected.loss);
    EXPECT_GT(norm(expected.gradient), 0);
    EXPECT_TRUE(same_bits(actual.gradient, expected.gradient)) << name_of(test.dtype);

    const auto tokens = static_cast<size_t>(problem.tokens);
    const double roundings = static_cast<double>(tokens + 2) * unit_roundoff;
    for (size_t v = 0; v < static_cast<size_t>(vocabulary); v += 41) {
      for (size_t h = 0; h < static_cast<size_t>(hidden); ++h) {
        double terms = 0;
        for (size_t t = 0; t < tokens; ++t) {
          const double term = static_cast<double>(expected.grad_logits[t * static_cast<size_t>(vocabulary) + v]) *
                              expected.normed[t * static_cast<size_t>(hidden) + h];
          terms += std::fabs(term);
        }
        const size_t at = v * static_cast<size_t>(hidden) + h;
        ASSERT_NEAR(actual.grad_weight[at], expected.grad_weight[at], 2 * roundings * terms) << v << " " << h;
      }
    }
    const std::vector<float> input = numbers(problem.input);
    std::vector<double> norm_terms(static_cast<size_t>(hidden));  // sums of |grad_normed * input / rms|
    for (size_t t = 0; t < tokens; ++t) {
      const std::span<const float> row = std::span(input).subspan(t * norm_terms.size(), norm_terms.size());
      const double rms = norm(row) / std::sqrt(hidden);
      for (size_t h = 0; h < norm_terms.size(); ++h) {
        norm_terms[h] += std::fabs(static_cast<double>(expected.grad_normed[t * norm_terms.size() + h]) * row[h] / rms);
      }
    }
    for (size_t h = 0; h < norm_terms.size(); ++h) {
      ASSERT_NEAR(actual.grad_norm[h], expected.grad_norm[h], 2 * roundings * norm_terms[h]) << h;
    }
  }
}

TEST_F(HeadTest, LossNeedsNoGradientAndNoWholeMicroBatch) {
  for (const Case& test : cases) {
    Problem problem(config_of(test.dtype), plain_of(test.dtype), test.sequences);
    const double expected = HeadUnderTest(problem).run(1).loss;
    EXPECT_EQ(HeadUnderTest(problem).loss(), expected);
    HeadUnderTest inference(problem, /*training=*/false);
    EXPECT_EQ(inference.loss(), expected);
    const auto part = [&](int64_t begin, int64_t end) {
      ObjectivePass pass = problem.pass();
      pass.input = pass.input.slice(begin, end);
      pass.targets = pass.targets.slice(begin, end);
      return inference.head.loss(pass);
    };
    const double first = part(0, 208);
    const double rest = part(208, problem.tokens);
    EXPECT_NEAR(first + rest, expected, 1e-12 * expected) << "FP64 sums";
  }
}

// A quantised head has scales of the whole micro-batch, so it is not cut, and its bits are those of the operators.
TEST_F(HeadTest, QuantisedHeadTakesTheWholeMicroBatch) {
  Recipe recipe = nvidia();
  recipe.high_precision.clear();
  Problem problem(config_of(DType::bf16), recipe, 34);
  HeadUnderTest head(problem);
  EXPECT_EQ(head.head.chunk_tokens(), problem.tokens);
  EXPECT_EQ(head.head.arenas().front()->name(), "logits and their gradient");
  const Result expected = run_whole(problem, 1);
  const Result actual = head.run(1);
  EXPECT_EQ(actual.loss, expected.loss);
  EXPECT_TRUE(same_bits(actual.gradient, expected.gradient));
  EXPECT_TRUE(same_bits(actual.grad_weight, expected.grad_weight));
  EXPECT_TRUE(same_bits(actual.grad_norm, expected.grad_norm));
}

// Several objectives share the gradient of their input: only the first overwrites it.
TEST_F(HeadTest, TheInputsGradientIsAddedToWhereItIsNotOverwritten) {
  Problem problem(config_of(DType::f32), plain(Format::f32), 34);
  HeadUnderTest head(problem);
  const Result once = head.run(1);
  head.head.loss_and_gradient(problem.pass(), {.input = problem.gradient, .overwrite = false});
  const std::vector<float> twice = numbers(problem.gradient);
  ASSERT_EQ(twice.size(), once.gradient.size());
  for (size_t i = 0; i < twice.size(); ++i) ASSERT_EQ(twice[i], 2 * once.gradient[i]) << i;
}

TEST_F(HeadTest, ThreadsChangeNoBit) {
  for (const Case& test : cases) {
    Problem problem(config_of(test.dtype), plain_of(test.dtype), test.sequences);
    set_compute_threads(1);
    const Result one = HeadUnderTest(problem).run(1);
    for (int threads : {2, 3}) {
      set_compute_threads(threads);
      const Result more = HeadUnderTest(problem).run(1);
      EXPECT_EQ(more.loss, one.loss);
      EXPECT_TRUE(same_bits(more.gradient, one.gradient));
      EXPECT_TRUE(same_bits(more.grad_weight, one.grad_weight));
      EXPECT_TRUE(same_bits(more.grad_norm, one.grad_norm));
    }
  }
}

TEST_F(HeadTest, GradientsOfParametersAreAddedTo) {
  Problem problem(config_of(DType::bf16), plain(Format::bf16), 17);
  HeadUnderTest head(problem);
  const Result once = head.run(1);
  head.head.loss_and_gradient(problem.pass(), {.input = problem.gradient});
  ParameterTable table;
  const Head parameters(problem.config, problem.recipe, {1, sequence_length, true}, 0, table);
  const Result twice = problem.results(table, 0);
  EXPECT_TRUE(same_bits(twice.gradient, once.gradient)) << "that of the input is overwritten";
  // Adding the chunks' products to the bound gradients rounds twice a chunk.
  const double tolerance = 8 * unit_roundoff * norm(once.grad_weight);
  for (size_t i = 0; i < once.grad_weight.size(); ++i) {
    ASSERT_NEAR(twice.grad_weight[i], 2.0 * once.grad_weight[i], tolerance) << i;
  }
}

// The planned memory is what chunks need, not what the micro-batch would need.
TEST_F(HeadTest, MemoryIsThatOfOneChunk) {
  const auto bytes = [](int64_t sequences, const Recipe& recipe) {
    Problem problem(config_of(DType::bf16), recipe, sequences);
    return static_cast<int64_t>(HeadUnderTest(problem).head.arenas().front()->planned_bytes());
  };
  const Recipe recipe = plain(Format::bf16);
  const int64_t one_chunk = bytes(16, recipe);
  EXPECT_GE(one_chunk, 256 * vocabulary * 6) << "logits of 4 bytes, gradients of 2";
  EXPECT_LE(bytes(64, recipe), one_chunk + 4 * 1024) << "four chunks: only the losses are more";
  Recipe quantized = nvidia();
  quantized.high_precision.clear();
  EXPECT_GE(bytes(64, quantized), 1024 * vocabulary * 6) << "cannot be cut";
  Problem problem(config_of(DType::bf16), recipe, 64);
  EXPECT_EQ(HeadUnderTest(problem).head.arenas().front()->name(), "logits and their gradient, 256 tokens at a time");
}

TEST_F(HeadTest, LogitsOfAChunk) {
  Problem problem(config_of(DType::f32), plain(Format::f32), 34);
  HeadUnderTest training(problem);
  EXPECT_EQ(training.head.logits(problem.input.slice(0, 192), context).rows(), 192);
  EXPECT_THROW(training.head.logits(problem.input.slice(0, 208), context), Error);
}

// The tests below run whole models with several chunks.

struct ModelResult {
  double loss = 0;
  std::vector<float> gradients;
};

ModelConfig model_config(DType dtype, bool tied) {
  ModelConfig config = config_of(dtype);
  config.pattern = "*-";
  config.tied_head = tied;
  config.sequence_length = sequence_length;
  return config;
}

TEST_F(HeadTest, ModelsWithSeveralChunks) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const bool tied : {false, true}) {
      const ModelConfig config = model_config(dtype, tied);
      LanguageModelOptions options{.sequences = 34, .sequence_length = sequence_length};
      TestModel test(config, plain_of(dtype), options);
      const double loss = test.forward_backward(context, 0.5F);
      const std::vector<float> gradients = test.gradients;
      EXPECT_EQ(test.forward(context), loss);
      EXPECT_NEAR(loss / (34.0 * sequence_length), std::log(static_cast<double>(vocabulary)), 2) << "is a loss";

      options.recompute = {true, true};
      TestModel recomputed(config, plain_of(dtype), options);
      EXPECT_EQ(recomputed.forward_backward(context, 0.5F), loss);
      EXPECT_TRUE(same_bits(recomputed.gradients, gradients));
      set_compute_threads(3);
      TestModel threaded(config, plain_of(dtype), options);
      EXPECT_EQ(threaded.forward_backward(context, 0.5F), loss);
      EXPECT_TRUE(same_bits(threaded.gradients, gradients));
      set_compute_threads(1);
    }
  }
}

// A tied head's gradient is the gradient of an untied head with the same weights plus that of the embedding. Adding to
// the former rounds once for each token of the word.
TEST_F(HeadTest, TiedHeadAddsBothGradients) {
  const LanguageModelOptions options{.sequences = 34, .sequence_length = sequence_length};
  TestModel tied(model_config(DType::f32, true), plain(Format::f32), options);
  TestModel untied(model_config(DType::f32, false), plain(Format::f32), options);
  const Parameter& embedding = tied.model.parameters()[0];
  const Parameter& head = untied.model.parameters().parameters().back();
  ASSERT_EQ(head.name, "head.weight");
  std::copy_n(tied.weights.begin(), tied.weights.size(), untied.weights.begin());
  std::copy_n(tied.weights.begin() + static_cast<int64_t>(embedding.offset), embedding.count,
              untied.weights.begin() + static_cast<int64_t>(head.offset));
  untied.bind();
  EXPECT_EQ(tied.forward_backward(context), untied.forward_backward(context));
  const std::span<const float> both = part(tied.gradients, embedding);
  const std::span<const float> of_embedding = part(untied.gradients, embedding);
  const std::span<const float> of_head = part(untied.gradients, head);
  EXPECT_GT(norm(of_head), 0);
  const double usual = norm(of_embedding) / 32;
  for (size_t i = 0; i < both.size(); ++i) {
    const double expected = static_cast<double>(of_embedding[i]) + of_head[i];
    const double size = std::fabs(of_embedding[i]) + std::fabs(of_head[i]);
    ASSERT_NEAR(both[i], expected, 8 * unit_roundoff * (size + usual)) << i;
  }
}

}  // namespace
}  // namespace nibble::test
