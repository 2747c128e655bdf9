#include "trainer/recipe_state.h"

namespace nibble {

RecipeState::RecipeState(Arena& arena, Communicator& communicator, const LanguageModel& model)
    : communicator_(communicator), amax_(arena, model.amax_histories(), communicator.size()) {}

void RecipeState::attach(LanguageModel& model) const {
  amax_.attach(model);
}

}  // namespace nibble
