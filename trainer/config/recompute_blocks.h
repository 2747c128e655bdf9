// The key train.recompute: the blocks whose activations are computed again in the backward pass.
#pragma once

#include <string_view>
#include <vector>

#include "trainer/config/run_config.h"

namespace nibble {

// Reads "none", "all" or numbers and ranges like "0,2,5-7" into one flag for each block. Returns an empty list if the
// text has another form or names a block that does not exist.
std::vector<bool> parse_blocks(std::string_view text, size_t blocks);

// Returns one flag for each block of model.pattern, read from train.recompute.
std::vector<bool> recompute_blocks(const RunConfig& config);

}  // namespace nibble
