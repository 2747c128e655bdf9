#include "quant/gemm/cuda/gemm_plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <vector>

#include "dist/base/error.h"
#include "dist/base/log.h"

namespace nibble {
namespace {

constexpr std::string_view first_line = "nibble gemm plan 2";
constexpr std::string_view device_label = "device ";
constexpr std::string_view library_label = "library ";

[[noreturn]] void fail(std::string_view line) {
  throw Error(ExitCode::bad_data, fmt::format("the plan of GEMM algorithms has a line that is none: \"{}\"", line),
              "delete the plan; the next run chooses its algorithms anew");
}

// Removes the first line from the text and returns it without its end.
std::string_view take_line(std::string_view& text) {
  const size_t end = text.find('\n');
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return line;
}

std::string_view take_labelled(std::string_view& text, std::string_view label) {
  const std::string_view line = take_line(text);
  if (!line.starts_with(label)) fail(line);
  return line.substr(label.size());
}

template <class Number>
Number take_number(std::string_view& rest, int base, std::string_view line) {
  while (rest.starts_with(' ')) rest.remove_prefix(1);
  Number value{};
  const auto [end, status] = std::from_chars(rest.data(), rest.data() + rest.size(), value, base);
  if (status != std::errc()) fail(line);
  rest.remove_prefix(static_cast<size_t>(end - rest.data()));
  if (!rest.empty() && !rest.starts_with(' ')) fail(line);
  return value;
}

struct PlanLine {
  GemmPlanKey key;
  PlannedAlgorithm algorithm;
};
PlanLine parse_line(std::string_view line) {
  PlanLine parsed;
  std::string_view rest = line;
  for (int64_t& number : parsed.key.numbers) number = take_number<int64_t>(rest, 10, line);
  for (uint64_t& word : parsed.algorithm.words) word = take_number<uint64_t>(rest, 16, line);
  parsed.algorithm.workspace_bytes = take_number<uint64_t>(rest, 10, line);
  if (!rest.empty()) fail(line);
  return parsed;
}

}  // namespace

const PlannedAlgorithm* GemmPlan::find(const GemmPlanKey& key) const {
  const auto found = algorithms_.find(key);
  return found == algorithms_.end() ? nullptr : &found->second;
}

void GemmPlan::keep(const GemmPlanKey& key, const PlannedAlgorithm& algorithm) {
  algorithms_[key] = algorithm;
}

void GemmPlan::forget(const GemmPlanKey& key) {
  algorithms_.erase(key);
}

std::string GemmPlan::text(const GemmPlanOrigin& origin) const {
  std::string text =
      fmt::format("{}\n{}{}\n{}{}\n", first_line, device_label, origin.device, library_label, origin.library_version);
  for (const auto& [key, algorithm] : algorithms_) {
    text += fmt::format("{} {:x} {}\n", fmt::join(key.numbers, " "), fmt::join(algorithm.words, " "),
                        algorithm.workspace_bytes);
  }
  return text;
}

void GemmPlan::read(std::string_view text, const GemmPlanOrigin& origin) {
  const std::string_view version = take_line(text);
  if (version != first_line) {
    if (!version.starts_with("nibble gemm plan ")) fail(version);
    log_warning("the plan of GEMM algorithms is of another version of nibble and is ignored: sums may change");
    return;
  }
  GemmPlanOrigin from;
  from.device = take_labelled(text, device_label);
  std::string_view library = take_labelled(text, library_label);
  from.library_version = take_number<uint64_t>(library, 10, library);
  if (!library.empty()) fail(library);
  std::vector<PlanLine> lines;
  while (!text.empty()) lines.push_back(parse_line(take_line(text)));
  if (from != origin) {
    log_warning(
        "the plan of GEMM algorithms was made on {} with cuBLASLt {}, this is {} with {}: it is ignored, and sums may "
        "change",
        from.device, from.library_version, origin.device, origin.library_version);
    return;
  }
  for (const PlanLine& line : lines) keep(line.key, line.algorithm);
}

}  // namespace nibble
