// Compares the figures of a validation with slow, obvious versions: bytes counted in decoded text, and the divergence
// of two models from the logits of one sequence after the other, in FP64.
#include "trainer/run/validation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <numeric>

#include "data/shards/shard.h"
#include "data/tokenizers/tokenizer_training.h"
#include "dist/ranks/self_communicator.h"
#include "quant/format/codec.h"
#include "quant/tensor/tensor_copy.h"
#include "tests/data/test_files.h"
#include "trainer/config/config_override.h"

namespace nibble {
namespace {

constexpr uint64_t seed = 5;
constexpr uint64_t step = 3;

class ValidationTest : public testing::Test {
 protected:
  ValidationTest() : tokenizer_(Tokenizer::load(NIBBLE_SOURCE_DIR "/data/sample/tokenizer.model")) {
    tokenizer_->save(directory_ / "tokenizer.model");
    ShardHeader format;
    format.vocab_size = tokenizer_->vocab_size();
    format.eos_id = static_cast<uint32_t>(tokenizer_->eos_id());
    format.tokenizer = tokenizer_->hash();
    ShardWriter writer(directory_ / "train.bin", format);
    for (std::string& document : sample_documents(60'000)) {
      std::erase_if(document, [](char c) { return static_cast<uint8_t>(c) >= 0x80; });  // every token decodes alone
      for (size_t begin = 0; begin < document.size(); begin += 300) {
        writer.add_document(tokenizer_->encode(std::string_view(document).substr(begin, 300)));
      }
    }
    writer.publish();
  }

  RunConfig config(const std::vector<std::string>& overrides = {}) const {
    const std::string shard = (directory_ / "train.bin").string();
    const std::string text = R"(
run: {dir: unused, seed: 5}
recipe: {name: quantised, forward: nvfp4}
model: {pattern: "*-", hidden_size: 32, query_heads: 2, kv_heads: 1, head_dim: 16, intermediate_size: 64,
        sequence_length: 32}
data: {train: )" + shard +
                             ", validation: " + shard + R"(}
train: {steps: 50, micro_batch_sequences: 6, tokens_per_step: 192}
eval: {sequences: 14}
optimizer: {learning_rate: 3e-3}
)";
    RunConfig config =
        parse_run_config_text(text, NIBBLE_SOURCE_DIR "/configs/runs/test.yaml", parse_overrides(overrides));
    config.model.vocab_size = round_up<int64_t>(tokenizer_->vocab_size(), block_rows);
    return config;
  }

  TemporaryDirectory directory_;
  std::unique_ptr<Tokenizer> tokenizer_;
  SelfCommunicator communicator_;
};

// A model with initial weights that are too large, so that its predictions are far from uniform.
struct Bound {
  Bound(const RunConfig& config, const Recipe& recipe, int64_t sequences, int64_t chunk)
      : model(config.model, recipe,
              {.sequences = sequences,
               .sequence_length = config.model.sequence_length,
               .training = false,
               .head_chunk_tokens = chunk}),
        values(model.parameters().flat_size()),
        weights(values.size()) {
    initialize(model.parameters(), seed, 0, values.size(), values.data());
    for (size_t i = 0; i < values.size(); ++i) weights[i] = bf16_nearest(8 * values[i]);
    model.bind(Tensor(weights.data(), DType::bf16, {static_cast<int64_t>(weights.size())}), {});
    model.set_weights_changed();
  }
  LanguageModel model;
  std::vector<float> values;
  std::vector<BFloat16> weights;
};

ValidationLoss loss_of(Communicator& communicator, const RunConfig& config, LanguageModel& model,
                       DivergenceMeter* meter = nullptr) {
  return Validation(config)
      .losses(
          communicator, model, step, [] { return false; }, meter)
      .value()
      .front();
}

TEST_F(ValidationTest, BitsPerByteAreThoseOfTheDecodedText) {
  const RunConfig run = config();
  Bound model(run, run.recipe, 6, 0);
  const ValidationLoss loss = loss_of(communicator_, run, model.model);

  const Validation validation(run);
  const Validation::Set& set = validation.sets().front();
  ASSERT_EQ(set.windows.size(), 14U);
  uint64_t bytes = 0;
  bool ends = false;
  for (const uint64_t window : set.windows) {
    std::vector<int32_t> tokens(32), targets(32);
    set.loader->load(window, tokens, targets);
    bytes += tokenizer_->decode(targets).size();
    ends = ends || std::ranges::find(targets, tokenizer_->eos_id()) != targets.end();
  }
  EXPECT_TRUE(ends) << "no document ends in these windows";
  ASSERT_TRUE(loss.bits_per_byte);
  EXPECT_NEAR(*loss.bits_per_byte, loss.loss * 14 * 32 / std::numbers::ln2 / static_cast<double>(bytes), 1e-12);
}

TEST_F(ValidationTest, ThereAreNoBitsPerByteWithoutTheShardsOwnTokenizer) {
  Bound model(config(), {}, 6, 0);
  const auto bits = [&](const std::string& tokenizer) {
    return loss_of(communicator_, config({"data.tokenizer=" + tokenizer}), model.model).bits_per_byte;
  };
  EXPECT_TRUE(bits((directory_ / "tokenizer.model").string()));
  EXPECT_FALSE(bits((directory_ / "nowhere.model").string()));
  EXPECT_FALSE(bits((directory_ / "train.bin").string()));  // no tokenizer at all
  std::vector<std::string> sentences;
  for (const std::string& document : sample_documents(200'000)) {
    for (size_t begin = 0; begin < document.size(); begin = document.find('\n', begin) + 1) {
      const size_t end = std::min(document.find('\n', begin), document.size());
      if (end > begin) sentences.push_back(document.substr(begin, end - begin));
      if (end == document.size()) break;
    }
  }
  train_tokenizer(sentences, 400)->save(directory_ / "other.model");
  EXPECT_FALSE(bits((directory_ / "other.model").string()));
}

// A shard of llm.c names no tokenizer: data.tokenizer does, and its ids must exist.
TEST_F(ValidationTest, ShardsThatNameNoTokenizerTakeTheOneOfTheConfiguration) {
  const auto shard = open_token_shard(directory_ / "train.bin");
  std::vector<int32_t> ids(shard->tokens());
  shard->read(0, ids);
  std::vector<int32_t> header(256);
  header[0] = 20240520;
  header[1] = 1;
  header[2] = static_cast<int32_t>(ids.size());
  const std::vector<uint16_t> tokens(ids.begin(), ids.end());
  std::string file(reinterpret_cast<const char*>(header.data()), header.size() * sizeof(int32_t));
  file.append(reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(uint16_t));
  const auto foreign = directory_ / "llmc.bin";
  put(foreign, file);
  Bound model(config(), {}, 6, 0);
  const auto loss = [&](const std::string& shards, const std::string& tokenizer) {
    return loss_of(communicator_,
                   config({"data.train=" + shards, "data.validation=" + shards, "data.tokenizer=" + tokenizer,
                           "data.vocab_size=" + std::to_string(tokenizer_->vocab_size())}),
                   model.model);
  };
  const auto own = loss((directory_ / "train.bin").string(), "\"\"");
  const auto named = loss(foreign.string(), (directory_ / "tokenizer.model").string());
  ASSERT_TRUE(own.bits_per_byte && named.bits_per_byte);
  EXPECT_EQ(*named.bits_per_byte, *own.bits_per_byte);
  EXPECT_FALSE(loss(foreign.string(), "\"\"").bits_per_byte) << "the tokenizer beside such shards may be of others";
  const std::string small = NIBBLE_SOURCE_DIR "/tests/data/tokenizers/gpt2.json";
  const std::string error = expect_error(ExitCode::bad_data, [&] { loss(foreign.string(), small); });
  EXPECT_NE(error.find("their tokenizer has 421 tokens"), std::string::npos) << error;
}

std::vector<float> logits_of(LanguageModel& model, const Tensor& input, const StepContext& context) {
  model.start_logits(input, context);
  std::vector<float> all;
  for (int64_t begin = 0; begin < input.elements(); begin += model.head_chunk_tokens()) {
    const HostCopy part(model.logits_of(begin, std::min(begin + model.head_chunk_tokens(), input.elements())));
    const auto values = part.as<float>();
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

// Returns KL(P || Q) of each token of the windows from the logits of whole sequences.
std::vector<double> slow_divergences(const RunConfig& config, LanguageModel& p, LanguageModel& q) {
  const Validation validation(config);
  const Validation::Set& set = validation.sets().front();
  std::vector<double> result;
  for (size_t i = 0; i < set.windows.size(); ++i) {
    std::vector<int32_t> tokens(32), targets(32);
    set.loader->load(set.windows[i], tokens, targets);
    const StepContext context{.seed = seed, .step = step, .micro_batch = static_cast<uint32_t>(i)};
    const Tensor input(tokens.data(), DType::i32, {1, 32});
    const std::vector<float> of_p = logits_of(p, input, context);
    const std::vector<float> of_q = logits_of(q, input, context);
    const auto vocab = static_cast<size_t>(config.model.vocab_size);
    for (size_t token = 0; token < 32; ++token) {
      const float* const a = of_p.data() + token * vocab;
      const float* const b = of_q.data() + token * vocab;
      double sum_a = 0, sum_b = 0, divergence = 0;
      for (size_t word = 0; word < vocab; ++word) {
        sum_a += std::exp(static_cast<double>(a[word]));
        sum_b += std::exp(static_cast<double>(b[word]));
      }
      for (size_t word = 0; word < vocab; ++word) {
        const double log_p = static_cast<double>(a[word]) - std::log(sum_a);
        divergence += std::exp(log_p) * (log_p - (static_cast<double>(b[word]) - std::log(sum_b)));
      }
      result.push_back(divergence);
    }
  }
  return result;
}

// A micro-batch is one sequence, so that the quantisers of the slow version, which take one, see the same tensors. The
// sequences of 32 tokens are cut into chunks of 16, of which the quantised head has none.
TEST_F(ValidationTest, TheDivergenceIsThatOfTheLogits) {
  const RunConfig run = config({"train.micro_batch_sequences=1"});
  const Recipe head{.name = "head", .linear = run.recipe.linear};
  const Recipe blocks{.name = "blocks",
                      .linear = run.recipe.linear,
                      .high_precision = {{.layers = {.match = "head|embedding"}, .format = Format::bf16}}};
  for (const Recipe& recipe : {head, blocks}) {
    Bound p(run, {}, 1, 16);
    Bound q(run, recipe, 1, 16);
    EXPECT_EQ(p.model.head_chunk_tokens(), 16);
    EXPECT_EQ(q.model.head_chunk_tokens(), recipe.name == "head" ? 32 : 16);
    DivergenceMeter meter(p.model, DeviceKind::cpu);
    const ValidationLoss result = loss_of(communicator_, run, q.model, &meter);
    const std::vector<double> slow = slow_divergences(run, p.model, q.model);

    ASSERT_TRUE(result.divergence && result.divergence->standard_error);
    std::vector<double> of_sequences;
    double mean = 0;
    for (size_t i = 0; i < slow.size(); i += 32) {
      of_sequences.push_back(std::accumulate(slow.begin() + static_cast<std::ptrdiff_t>(i),
                                             slow.begin() + static_cast<std::ptrdiff_t>(i) + 32, 0.0) /
                             32);
      mean += of_sequences.back() / 14;
    }
    double squares = 0;
    for (const double value : of_sequences) squares += (value - mean) * (value - mean);
    EXPECT_GT(mean, 1e-3);
    EXPECT_NEAR(result.divergence->mean, mean, 1e-5);  // ten roundings of logits up to 16
    EXPECT_NEAR(*result.divergence->standard_error, std::sqrt(squares / 13 / 14), 1e-5);
    // The loss is that of a validation without the other model, bit for bit.
    EXPECT_EQ(result.loss, loss_of(communicator_, run, q.model).loss);
  }
}

TEST_F(ValidationTest, AModelDoesNotDivergeFromItself) {
  const RunConfig run = config();
  Bound p(run, {}, 6, 48);
  Bound q(run, {}, 6, 48);
  DivergenceMeter meter(p.model, DeviceKind::cpu);
  const ValidationLoss result = loss_of(communicator_, run, q.model, &meter);
  EXPECT_EQ(result.divergence.value().mean, 0);
  EXPECT_EQ(result.divergence->standard_error.value(), 0);
  EXPECT_FALSE(divergence_of(std::vector<double>{0.5}, 32).standard_error);
}

}  // namespace
}  // namespace nibble
