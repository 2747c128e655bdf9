#include "trainer/bench/bench_training.h"

#include <fmt/format.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "data/shards/shard.h"
#include "dist/base/error.h"
#include "dist/base/file_system.h"
#include "dist/device/thread_pool.h"
#include "dist/ranks/self_communicator.h"
#include "model/cost.h"
#include "trainer/bench/bench_group.h"
#include "trainer/compute/measured_peak.h"
#include "trainer/config/run_config.h"
#include "trainer/run/training_session.h"

namespace nibble {
namespace {

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

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
  std::string pattern;
  for (int64_t layer = 0; layer < model.layers; ++layer) pattern += "*-";
  const std::string text = fmt::format(
      "run: {{dir: unused}}\n"
      "model: {{pattern: \"{}\", vocab_size: {}, hidden_size: {}, query_heads: {}, kv_heads: {}, head_dim: {},\n"
      "  intermediate_size: {}, sequence_length: {}, tied_head: true}}\n"
      "train: {{steps: 1000000, micro_batch_sequences: {}, tokens_per_step: {}}}\n"
      "optimizer: {{learning_rate: 1e-3}}\n"
      "telemetry: {{every: 0}}\n",
      pattern, model.vocabulary, model.hidden_size, model.heads, model.heads, model.hidden_size / model.heads,
      model.intermediate_size, model.sequence_length, model.micro_batch_sequences, model.tokens_per_step);
  return parse_run_config_text(text, "nibble bench",
                               {"recipe=" + recipe, fmt::format("data.train=['{}']", shard.string())});
}

struct Contender {
  std::string recipe;
  std::unique_ptr<TrainingSession> session;
  uint64_t step = 0;
  std::vector<double> seconds = {};

  double train() {
    const auto clock = compute_threads() == 1 ? thread_seconds : wall_seconds;
    const double start = clock();
    session->train_step(step++);
    return clock() - start;
  }
};

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
  std::vector<Contender> contenders;
  const auto enter = [&](const std::string& recipe) {
    const RunConfig config = config_of(model, recipe, data.shard());
    contenders.push_back({config.recipe.name, std::make_unique<TrainingSession>(communicator, config)});
    contenders.back().session->initialize_weights();
    contenders.back().train();  // this step is not measured: it touches memory for the first time
  };
  enter("bf16");
  for (const std::string& recipe : recipes) enter(recipe);

  const double start = wall_seconds();
  constexpr int fewest_rounds = 3;
  for (int round = 0; round < rounds; ++round) {
    const double spent = wall_seconds() - start;
    if (round >= fewest_rounds && spent * (round + 1) / round > budget_seconds) break;
    for (Contender& contender : contenders) contender.seconds.push_back(contender.train());
  }

  TrainingResult result{.model = model, .parameters = 0, .threads = compute_threads(), .rates = {}};
  const ModelCost cost = model_cost(contenders.front().session->config().model);
  result.parameters = cost.parameters;
  const double peak = measured_peak_flops();
  const std::vector<double>& base = contenders.front().seconds;
  for (const Contender& contender : contenders) {
    TrainingRate rate{.recipe = contender.recipe};
    rate.tokens_per_second = static_cast<double>(model.tokens_per_step) / median_of(contender.seconds);
    rate.mfu = cost.training_flops_per_token * rate.tokens_per_second / peak;
    std::vector<double> ratios;
    for (size_t i = 0; i < base.size(); ++i) ratios.push_back(base[i] / contender.seconds[i]);
    rate.ratio = median_of(ratios);
    result.rates.push_back(rate);
  }
  return result;
}

}  // namespace nibble
