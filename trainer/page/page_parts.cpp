#include "trainer/page/page_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "dist/base/error.h"
#include "trainer/page/gap_columns.h"
#include "trainer/page/heatmap.h"
#include "trainer/page/step_columns.h"
#include "trainer/report/comparison_text.h"

namespace nibble {

namespace {

// Returns the last `count` parts of a path: "a/run".
std::string last_parts(const std::filesystem::path& path, size_t count) {
  std::filesystem::path result;
  for (auto part = path.end(); part != path.begin() && count > 0; --count)
    result = result.empty() ? *--part : *--part / result;
  return result.string();
}

size_t parts_of(const std::filesystem::path& path) {
  return static_cast<size_t>(std::distance(path.begin(), path.end()));
}

// A list of the sets, the run's first one first.
nlohmann::json validations_of(const RunHistory& history) {
  nlohmann::json sets = nlohmann::json::array();
  std::map<std::string, size_t> places;
  for (const RunHistory::Validation& validation : history.validations) {
    for (const ValidationLoss& loss : validation.losses) {
      const auto [place, is_new] = places.emplace(loss.name, sets.size());
      if (is_new) sets.push_back({{"set", loss.name}});
      nlohmann::json& set = sets[place->second];
      set["step"].push_back(validation.step);
      set["tokens"].push_back(validation.tokens);
      set["seconds"].push_back(short_number(validation.seconds));
      set["loss"].push_back(short_number(loss.loss));
      set["bits_per_byte"].push_back(loss.bits_per_byte ? short_number(*loss.bits_per_byte) : nlohmann::json());
    }
  }
  return sets;
}

// Tokens at a step, for an event that names its step alone.
uint64_t tokens_at(const RunHistory& history, uint64_t step) {
  const auto found = std::lower_bound(history.steps.begin(), history.steps.end(), step,
                                      [](const StepMetrics& each, uint64_t wanted) { return each.step < wanted; });
  if (found != history.steps.end()) return found->tokens;
  return history.steps.empty() ? 0 : history.steps.back().tokens;
}

nlohmann::json event_json(const RunHistory& history, const RunHistory::Event& event) {
  return {{"kind", event.kind},
          {"text", event.text},
          {"step", event.step},
          {"tokens", tokens_at(history, event.step)},
          {"seconds", short_number(event.seconds)}};
}

// All events but checkpoints, of which the last one is a fact of the run. A run with a great many has its last ones.
nlohmann::json events_of(const RunHistory& history) {
  constexpr size_t most = 200;
  nlohmann::json events = nlohmann::json::array();
  for (auto event = history.events.rbegin(); event != history.events.rend() && events.size() < most; ++event) {
    if (event->kind != "checkpoint") events.push_back(event_json(history, *event));
  }
  std::reverse(events.begin(), events.end());
  return events;
}

nlohmann::json last_checkpoint(const RunHistory& history) {
  for (auto event = history.events.rbegin(); event != history.events.rend(); ++event) {
    if (event->kind == "checkpoint") return event->step;
  }
  return nullptr;
}

bool any_without(const std::vector<ShownRun>& runs) {
  return std::any_of(runs.begin(), runs.end(), [](const ShownRun& run) { return !run.configured; });
}

nlohmann::json gap_row(const std::string& name, const std::string& at, const Gap& gap) {
  return {{"run", name},
          {"at", at},
          {"tokens", gap.tokens},
          {"base_loss", short_number(gap.base_loss)},
          {"run_loss", short_number(gap.run_loss)},
          {"absolute", short_number(gap.absolute)},
          {"relative", short_number(gap.relative)}};
}

}  // namespace

std::vector<std::string> unique_names(const std::vector<std::filesystem::path>& directories) {
  std::vector<std::string> names;
  size_t longest = 1;
  for (const auto& directory : directories) longest = std::max(longest, parts_of(directory));
  for (size_t i = 0; i < directories.size(); ++i) {
    size_t count = 1;
    const auto is_shared = [&](size_t other) {
      return directories[other] != directories[i] &&
             last_parts(directories[other], count) == last_parts(directories[i], count);
    };
    for (; count < longest; ++count) {
      bool shared = false;
      for (size_t other = 0; other < directories.size(); ++other) shared = shared || is_shared(other);
      if (!shared) break;
    }
    names.push_back(last_parts(directories[i], count));
  }
  std::set<std::string> taken;
  for (std::string& name : names) {
    const std::string plain = name;
    for (size_t number = 2; !taken.insert(name).second; ++number) name = fmt::format("{} ({})", plain, number);
  }
  return names;
}

size_t most_rows(size_t runs) {
  if (runs <= 4) return 1000;
  return runs <= 10 ? 500 : 300;
}

nlohmann::json page_part(const std::string& kind, const std::vector<ShownRun>& runs,
                         const std::vector<ShownPair>& pairs) {
  nlohmann::json names = nlohmann::json::array();
  nlohmann::json indexes = nlohmann::json::array();
  std::string title;
  for (const ShownRun& run : runs) {
    names.push_back(run.name);
    if (names.size() <= 3) title += (title.empty() ? "" : ", ") + run.name;
  }
  if (runs.size() > 3) title += fmt::format(" and {} more", runs.size() - 3);
  for (const ShownPair& pair : pairs) indexes.push_back({pair.base, pair.run});
  return {{"title", title}, {"kind", kind}, {"runs", names}, {"pairs", indexes}};
}

nlohmann::json run_part(const ShownRun& shown, size_t rows) {
  const RunHistory& history = shown.run->history;
  const std::vector<StepMetrics>& steps = history.steps;
  const Thinning thinning = thinning_of(steps.size(), rows);
  const nlohmann::json facts = history.run.empty() ? nlohmann::json::object() : nlohmann::json::parse(history.run);
  nlohmann::json part = {
      {"name", shown.name},
      {"directory", shown.run->directory.string()},
      {"message", shown.message},
      {"recipe", facts.value("recipe", shown.configured ? shown.run->config.recipe.name : "")},
      {"steps", facts.value("steps", uint64_t{0})},
      {"step", steps.empty() ? 0 : steps.back().step},
      {"tokens", steps.empty() ? 0 : steps.back().tokens},
      {"seconds", short_number(history.seconds)},
      {"last_time", history.last_time},
      {"stride", thinning.stride},
      {"skipped", std::count_if(steps.begin(), steps.end(), [](const StepMetrics& step) { return !step.applied; })},
      {"retried", std::count_if(steps.begin(), steps.end(), [](const StepMetrics& step) { return step.retried; })},
      {"recent", step_columns(steps, thinning, thinning.recent, steps.size())},
      {"validations", validations_of(history)},
      {"events", events_of(history)},
      {"checkpoint", last_checkpoint(history)}};
  if (shown.configured) part["seed"] = shown.run->config.run.seed;
  for (const char* key : {"parameters", "ranks", "nibble", "tokens_per_step"}) {
    if (facts.contains(key)) part[key] = facts[key];
  }
  return part;
}

nlohmann::json steps_part(const ShownRun& shown, size_t rows) {
  const auto& steps = shown.run->history.steps;
  const Thinning thinning = thinning_of(steps.size(), rows);
  return step_columns(steps, thinning, 0, thinning.recent);
}

nlohmann::json telemetry_part(const ShownRun& shown) {
  const std::optional<Heatmap> heatmap = make_heatmap(shown.run->history.telemetry);
  return heatmap ? heatmap_json(*heatmap) : nlohmann::json();
}

nlohmann::json gap_part(const ShownRun& base, const ShownRun& run, size_t rows) {
  nlohmann::json part = gap_columns(*base.run, *run.run, rows);
  part["obstacles"] =
      base.configured && run.configured ? comparison_obstacles(*base.run, *run.run) : std::vector<std::string>();
  return part;
}

nlohmann::json configuration_part(const std::vector<ShownRun>& runs) {
  nlohmann::json rows = nlohmann::json::array();
  if (any_without(runs) && runs.size() == 1) return {{"rows", rows}, {"different", false}};
  if (runs.size() == 1) {
    for (const ConfigDifference& each : config_differences(RunConfig{}, runs.front().run->config)) {
      if (each.key != "run.dir") rows.push_back({{"key", each.key}, {"values", {each.after}}});
    }
    return {{"rows", rows}, {"different", false}};
  }
  const auto first = std::find_if(runs.begin(), runs.end(), [](const ShownRun& run) { return run.configured; });
  std::map<std::string, std::vector<std::string>> values;
  for (size_t i = 0; i < runs.size(); ++i) {
    if (!runs[i].configured) continue;
    for (const ConfigDifference& each : differences_of(*first->run, *runs[i].run)) {
      auto& row = values[each.key];
      if (row.empty()) {
        for (const ShownRun& run : runs) row.push_back(run.configured ? each.before : "");
      }
      row[i] = each.after;
    }
  }
  for (const auto& [key, row] : values) rows.push_back({{"key", key}, {"values", row}});
  return {{"rows", rows}, {"different", true}};
}

nlohmann::json comparison_part(const std::vector<ShownRun>& runs, const std::vector<ShownPair>& pairs,
                               const std::optional<SeedGap>& seed_gap) {
  nlohmann::json rows = nlohmann::json::array();
  nlohmann::json sentences = nlohmann::json::array();
  for (const ShownPair& pair : pairs) {
    const ShownRun& base = runs[pair.base];
    const ShownRun& run = runs[pair.run];
    try {
      const Comparison comparison = compare_runs(*base.run, *run.run);
      for (const Gap& gap : comparison.fractions) rows.push_back(gap_row(run.name, "training", gap));
      for (const ValidationGap& each : comparison.last_validations()) {
        rows.push_back(gap_row(run.name, each.set.empty() ? "validation" : "validation " + each.set, each.gap));
      }
      for (const std::string& text : {fork_text(comparison), equal_loss_text(*base.run, *run.run, comparison)}) {
        if (!text.empty()) sentences.push_back(text);
      }
    } catch (const Error& error) {
      sentences.push_back(std::string(error.what()) + ".");
    }
  }
  if (!pairs.empty()) {
    sentences.push_back(seed_gap ? "Gap in validation loss: " + seed_gap_text(*seed_gap, pairs.size()) + "."
                                 : one_seed_text() + ".");
  }
  return {{"rows", rows}, {"sentences", sentences}};
}

PageParts all_parts(const std::string& kind, const std::vector<ShownRun>& runs, const std::vector<ShownPair>& pairs,
                    const std::optional<SeedGap>& seed_gap) {
  const size_t rows = most_rows(runs.size());
  PageParts parts;
  parts["page"] = page_part(kind, runs, pairs);
  for (size_t i = 0; i < runs.size(); ++i) {
    parts[fmt::format("run-{}", i)] = run_part(runs[i], rows);
    parts[fmt::format("steps-{}", i)] = steps_part(runs[i], rows);
    parts[fmt::format("telemetry-{}", i)] = telemetry_part(runs[i]);
  }
  for (size_t i = 0; i < pairs.size(); ++i) {
    parts[fmt::format("gap-{}", i)] = gap_part(runs[pairs[i].base], runs[pairs[i].run], rows);
  }
  parts["configuration"] = configuration_part(runs);
  parts["comparison"] = comparison_part(runs, pairs, seed_gap);
  return parts;
}

}  // namespace nibble
