// What is said of a step whose first attempt was not finite.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "trainer/run/training_session.h"

namespace nibble {

struct StepWarning {
  std::string text;
  nlohmann::json details;  // of the event in metrics.jsonl
};

// `result` has a first attempt.
StepWarning step_warning(uint64_t step, const StepResult& result);

}  // namespace nibble
