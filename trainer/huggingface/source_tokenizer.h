// Whether the shards of a run and the model that it starts from mean the same by their token ids.
#pragma once

#include <filesystem>

#include "dist/base/hash.h"
#include "trainer/huggingface/model_source.h"

namespace nibble {

struct TrainingTokens {
  Hash128 tokenizer;           // as the shards name it; zeros: they do not
  std::filesystem::path file;  // where the tokenizer should be
};

// Throws ExitCode::bad_data if the source's tokenizer has more tokens than its model, or if an id of the shards'
// tokenizer stands for another text than the same id of the source's. Where one of the two is not there, or cannot be
// read, nothing can be compared, and a warning says so.
void check_source_tokenizer(const ModelSource& source, const TrainingTokens& tokens);

}  // namespace nibble
