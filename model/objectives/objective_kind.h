// The kinds of objectives, one row each, in the order in which a model has them. Another kind is a file beside head.h
// and a row of objective_kind.cpp.
#pragma once

#include <memory>
#include <span>
#include <string_view>

#include "model/config.h"
#include "model/layers/parameter.h"
#include "model/objectives/objective.h"
#include "quant/recipe/recipe.h"

namespace nibble {

struct ObjectiveContext {
  const ModelConfig& config;
  const Recipe& recipe;
  const ObjectiveSizes& sizes;
  uint32_t embedding_id = 0;
  ParameterTable& table;
};

struct ObjectiveKind {
  std::string_view bucket;  // name of its bucket of parameters
  std::string_view doc;
  bool (*present)(const ModelConfig& config);
  // Adds the objective's parameters to the table.
  std::unique_ptr<Objective> (*make)(const ObjectiveContext& context);
};

std::span<const ObjectiveKind> objective_kinds();

}  // namespace nibble
