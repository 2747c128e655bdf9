#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "dist/base/text.h"
#include "trainer/plan/plan_units.h"
#include "trainer/plan/run_plan.h"

namespace nibble {
namespace {

std::string bytes_text(uint64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (value >= 1e10) return fmt::format("{:.1f} GB", value / 1e9);
  if (value >= 1e9) return fmt::format("{:.2f} GB", value / 1e9);
  return fmt::format("{:.1f} MB", value / 1e6);
}

// Returns a number with three digits and a unit that people say: "7.21 billion".
std::string count_text(double value) {
  struct Unit {
    double size;
    const char* name;
  };
  for (const Unit& unit : {Unit{1e12, " trillion"}, Unit{1e9, " billion"}, Unit{1e6, " million"}}) {
    if (value >= unit.size) return fmt::format("{:.3g}{}", value / unit.size, unit.name);
  }
  return with_thousands(static_cast<uint64_t>(std::llround(value)));
}

std::string hours_text(double hours) {
  if (hours < 1.0 / 60) return fmt::format("{:.0f} s", 3600 * hours);
  if (hours < 2) return fmt::format("{:.0f} minutes", 60 * hours);
  return hours < 72 ? fmt::format("{:.1f} hours", hours) : fmt::format("{:.1f} hours ({:.1f} days)", hours, hours / 24);
}

// Returns a number with three digits or more, and no exponent.
std::string plain_number(double value) {
  return value < 100 ? fmt::format("{:.3g}", value) : with_thousands(static_cast<uint64_t>(std::llround(value)));
}

// The lines of a plan: a word in front, and text that is indented below it.
class Lines {
 public:
  template <class... Arguments>
  void add(std::string_view word, fmt::format_string<Arguments...> form, Arguments&&... arguments) {
    std::string rest = fmt::format(form, std::forward<Arguments>(arguments)...);
    while (rest.size() > width) {
      const size_t space = rest.rfind(' ', width);
      if (space == std::string::npos || space == 0) break;
      text_ += fmt::format("{:<12}{}\n", word, rest.substr(0, space));
      rest.erase(0, space + 1);
      word = {};
    }
    text_ += fmt::format("{:<12}{}\n", word, rest);
  }
  void add_bytes(std::string_view what, uint64_t bytes) {
    text_ += fmt::format("{:<12}{:>10}  {}\n", "", bytes_text(bytes), what);
  }
  std::string take() { return std::move(text_); }

 private:
  static constexpr size_t width = 100;  // of the text

  std::string text_;
};

void add_model(const RunPlan& plan, Lines& lines) {
  std::string groups;
  for (const RunPlan::Group& group : plan.groups) {
    groups += fmt::format("{}{} {}", groups.empty() ? "" : ", ", group.what, with_thousands(group.parameters));
  }
  lines.add("parameters", "{}: {}", with_thousands(plan.parameters), groups);
  if (plan.active_parameters != plan.parameters) {
    lines.add("", "{} of them are active for a token", with_thousands(plan.active_parameters));
  }
  if (plan.tensors) {
    lines.add("export", "{} tensors for Hugging Face", *plan.tensors);
  } else {
    lines.add("export", "none for Hugging Face: {}", plan.export_problem);
  }
  lines.add("layers", "{}", plan.layers);
  std::string shares;
  for (const auto& [format, share] : plan.forward_share) {
    shares += fmt::format("{}{} {:.1f} %", shares.empty() ? "" : ", ", format, 100 * share);
  }
  lines.add("formats", "{} of the forward FLOPs, attention and head included", shares);
  lines.add("FLOPs", "{} a token, forward and backward: 6 for each weight of a linear layer and of the head,",
            count_text(plan.flops_per_token));
  lines.add("", "and attention over half of the context; recomputing does not count");
}

void add_memory(const RunPlan& plan, Lines& lines) {
  const MemoryPlan& memory = plan.memory;
  lines.add("memory", "{} for rank 0, planned by the run's own dry run:", bytes_text(memory.total));
  for (const MemoryLine& line : memory.lines) lines.add_bytes(line.what, line.bytes);
  if (memory.on_host > 0) lines.add("", "{} of it lie in memory of the CPU", bytes_text(memory.on_host));
  const uint64_t own = memory.total - memory.on_host;
  if (memory.largest > own + own / 200) {
    lines.add("", "rank {} takes most: {}", memory.largest_rank, bytes_text(memory.largest));
  }
  if (plan.run.device != nullptr) {
    lines.add_bytes("beside it stay free for libraries and NCCL (estimate)", memory.reserve);
    lines.add("", "not counted: what cuDNN's attention asks for beyond this");
  }
  const std::string holder =
      plan.run.device == nullptr ? std::string("this machine") : fmt::format("one {}", plan.run.device->name);
  if (memory.fits()) {
    lines.add("fits", "yes: {} of the {} of {}", bytes_text(memory.needed), bytes_text(memory.available), holder);
    return;
  }
  lines.add("fits", "NO: {} are needed, {} more than the {} of {}", bytes_text(memory.needed),
            bytes_text(memory.missing()), bytes_text(memory.available), holder);
  for (const MemoryChange& change : plan.changes) {
    lines.add("", "  --set {:<33} saves {:>10}{}{}", change.setting, bytes_text(change.saves),
              change.fits ? ": then it fits" : "", change.changes_numbers ? " (changes the numbers of the run)" : "");
  }
  if (plan.fits_with.size() == 1) {
    lines.add("", "the first that suffices: --set {}", plan.fits_with.front());
  } else if (!plan.fits_with.empty()) {
    lines.add("", "it fits with these together:");
    for (const std::string& setting : plan.fits_with) lines.add("", "  --set {}", setting);
  } else {
    lines.add("", "all of them together are not enough: take more ranks, another device or a smaller model");
  }
}

void add_checkpoint(const RunPlan& plan, Lines& lines) {
  const uint64_t at_once = checkpoints_at_once(plan.run.config);
  lines.add("checkpoint", "{}; up to {} are on the disk at once: {}", bytes_text(plan.memory.checkpoint_bytes), at_once,
            bytes_text(at_once * plan.memory.checkpoint_bytes));
}

void add_time(const RunPlan& plan, Lines& lines) {
  const RunConfig& config = plan.run.config;
  const auto tokens = static_cast<double>(plan.tokens());
  lines.add("tokens", "{} steps of {} tokens: {}, {:.1f} a parameter", with_thousands(config.train.steps),
            with_thousands(config.train.tokens_per_step), count_text(tokens),
            tokens / static_cast<double>(plan.parameters));
  lines.add("epochs", "that many tokens over those of the data, which a plan does not read");
  const SpeedEstimate& speed = plan.speed;
  lines.add("speed", "{} tokens/s, MFU {:.0f} % (estimate, not measured)",
            with_thousands(static_cast<uint64_t>(std::llround(speed.tokens_per_second))),
            100 * speed.tokens_per_second * plan.flops_per_token / speed.peak_flops);
  std::string parts;
  for (const SpeedEstimate::Part& part : speed.parts) {
    const double share = part.seconds / speed.step_seconds;
    if (share >= 0.005) parts += fmt::format("{}{} {:.0f} %", parts.empty() ? "" : ", ", part.what, 100 * share);
  }
  lines.add("", "{}", parts);
  lines.add("basis", "{}", speed.basis);
  lines.add("time", "{} (estimate)", hours_text(plan.hours));
  if (plan.energy_kwh) {
    lines.add("energy", "{} kWh ({})", plain_number(*plan.energy_kwh), energy_basis(plan));
  } else {
    lines.add("energy", "{}", energy_basis(plan));
  }
}

}  // namespace

std::string plan_text(const RunPlan& plan) {
  Lines lines;
  lines.add("plan", "recipe {}, {} {} on {}", plan.run.config.recipe.name, plan.run.ranks,
            plan.run.ranks == 1 ? "rank" : "ranks",
            plan.run.device == nullptr ? std::string("this machine's CPU") : std::string(plan.run.device->full_name));
  if (!plan.run.assumed.empty()) lines.add("assumed", "{}", fmt::join(plan.run.assumed, ", "));
  add_model(plan, lines);
  add_memory(plan, lines);
  add_checkpoint(plan, lines);
  add_time(plan, lines);
  return lines.take();
}

}  // namespace nibble
