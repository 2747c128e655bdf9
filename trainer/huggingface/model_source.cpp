#include "trainer/huggingface/model_source.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <map>

#include "dist/base/error.h"
#include "quant/recipe/glob.h"
#include "trainer/arrays/stored_array.h"
#include "trainer/huggingface/source_kinds.h"

namespace nibble {
namespace {

// The tensors that do not fit, by what is wrong with them.
struct Misfits {
  std::vector<std::string> missing, left_over, misshapen;

  std::string text() const {
    std::vector<std::string> clauses;
    const auto add = [&](const char* what, const std::vector<std::string>& names) {
      if (!names.empty()) clauses.push_back(fmt::format("{}: {}", what, listed(names, names.size())));
    };
    add("missing", missing);
    add("left over", left_over);
    add("of another shape", misshapen);
    return fmt::format("{}", fmt::join(clauses, "; "));
  }
};

}  // namespace

TakenWeights::TakenWeights(const ModelSource& source, const ModelConfig& model, const Layout& layout,
                           const std::string& skip)
    : source_(source), taken_(layout.tensors().size()) {
  const auto skipped = [&](const std::string& name) { return !skip.empty() && glob_matches(skip, name); };
  std::map<std::string, size_t> unused;
  for (size_t i = 0; i < source.tensors().size(); ++i) unused.emplace(source.tensors()[i].name, i);
  Misfits misfits;
  for (NamedPart& part : source.parts(model, layout)) {
    const std::string& own = layout.tensors()[part.tensor].name;
    const auto found = unused.find(part.name);
    const bool leaves_out = skipped(part.name) || skipped(own);
    if (leaves_out) {
      fresh_.push_back(part.name);
    } else if (found == unused.end()) {
      misfits.missing.push_back(part.name);
    } else if (const std::vector<int64_t>& shape = source.tensors()[found->second].shape; shape != part.shape) {
      misfits.misshapen.push_back(
          fmt::format("{} [{}] instead of [{}]", part.name, fmt::join(shape, ", "), fmt::join(part.shape, ", ")));
    } else {
      taken_[part.tensor].push_back({found->second, part});
    }
    if (found != unused.end()) unused.erase(found);
  }
  for (const auto& [name, tensor] : unused) {
    if (!skipped(name)) misfits.left_over.push_back(name);
  }
  const std::string text = misfits.text();
  if (text.empty()) return;
  throw Error(ExitCode::bad_data, fmt::format("{} does not fit the model: tensors {}", source.location(), text),
              "set the keys of the section model as the files have them, or leave tensors out with model.from_skip");
}

void TakenWeights::read(const Placement& owned, int rank, std::span<float> values) const {
  for (const Slice& slice : owned.slices(rank)) {
    for (const Taken& taken : taken_[slice.tensor]) {
      const Range both = intersect(slice.elements, taken.part.elements);
      if (both.empty()) continue;
      const std::span<float> target = values.subspan(slice.at + both.begin - slice.elements.begin, both.count());
      const uint64_t first = both.begin - taken.part.elements.begin;
      source_.read(taken.source_tensor, first, target);
      for (size_t i = 0; i < target.size(); ++i) {
        if (std::isfinite(target[i])) continue;
        throw Error(
            ExitCode::bad_data,
            fmt::format("{}: element {} of {} is {}", source_.location(), first + i, taken.part.name, target[i]),
            "start from weights that are finite");
      }
    }
  }
}

ModelConfig model_at(const std::string& location) {
  if (is_huggingface(location)) return read_config_json(location).model;
  return checkpoint_model(location);
}

std::unique_ptr<ModelSource> open_model_source(Communicator& communicator, const std::string& location) {
  if (is_huggingface(location)) {
    std::unique_ptr<ModelSource> source;
    run_together(communicator, [&] { source = open_huggingface(location); });
    return source;
  }
  return open_checkpoint_source(communicator, location);
}

}  // namespace nibble
