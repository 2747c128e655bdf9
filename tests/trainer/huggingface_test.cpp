// Reads the models in tests/trainer/huggingface, which transformers wrote, and compares what nibble computes with them
// with what transformers computes: logits, loss, and the gradient of every tensor. Then damaged and unfitting
// directories.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "dist/ranks/self_communicator.h"
#include "model/language_model.h"
#include "trainer/arrays/array_file.h"
#include "trainer/arrays/safetensors_file.h"
#include "trainer/checkpoint_fixture.h"
#include "trainer/huggingface/architecture.h"
#include "trainer/huggingface/model_source.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

fs::path fixture(const std::string& name) {
  return fs::path(NIBBLE_SOURCE_DIR) / "tests/trainer/huggingface" / name;
}

// Returns the numbers of a tensor of expected.safetensors.
template <class Number>
std::vector<Number> expected(const fs::path& directory, const std::string& name) {
  const SafetensorsFile file(directory / "expected.safetensors");
  for (const SafetensorsEntry& entry : file.entries()) {
    if (entry.name != name) continue;
    EXPECT_EQ(entry.dtype, (std::is_same_v<Number, float> ? "F32" : "I32"));
    std::vector<Number> numbers((entry.end - entry.begin) / sizeof(Number));
    file.read(entry, 0, std::as_writable_bytes(std::span(numbers)));
    return numbers;
  }
  ADD_FAILURE() << name;
  return std::vector<Number>(1);
}

// A model in FP32 with the weights of a directory, and the gradient of the sum of its losses.
struct ComputedModel {
  static constexpr int64_t sequences = 2;
  static constexpr int64_t length = 48;

  explicit ComputedModel(const fs::path& directory) {
    SelfCommunicator communicator;
    source = open_model_source(communicator, directory.string());
    ModelConfig config = source->model();
    config.dtype = DType::f32;
    config.sequence_length = length;
    model = std::make_unique<LanguageModel>(
        config, Recipe{.name = "fp32", .linear = plain_recipe(Format::f32)},
        LanguageModelOptions{.sequences = sequences, .sequence_length = length, .recompute = {}});
    layout = model->parameters().layout();
    weights.resize(layout.elements());
    gradients.resize(layout.elements());
    const Placement everything = replicated(layout, 1);
    TakenWeights(*source, config, layout, "").read(everything, 0, weights);
    const auto flat = static_cast<int64_t>(layout.elements());
    model->bind(Tensor(weights.data(), DType::f32, {flat}), Tensor(gradients.data(), DType::f32, {flat}));
    model->set_weights_changed();
    tokens = expected<int32_t>(directory, "tokens");
    targets = expected<int32_t>(directory, "targets");
  }
  static Tensor ids(std::vector<int32_t>& values) { return {values.data(), DType::i32, {sequences, length}}; }

  std::unique_ptr<ModelSource> source;
  std::unique_ptr<LanguageModel> model;
  Layout layout;
  std::vector<float> weights, gradients;
  std::vector<int32_t> tokens, targets;
};

class HuggingfaceModel : public testing::TestWithParam<const char*> {};

// Transformers computed in FP64, nibble in FP32. Errors of n independent roundings grow like sqrt(n); the longest chain
// of a model of two layers is below 2,000 additions, and the factor 8 is for the worst of some 10,000 elements.
constexpr double tolerance = 8 * 45 * 0x1p-24;

TEST_P(HuggingfaceModel, HasTheLogitsLossAndGradientsOfTransformers) {
  const fs::path directory = fixture(GetParam());
  ComputedModel own(directory);
  const double loss = own.model->forward_backward(ComputedModel::ids(own.tokens), ComputedModel::ids(own.targets), {},
                                                  /*loss_scale=*/1.0F);
  const double mean = loss / static_cast<double>(own.tokens.size());
  EXPECT_NEAR(mean, expected<float>(directory, "loss_mean").front(), tolerance * mean);

  const std::vector<float> logits = expected<float>(directory, "logits");
  const auto largest_of = [](const std::vector<float>& values) {
    float largest = 0;
    for (const float value : values) largest = std::max(largest, std::fabs(value));
    return largest;
  };
  own.model->start_logits(ComputedModel::ids(own.tokens), {});
  const auto tokens = static_cast<int64_t>(own.tokens.size());
  const int64_t chunk = own.model->head_chunk_tokens();
  for (int64_t begin = 0; begin < tokens; begin += chunk) {
    const Tensor part = own.model->logits_of(begin, std::min(tokens, begin + chunk));
    for (int64_t i = 0; i < part.elements(); ++i) {
      ASSERT_NEAR(part.as<float>()[i], logits[static_cast<size_t>(begin * part.cols() + i)],
                  tolerance * largest_of(logits));
    }
  }

  const Architecture& architecture = architecture_of(own.model->config());
  for (const NamedPart& part : named_parts(architecture.names, own.layout, 2)) {
    const std::vector<float> gradient = expected<float>(directory, "gradient." + part.name);
    const float largest = largest_of(gradient);
    ASSERT_GT(largest, 0) << part.name;
    ASSERT_EQ(gradient.size(), part.elements.count()) << part.name;
    const float* const values = own.gradients.data() + own.layout.tensors()[part.tensor].offset + part.elements.begin;
    for (size_t i = 0; i < gradient.size(); ++i) {
      ASSERT_NEAR(values[i], gradient[i], tolerance * largest) << part.name << " element " << i;
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Fixtures, HuggingfaceModel, testing::Values("llama", "llama3", "mistral", "qwen2", "qwen3"));

TEST(HuggingfaceNames, OneTableNamesEveryParameterOnce) {
  ComputedModel own(fixture("llama"));
  const std::vector<NamedPart> parts = named_parts(dense_names, own.layout, 2);
  EXPECT_EQ(parts.size(), own.source->tensors().size());
  EXPECT_EQ(parts.front().name, "model.embed_tokens.weight");
  EXPECT_EQ(parts[2].name, "model.layers.0.self_attn.q_proj.weight");
  EXPECT_EQ(parts[2].shape, (std::vector<int64_t>{64, 32}));
  EXPECT_EQ(parts[3].name, "model.layers.0.self_attn.k_proj.weight");
  EXPECT_EQ(parts[3].elements, (Range{64 * 32, 96 * 32}));
  EXPECT_EQ(parts.back().name, "lm_head.weight");
}

// ---- Directories that do not fit ----

class ForeignDirectory : public testing::Test {
 protected:
  ForeignDirectory() : scratch_("nibble_huggingface") { copy("llama3"); }

  void copy(const std::string& name) { fs::copy(fixture(name), directory(), fs::copy_options::recursive); }
  fs::path directory() const { return scratch_.path() / "model"; }

  void change_config(const std::function<void(nlohmann::json&)>& change) const {
    std::ifstream input(directory() / "config.json");
    nlohmann::json root = nlohmann::json::parse(input);
    change(root);
    std::ofstream(directory() / "config.json") << root;
  }

  // Returns the error of opening the directory and of taking all its weights, for the model that the fixture has.
  std::optional<Error> error_of(const std::string& skip = "") const {
    try {
      SelfCommunicator communicator;
      const std::unique_ptr<ModelSource> source = open_model_source(communicator, directory().string());
      ModelConfig config = read_config_json(fixture("llama3")).model;
      config.sequence_length = 48;
      LanguageModel model(config, Recipe{.name = "bf16"}, {.sequence_length = 48, .measure_only = true});
      const Layout layout = model.parameters().layout();
      std::vector<float> weights(layout.elements());
      TakenWeights(*source, config, layout, skip).read(replicated(layout, 1), 0, weights);
    } catch (const Error& error) {
      return error;
    }
    return std::nullopt;
  }
  void expect_error(ExitCode code, const std::string& word) const {
    const std::optional<Error> error = error_of();
    ASSERT_TRUE(error.has_value()) << word;
    EXPECT_EQ(error->code(), code);
    EXPECT_NE(std::string(error->what()).find(word), std::string::npos) << error->what();
    EXPECT_FALSE(error->remedy().empty());
  }
  // Writes the fixture's tensors again with these names and shapes.
  void rewrite(const std::function<void(std::vector<NamedArray>&)>& change) const {
    const SafetensorsFile file(fixture("llama3") / "model.safetensors");
    std::vector<std::vector<std::byte>> memory;
    std::vector<NamedArray> arrays;
    for (const SafetensorsEntry& entry : file.entries()) {
      memory.emplace_back(entry.end - entry.begin);
      file.read(entry, 0, memory.back());
      arrays.push_back({entry.name,
                        entry.dtype,
                        {entry.shape.begin(), entry.shape.end()},
                        memory.back().data(),
                        memory.back().size()});
    }
    change(arrays);
    save_safetensors(directory() / "model.safetensors", arrays, {}, /*overwrite=*/true);
  }

 private:
  testing_support::ScratchDirectory scratch_;
};

TEST_F(ForeignDirectory, FitsAsItIs) {
  EXPECT_FALSE(error_of().has_value());
}

TEST_F(ForeignDirectory, ATruncatedFileIsNamed) {
  fs::resize_file(directory() / "model.safetensors", 50'000);
  expect_error(ExitCode::bad_data, "model.safetensors");
}

TEST_F(ForeignDirectory, AForeignFileIsNamed) {
  std::ofstream(directory() / "model.safetensors") << "PK\3\4 no safetensors file at all";
  expect_error(ExitCode::bad_data, "model.safetensors");
}

TEST_F(ForeignDirectory, WithoutWeightsTheRemedyNamesTheFile) {
  fs::remove(directory() / "model.safetensors");
  expect_error(ExitCode::missing_input, "model.safetensors");
}

TEST_F(ForeignDirectory, AnIndexThatPromisesTooMuchIsRefused) {
  fs::remove_all(directory());
  copy("llama");
  fs::copy_file(directory() / "model-00001-of-00003.safetensors", directory() / "model-00002-of-00003.safetensors",
                fs::copy_options::overwrite_existing);
  expect_error(ExitCode::bad_data, "model-00002-of-00003.safetensors");
}

TEST_F(ForeignDirectory, AnotherArchitectureIsNamed) {
  change_config([](nlohmann::json& root) {
    root["model_type"] = "gpt2";
    root["architectures"] = {"GPT2LMHeadModel"};
  });
  expect_error(ExitCode::bad_data, "GPT2LMHeadModel");
}

TEST_F(ForeignDirectory, SettingsThatComputeOtherwiseAreNamed) {
  const std::vector<std::pair<std::string, nlohmann::json>> settings = {
      {"hidden_act", "gelu"},
      {"attention_bias", true},
      {"mlp_bias", true},
      {"sliding_window", 16},
      {"partial_rotary_factor", 0.5},
      {"rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}}},
      {"quantization_config", {{"quant_method", "gptq"}}},
      {"vocab_size", 65},
      {"num_hidden_layers", "two"},
      {"hidden_size", nullptr}};
  for (const auto& [key, value] : settings) {
    fs::copy_file(fixture("llama3") / "config.json", directory() / "config.json", fs::copy_options::overwrite_existing);
    change_config([&](nlohmann::json& root) { root[key] = value; });
    expect_error(ExitCode::bad_data, key);
  }
}

TEST_F(ForeignDirectory, TensorsThatDoNotFitAreNamedAndMayBeSkipped) {
  rewrite([](std::vector<NamedArray>& arrays) {
    for (NamedArray& array : arrays) {
      if (array.name == "model.norm.weight") array.name = "model.extra.weight";
      if (array.name == "model.layers.0.self_attn.o_proj.weight") array.shape = {64, 16};
    }
  });
  expect_error(ExitCode::bad_data, "missing: \"model.norm.weight\"");
  expect_error(ExitCode::bad_data, "left over: \"model.extra.weight\"");
  expect_error(ExitCode::bad_data, "model.layers.0.self_attn.o_proj.weight [64, 16] instead of [32, 32]");
  // The first glob is their name, the second one is nibble's.
  EXPECT_FALSE(error_of("model.extra.weight|model.norm.weight|blocks.0.attention.output.weight").has_value());
}

TEST_F(ForeignDirectory, AWeightThatIsNotFiniteIsNamed) {
  std::vector<float> norm(32, 1.0F);
  norm[3] = std::numeric_limits<float>::infinity();
  rewrite([&](std::vector<NamedArray>& arrays) {
    for (NamedArray& array : arrays) {
      if (array.name == "model.norm.weight") array.data = norm.data();
    }
  });
  expect_error(ExitCode::bad_data, "element 3 of model.norm.weight");
}

TEST_F(ForeignDirectory, OldTablesAndTheCopyOfATiedHeadAreNotLeftOver) {
  std::vector<float> table(4, 1.0F);
  std::vector<float> head(64 * 32, 9.0F);
  rewrite([&](std::vector<NamedArray>& arrays) {
    arrays.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {4}, table.data(), 16});
    arrays.push_back({"lm_head.weight", "F32", {64, 32}, head.data(), head.size() * 4});
  });
  EXPECT_FALSE(error_of().has_value());
}

TEST(HuggingfaceConfig, IsReadBackAsItWasWritten) {
  for (const char* const name : {"llama", "llama3", "mistral", "qwen2", "qwen3"}) {
    const testing_support::ScratchDirectory scratch("nibble_config_json");
    const ModelConfig model = read_config_json(fixture(name)).model;
    const std::string text = config_json(model, SpecialTokenIds{1, 2, 2}, "float32", nullptr);
    std::ofstream(scratch.path() / "config.json") << text;
    const ModelConfig again = read_config_json(scratch.path()).model;
    EXPECT_EQ(config_json(again, SpecialTokenIds{1, 2, 2}, "float32", nullptr), text);
    EXPECT_EQ(again.rope_scaling_factor, model.rope_scaling_factor);
    EXPECT_EQ(again.rope_theta, model.rope_theta);
    EXPECT_EQ(again.tied_head, model.tied_head);
    EXPECT_EQ(again.qk_norm, model.qk_norm);
    EXPECT_EQ(again.qkv_bias, model.qkv_bias);
    EXPECT_EQ(again.pattern, model.pattern);
  }
}

TEST(HuggingfaceConfig, AModelWithoutArchitectureNamesItsKeys) {
  ModelConfig model = read_config_json(fixture("llama")).model;
  model.pattern = "*--";
  try {
    architecture_of(model);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_config);
    EXPECT_NE(std::string(error.what()).find("model.pattern"), std::string::npos);
  }
}

}  // namespace
}  // namespace nibble
