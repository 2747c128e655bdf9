// The tensors of nibble's models beside those of Hugging Face's: one table, read in both directions.
//
// A row names a tensor, or the rows of one that are a tensor of their own there (a part of a fused matrix: q, k, v;
// gate, up). No order changes: matrices are [features out, features in] in both, and both rotate the halves of a head
// (model/ops/rope.h). docs/formats.md, "Names of tensors", shows the table.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dist/zero/layout.h"

namespace nibble {

struct NameRule {
  std::string_view theirs;  // "self_attn.q_proj.weight", behind "model.layers.3." where `block` says so
  std::string_view ours;    // "attention.qkv.weight", behind "blocks.6." where `block` says so
  std::string_view part = {};
  // The place of the block in a layer of theirs ("*-": 0 is the attention, 1 the MLP); -1: outside the layers.
  int block = -1;
};

// A family's way of naming: the rules, and the characters of the blocks that make a layer of theirs.
struct NameTable {
  std::span<const NameRule> rules;
  std::string_view layer_pattern;
};
// Llama, Mistral, Qwen2 and Qwen3: a layer is attention and MLP.
extern const NameTable dense_names;

// A tensor of theirs, and the elements of ours that it holds.
struct NamedPart {
  std::string name;
  uint32_t tensor = 0;         // index in Layout::tensors()
  Range elements = {};         // of the tensor
  std::vector<int64_t> shape;  // of theirs
};

// Returns the tensors of theirs that hold a model's parameters, in the order of the rules and of the layers. `layers`
// is their number. A rule whose tensor the layout lacks names nothing: a model without biases has none. Every element
// is named once (NIBBLE_CHECK).
std::vector<NamedPart> named_parts(const NameTable& table, const Layout& layout, int64_t layers);

}  // namespace nibble
