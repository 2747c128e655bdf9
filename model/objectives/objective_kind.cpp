#include "model/objectives/objective_kind.h"

#include <array>

#include "model/objectives/head.h"

namespace nibble {
namespace {

constexpr auto kinds = std::to_array<ObjectiveKind>({
    {"head", "Predicts the next token.", [](const ModelConfig&) { return true; },
     [](const ObjectiveContext& context) -> std::unique_ptr<Objective> {
       return std::make_unique<Head>(context.config, context.recipe, context.sizes, context.embedding_id,
                                     context.table);
     }},
});

}  // namespace

std::span<const ObjectiveKind> objective_kinds() {
  return kinds;
}

}  // namespace nibble
