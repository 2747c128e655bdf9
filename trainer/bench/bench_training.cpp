#include "trainer/bench/bench_training.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "data/shards/shard.h"
#include "dist/base/error.h"
#include "dist/base/file_descriptor.h"
#include "dist/base/file_system.h"
#include "dist/device/thread_pool.h"
#include "dist/ranks/self_communicator.h"
#include "model/cost.h"
#include "trainer/bench/timing.h"
#include "trainer/compute/measured_peak.h"
#include "trainer/config/run_config.h"
#include "trainer/run/training_session.h"

namespace nibble {
namespace {

// A shard of made-up tokens; the destructor removes the file.
class MadeUpData {
 public:
  explicit MadeUpData(int64_t vocabulary) {
    std::string name = (std::filesystem::temp_directory_path() / "nibble-bench-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) fail_system_call("create", name, errno);
    directory_ = name;
    ShardHeader format;
    format.vocab_size = static_cast<uint32_t>(vocabulary);
    format.tokenizer = hash128("nibble bench");
    ShardWriter writer(shard(), format);
    std::vector<int32_t> ids(size_t{1} << 17);
    for (size_t i = 0; i < ids.size(); ++i) {
      ids[i] = static_cast<int32_t>(1 + (i * 2654435761U >> 7) % (static_cast<uint64_t>(vocabulary) - 1));
    }
    writer.add_document(ids);
    writer.publish();
  }
  ~MadeUpData() { remove_tree(directory_); }
  MadeUpData(const MadeUpData&) = delete;
  MadeUpData& operator=(const MadeUpData&) = delete;

  std::filesystem::path shard() const { return directory_ / "train.bin"; }

 private:
  std::filesystem::path directory_;
};

RunConfig config_of(const BenchModel& model, const std::string& recipe, const std::filesystem::path& shard) {
  const std::string text = fmt::format(
      "run: {{dir: unused}}\n"
      "model: {{pattern: \"(*-)x{}\", vocab_size: {}, hidden_size: {}, query_heads: {}, kv_heads: {}, head_dim: {},\n"
      "  intermediate_size: {}, sequence_length: {}, tied_head: true}}\n"
      "train: {{steps: 1000000, micro_batch_sequences: {}, tokens_per_step: {}}}\n"
      "optimizer: {{learning_rate: 1e-3}}\n"
      "telemetry: {{every: 0}}\n",
      model.layers, model.vocabulary, model.hidden_size, model.heads, model.heads, model.hidden_size / model.heads,
      model.intermediate_size, model.sequence_length, model.micro_batch_sequences, model.tokens_per_step);
  return parse_run_config_text(text, "nibble bench",
                               {{.key = "recipe", .value = recipe, .source = "--recipe"},
                                {.key = "data.train", .value = shard.string(), .source = "the made-up data"}});
}

}  // namespace

std::vector<BenchModel> bench_models(bool quick, bool full) {
  std::vector<BenchModel> models;
  const auto add = [&](const char* name, int64_t hidden, int64_t layers, int64_t heads, int64_t intermediate,
                       int64_t vocabulary) {
    constexpr int64_t length = 256;
    models.push_back({name, hidden, layers, heads, intermediate, length, vocabulary, 8, quick ? 2048 : 8192});
  };
  add("train/d128", 128, 4, 4, 384, 2048);
  if (!quick) {
    add("train/d256", 256, 4, 4, 768, 2048);
    add("train/d384", 384, 6, 6, 1024, 4096);
  }
  if (full) models.push_back({"train/gpt2_124m", 768, 12, 12, 2048, 64, 50304, 4, 256});
  return models;
}

TrainingResult measure_training(const BenchModel& model, const std::vector<std::string>& recipes, int rounds,
                                double budget_seconds) {
  const MadeUpData data(model.vocabulary);
  SelfCommunicator communicator;
  std::vector<std::unique_ptr<TrainingSession>> sessions;
  std::vector<TimedCase> cases;
  const auto enter = [&](const std::string& recipe) {
    const RunConfig config = config_of(model, recipe, data.shard());
    sessions.push_back(std::make_unique<TrainingSession>(communicator, config));
    TrainingSession& session = *sessions.back();
    session.initialize_weights();
    cases.push_back({.name = config.recipe.name,
                     .work = static_cast<double>(model.tokens_per_step),
                     .run = [&session, step = uint64_t{0}]() mutable { session.train_step(step++); }});
  };
  enter("bf16");
  for (const std::string& recipe : recipes) enter(recipe);
  const std::vector<std::vector<double>> seconds =
      time_by_turns(cases, {.rounds = rounds, .budget_seconds = budget_seconds});

  TrainingResult result{.model = model, .parameters = 0, .threads = compute_threads(), .rates = {}};
  const ModelCost cost = model_cost(sessions.front()->config().model);
  result.parameters = cost.parameters;
  const double peak = measured_peak_flops();
  for (size_t i = 0; i < cases.size(); ++i) {
    TrainingRate rate{.recipe = cases[i].name};
    rate.tokens_per_second = cases[i].work / median_of(seconds[i]);
    rate.mfu = cost.training_flops_per_token * rate.tokens_per_second / peak;
    rate.ratio = median_ratio(seconds.front(), seconds[i]);
    result.rates.push_back(rate);
  }
  return result;
}

}  // namespace nibble
