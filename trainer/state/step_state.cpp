#include "trainer/state/step_state.h"

#include <fmt/format.h>

#include <algorithm>

namespace nibble {

void StepStates::allocate(const StateMemory& memory) {
  for (const auto& state : states_) state->allocate(memory);
}

void StepStates::attach(LanguageModel& model) {
  for (const auto& state : states_) state->attach(model);
}

void StepStates::begin_attempt(const StepEvent& event) {
  for (const auto& state : states_) state->begin_attempt(event);
}

void StepStates::begin_micro_batch(const StepEvent& event) {
  for (const auto& state : states_) state->begin_micro_batch(event);
}

bool StepStates::reads_gradients(const StepEvent& event) const {
  return std::ranges::any_of(states_, [&](const auto& state) { return state->reads_gradients(event); });
}

void StepStates::end_micro_batch(const StepEvent& event) {
  for (const auto& state : states_) state->end_micro_batch(event);
}

void StepStates::end_slot(const StepEvent& event) {
  for (const auto& state : states_) state->end_slot(event);
}

void StepStates::end_attempt(const StepEvent& event) {
  for (const auto& state : states_) state->end_attempt(event);
}

void StepStates::before_update(const StepEvent& event) {
  for (const auto& state : states_) state->before_update(event);
}

bool StepStates::after_update(const StepEvent& event) {
  bool changed = false;
  for (const auto& state : states_) changed = state->after_update(event) || changed;
  return changed;
}

void StepStates::save(uint64_t steps, StateWriter& writer) const {
  for (const auto& state : states_) state->save(steps, writer);
}

void StepStates::load(const StateReader& reader) {
  for (const auto& state : states_) state->load(reader);
}

std::vector<std::string> StepStates::describe() const {
  std::vector<std::string> lines;
  for (const auto& state : states_) {
    const std::string text = state->describe();
    if (!text.empty()) lines.push_back(fmt::format("{:<10} {}", state->name(), text));
  }
  return lines;
}

}  // namespace nibble
