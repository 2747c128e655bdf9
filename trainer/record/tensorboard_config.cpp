#include "trainer/record/tensorboard_config.h"

#include <sstream>
#include <string>
#include <vector>

#include "trainer/config/field_table.h"

namespace nibble {

namespace {

// Numbers and truth values keep their type; all others are text.
HyperparameterValue value_of(const Field& field, RunConfig& config) {
  const FieldTarget target = field.target(config);
  if (const auto* number = std::get_if<int64_t*>(&target)) return static_cast<double>(**number);
  if (const auto* number = std::get_if<uint64_t*>(&target)) return static_cast<double>(**number);
  if (const auto* number = std::get_if<double*>(&target)) return **number;
  if (const auto* truth = std::get_if<bool*>(&target)) return **truth;
  return field_text(field, config);
}

// Where a run lies and what it shows are no hyperparameters.
bool is_hyperparameter(const Field& field) {
  return field.resume != ResumeClass::free;
}

}  // namespace

void write_configuration(TensorboardWriter& writer, const RunConfig& config, uint64_t step) {
  std::istringstream yaml(resolved_yaml(config));
  std::string markdown;
  for (std::string line; std::getline(yaml, line);) markdown += "    " + line + "\n";  // four spaces: a block of code
  writer.text("configuration", markdown, step);
  std::vector<Hyperparameter> parameters;
  RunConfig copy = config;
  for (const Field& field : config_fields()) {
    if (is_hyperparameter(field)) parameters.push_back({std::string(field.key), value_of(field, copy)});
  }
  writer.hyperparameters(parameters);
}

}  // namespace nibble
