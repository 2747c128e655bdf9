// The kinds of blocks, one row each: a pattern names them by their characters. Another kind is a block of its own in
// this room and a row of block_kind.cpp.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/blocks/block.h"
#include "model/config.h"
#include "quant/recipe/recipe.h"

namespace nibble {

struct BlockContext {
  const ModelConfig& config;
  const Recipe& recipe;
  BlockPosition position;
  ParameterTable& table;
};

struct BlockKind {
  char character;
  std::string_view name;
  std::string_view doc;
  // Throws a ModelConfigError, with the key, for sizes that such a block cannot have.
  void (*check)(const ModelConfig& config);
  // Adds the block's parameters to the table.
  std::unique_ptr<Block> (*make)(const BlockContext& context);
  // FLOPs of forward, for one token at full context, beside those of the linear layers.
  double (*flops_per_token)(const ModelConfig& config);
  bool has_positions = false;  // it needs the table of rotary positions
};

std::span<const BlockKind> block_kinds();

// Returns the kinds of the blocks of a pattern without groups, first to last. An empty pattern and a character that
// names no kind throw a ModelConfigError, with the key model.pattern and the character.
std::vector<const BlockKind*> kinds_of(const std::string& pattern);

// Returns whether a block of the model is of the kind with this name. Throws like kinds_of().
bool has_block(const ModelConfig& config, std::string_view kind_name);

// Throws a ModelConfigError with the key and the remedy for unknown pattern characters, heads that do not divide, and
// sizes that are not multiples of 16 (every linear layer's axes are quantised in blocks of 16).
void validate(const ModelConfig& config);

}  // namespace nibble
