// Measures the tokens per second of whole training steps: BF16 and recipes take turns.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

// A Llama model: each layer is an attention and a SwiGLU block, and the head is tied to the embedding.
struct BenchModel {
  std::string name;  // "train/d384"
  int64_t hidden_size = 0, layers = 0, heads = 0, intermediate_size = 0;
  int64_t sequence_length = 0, vocabulary = 0;
  int64_t micro_batch_sequences = 0, tokens_per_step = 0;
};
// Returns the models that docs/performance.md describes. `full` adds one with the dimensions of GPT-2 124M.
std::vector<BenchModel> bench_models(bool quick, bool full);

struct TrainingRate {
  std::string recipe;
  double tokens_per_second = 0;  // median
  double mfu = 0;                // share of measured_peak_flops()
  double ratio = 0;              // median over the rounds of (seconds of BF16) / (own seconds)
};
struct TrainingResult {
  BenchModel model;
  uint64_t parameters = 0;
  int threads = 1;
  std::vector<TrainingRate> rates;  // bf16 first
};

// Measures BF16 and `recipes` (names or files) with the compute threads that are set now. Processor time counts if
// there is one thread, else wall time. Fewer rounds are made if they would exceed `budget_seconds`, but at least three.
TrainingResult measure_training(const BenchModel& model, const std::vector<std::string>& recipes, int rounds,
                                double budget_seconds);

}  // namespace nibble
