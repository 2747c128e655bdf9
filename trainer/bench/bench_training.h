// Tokens a second of whole training steps, of a recipe and of BF16 by turns.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

// A Llama: per layer an attention and a SwiGLU block, tied head.
struct BenchModel {
  std::string name;  // "train/d384"
  int64_t hidden_size = 0, layers = 0, heads = 0, intermediate_size = 0;
  int64_t sequence_length = 0, vocabulary = 0;
  int64_t micro_batch_sequences = 0, tokens_per_step = 0;
};
// docs/performance.md describes them. `full` adds one of the dimensions of GPT-2 124M.
std::vector<BenchModel> bench_models(bool quick, bool full);

struct TrainingRate {
  std::string recipe;
  double tokens_per_second = 0;  // median
  double mfu = 0;                // of measured_peak_flops()
  double ratio = 0;              // median over the rounds of (seconds of BF16) / (own seconds)
};
struct TrainingResult {
  BenchModel model;
  uint64_t parameters = 0;
  int threads = 1;
  std::vector<TrainingRate> rates;  // bf16 first
};

// recipes: names or files, beside bf16. budget_seconds: rounds are left out rather than exceed it; three are always
// made. With the compute threads that are set now; by processor time if that is one, else by wall time.
TrainingResult measure_training(const BenchModel& model, const std::vector<std::string>& recipes, int rounds,
                                double budget_seconds);

}  // namespace nibble
