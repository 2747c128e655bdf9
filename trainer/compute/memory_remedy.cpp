#include "trainer/compute/memory_remedy.h"

#include <fmt/format.h>

#include <algorithm>

#include "trainer/compute/training_model.h"

namespace nibble {

std::vector<MemorySaving> savings_of_model(const RunConfig& config) {
  const uint64_t now = training_model_bytes(config, config.recipe);
  std::vector<MemorySaving> savings;
  const auto add = [&](std::string change, const RunConfig& other) {
    const uint64_t then = training_model_bytes(other, other.recipe);
    savings.push_back({std::move(change), now > then ? now - then : 0});
  };
  RunConfig other = config;
  other.train.recompute = "all";
  add("train.recompute=all", other);
  if (config.train.micro_batch_sequences > 1) {
    other = config;
    other.train.micro_batch_sequences = 1;
    add("train.micro_batch_sequences=1", other);
  }
  return savings;
}

std::string memory_remedy(std::vector<MemorySaving> savings) {
  std::erase_if(savings, [](const MemorySaving& saving) { return saving.bytes == 0; });
  std::ranges::stable_sort(savings, std::ranges::greater(), &MemorySaving::bytes);
  std::string text;
  for (const MemorySaving& saving : savings) {
    text += fmt::format("set {}, which saves {:.1f} MiB; ", saving.change,
                        static_cast<double>(saving.bytes) / (1024.0 * 1024.0));
  }
  return text + (text.empty() ? "take" : "or take") + " a smaller model, or more ranks on more machines";
}

}  // namespace nibble
