#include "trainer/plan/memory_changes.h"

#include <fmt/format.h>

#include <array>
#include <optional>

namespace nibble {
namespace {

struct Candidate {
  // Changes the configuration and returns the setting; nothing if it is not for such a run.
  std::optional<std::string> (*change)(RunConfig& config, const PlannedRun& run);
  bool changes_numbers;
};

constexpr int64_t small_head_chunk = 1024;

// In the order in which they are tried: first what costs nothing, then what costs time, then what changes numbers.
constexpr auto candidates = std::to_array<Candidate>({
    {[](RunConfig& config, const PlannedRun&) -> std::optional<std::string> {
       if (!config.telemetry.gradient_probe || config.telemetry.every == 0) return std::nullopt;
       config.telemetry.gradient_probe = false;
       return "telemetry.gradient_probe=false";
     },
     false},
    {[](RunConfig& config, const PlannedRun&) -> std::optional<std::string> {
       if (config.train.recompute == "all") return std::nullopt;
       config.train.recompute = "all";
       return "train.recompute=all";
     },
     false},
    {[](RunConfig& config, const PlannedRun& run) -> std::optional<std::string> {
       if (run.device == nullptr || config.cuda.offload_optimizer) return std::nullopt;
       config.cuda.offload_optimizer = true;
       return "cuda.offload_optimizer=true";
     },
     false},
    {[](RunConfig& config, const PlannedRun& run) -> std::optional<std::string> {
       const auto ranks = static_cast<uint64_t>(run.ranks);
       if (config.gradient_groups() <= ranks) return std::nullopt;
       config.train.gradient_groups = run.ranks;
       config.train.group_micro_batches = 0;
       return fmt::format("train.gradient_groups={}", run.ranks);
     },
     true},
    {[](RunConfig& config, const PlannedRun& run) -> std::optional<std::string> {
       if (run.device == nullptr || run.ranks == 1 || config.comm.reduction == ReductionKind::nccl) return std::nullopt;
       config.comm.reduction = ReductionKind::nccl;
       return "comm.reduction=nccl";
     },
     true},
    {[](RunConfig& config, const PlannedRun&) -> std::optional<std::string> {
       if (config.train.micro_batch_sequences <= 1) return std::nullopt;
       config.train.micro_batch_sequences = 1;
       return "train.micro_batch_sequences=1";
     },
     true},
    {[](RunConfig& config, const PlannedRun& run) -> std::optional<std::string> {
       const int64_t chunk = config.train.head_chunk_tokens;
       if (run.device == nullptr || (chunk > 0 && chunk <= small_head_chunk)) return std::nullopt;
       config.train.head_chunk_tokens = small_head_chunk;
       return fmt::format("train.head_chunk_tokens={}", small_head_chunk);
     },
     true},
    {[](RunConfig& config, const PlannedRun&) -> std::optional<std::string> {
       if (config.optimizer.moment_dtype == DType::bf16) return std::nullopt;
       config.optimizer.moment_dtype = DType::bf16;
       return "optimizer.moment_dtype=bf16";
     },
     true},
    {[](RunConfig& config, const PlannedRun&) -> std::optional<std::string> {
       const bool needed = config.comm.gather != WeightFormat::bf16;  // which rounds beside FP32 masters
       if (needed || config.optimizer.master_dtype == DType::bf16) return std::nullopt;
       config.optimizer.master_dtype = DType::bf16;
       return "optimizer.master_dtype=bf16";
     },
     true},
});

}  // namespace

void find_changes(RunPlan& plan) {
  const PlannedRun& run = plan.run;
  const auto needed_by = [&](const RunConfig& config) { return plan_memory(config, run.ranks, run.device); };
  for (const Candidate& candidate : candidates) {
    RunConfig changed = run.config;
    const std::optional<std::string> setting = candidate.change(changed, run);
    if (!setting) continue;
    const MemoryPlan memory = needed_by(changed);
    if (memory.needed >= plan.memory.needed) continue;
    plan.changes.push_back({*setting, plan.memory.needed - memory.needed, memory.fits(), candidate.changes_numbers});
    if (memory.fits() && plan.fits_with.empty()) plan.fits_with = {*setting};
  }
  if (!plan.fits_with.empty()) return;
  RunConfig changed = run.config;
  uint64_t needed = plan.memory.needed;
  std::vector<std::string> settings;
  for (const Candidate& candidate : candidates) {
    RunConfig next = changed;
    const std::optional<std::string> setting = candidate.change(next, run);
    if (!setting) continue;
    const MemoryPlan memory = needed_by(next);
    if (memory.needed >= needed) continue;
    changed = next;
    needed = memory.needed;
    settings.push_back(*setting);
    if (!memory.fits()) continue;
    plan.fits_with = settings;
    return;
  }
}

}  // namespace nibble
