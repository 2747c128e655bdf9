#include "trainer/memory/rank_memory.h"

#include "model/objectives/head.h"
#include "optim/adamw/adamw.h"
#include "trainer/checkpoint/optimizer_arrays.h"
#include "trainer/compute/training_model.h"

namespace nibble {
namespace {

AdamWConfig adamw_config(const RunConfig::Optimizer& optimizer) {
  return {.beta1 = optimizer.beta1,
          .beta2 = optimizer.beta2,
          .epsilon = optimizer.epsilon,
          .weight_decay = optimizer.weight_decay,
          .master_dtype = optimizer.master_dtype,
          .moment_dtype = optimizer.moment_dtype};
}

std::vector<std::unique_ptr<Optimizer>> make_optimizers(const RunConfig& config, DeviceKind device) {
  AdamWConfig adamw = adamw_config(config.optimizer);
  adamw.offload = offloads_optimizer(config, device);
  std::vector<std::unique_ptr<Optimizer>> optimizers;
  optimizers.push_back(std::make_unique<AdamW>(adamw));
  return optimizers;
}

}  // namespace

int64_t settled_head_chunk(const RunConfig& config, DeviceKind device, bool fresh) {
  const bool decides = config.train.head_chunk_tokens == 0 && device != DeviceKind::cpu && fresh;
  if (!decides) return config.train.head_chunk_tokens;
  return head_chunk_tokens(config.train.micro_batch_sequences * config.model.sequence_length, config.model.vocab_size,
                           device);
}

bool offloads_optimizer(const RunConfig& config, DeviceKind device) {
  return config.cuda.offload_optimizer && device != DeviceKind::cpu;
}

uint64_t bytes_of_late_switch(const RunConfig& config, const LanguageModel& model) {
  if (!config.recipe.late_switch) return 0;
  const uint64_t bytes = model.memory_bytes();
  const uint64_t later = training_model_bytes(config, switched(config.recipe));
  return later > bytes ? later - bytes : 0;
}

RankMemory::RankMemory(const RunConfig& run_config, const Schedule& run_schedule, Communicator& all_ranks,
                       const LanguageModel& model, DeviceKind device)
    : config(run_config),
      schedule(run_schedule),
      ranks(all_ranks),
      layout(model.parameters().layout()),
      owned(contiguous(layout, all_ranks.size())),
      shared("weights and gradients", all_ranks, device),
      device_state("optimizer state", device),
      host_state("state on the CPU"),
      optimizers(make_optimizers(run_config, device), owned, all_ranks.rank()) {}

template <class Build>
void RankMemory::add_line(const char* what, const Arena& arena, const Build& build) {
  const size_t before = arena.mark();
  build();
  if (arena.mark() > before) lines_.push_back({what, arena.mark() - before});
}

void RankMemory::build(const LanguageModel& model, StepStates& states) {
  device_state.release(0);
  host_state.release(0);
  lines_.clear();
  const Arena& of_shared = shared.arena();
  Arena& of_optimizers = offloads_optimizer(config, device_state.device()) ? host_state : device_state;
  add_line("weights", of_shared, [&] { weights = allocate_weights(shared.arena(), layout); });
  add_line("gradients", of_shared,
           [&] { reduction = make_gradient_reduction(config.comm.reduction, shared, ranks, owned, schedule); });
  add_line("moments and masters", of_optimizers, [&] { optimizers.allocate(of_optimizers); });
  add_line("packed weights", of_shared, [&] { gather.emplace(config.comm.gather, shared, owned, ranks.rank()); });
  add_line("losses of the step", device_state, [&] { results.emplace(device_state, schedule, ranks.rank(), model); });
  add_line("remembered on the device", device_state, [&] {
    add_line("remembered on the CPU", host_state,
             [&] { states.allocate({.host = host_state, .device = device_state}); });
  });
}

std::vector<CheckpointArray> RankMemory::checkpoint_arrays() const {
  std::vector<CheckpointArray> arrays{weights_array(weights, owned, ranks.rank())};
  for (CheckpointArray& array : optimizer_arrays(optimizers, layout)) arrays.push_back(std::move(array));
  return arrays;
}

}  // namespace nibble
