// What would make a run fit into memory, said with the keys of its configuration and with what each of them saves.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <vector>

#include "dist/ranks/communicator.h"
#include "trainer/config/run_config.h"

namespace nibble {

struct MemorySaving {
  std::string change;  // "train.recompute=all"
  uint64_t bytes = 0;  // of this rank; 0 = it saves nothing here
};

// Returns what the model's activations and quantised weights would save.
std::vector<MemorySaving> savings_of_model(const RunConfig& config);
// Returns what the gradients would save with fewer groups, if `bytes_of(config)` is what they take in a run with this
// configuration: with a group for each rank, or with one.
template <class BytesOf>
MemorySaving saving_of_groups(const RunConfig& config, int ranks, BytesOf&& bytes_of) {
  const uint64_t now = bytes_of(config);
  MemorySaving best;
  for (const int64_t groups : {int64_t{ranks}, int64_t{1}}) {
    if (static_cast<uint64_t>(groups) >= config.gradient_groups()) continue;
    RunConfig other = config;
    other.train.gradient_groups = groups;
    other.train.group_micro_batches = 0;
    const uint64_t then = bytes_of(other);
    if (then < now && now - then > best.bytes) best = {fmt::format("train.gradient_groups={}", groups), now - then};
  }
  return best;
}

// Returns the remedy of an error for lack of memory: the changes that save something, the largest first.
std::string memory_remedy(std::vector<MemorySaving> savings);

// Runs a function that takes memory. An error for lack of memory gets the remedy that `remedy` returns; an AgreedError
// stays one.
template <class Function, class Remedy>
void explain_lack_of_memory(Function&& function, Remedy&& remedy) {
  try {
    function();
  } catch (const AgreedError& error) {
    if (error.code() != ExitCode::out_of_memory) throw;
    throw AgreedError(error.code(), error.what(), remedy());
  } catch (const Error& error) {
    if (error.code() != ExitCode::out_of_memory) throw;
    throw Error(error.code(), error.what(), remedy());
  }
}

}  // namespace nibble
