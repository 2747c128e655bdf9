#include "trainer/huggingface/names.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "dist/base/error.h"

namespace nibble {
namespace {

constexpr std::array dense_rules = {
    NameRule{.theirs = "model.embed_tokens.weight", .ours = "embedding.weight"},
    NameRule{.theirs = "input_layernorm.weight", .ours = "norm.weight", .block = 0},
    NameRule{.theirs = "self_attn.q_proj.weight", .ours = "attention.qkv.weight", .part = "q", .block = 0},
    NameRule{.theirs = "self_attn.k_proj.weight", .ours = "attention.qkv.weight", .part = "k", .block = 0},
    NameRule{.theirs = "self_attn.v_proj.weight", .ours = "attention.qkv.weight", .part = "v", .block = 0},
    NameRule{.theirs = "self_attn.q_proj.bias", .ours = "attention.qkv.bias", .part = "q", .block = 0},
    NameRule{.theirs = "self_attn.k_proj.bias", .ours = "attention.qkv.bias", .part = "k", .block = 0},
    NameRule{.theirs = "self_attn.v_proj.bias", .ours = "attention.qkv.bias", .part = "v", .block = 0},
    NameRule{.theirs = "self_attn.q_norm.weight", .ours = "attention.q_norm.weight", .block = 0},
    NameRule{.theirs = "self_attn.k_norm.weight", .ours = "attention.k_norm.weight", .block = 0},
    NameRule{.theirs = "self_attn.o_proj.weight", .ours = "attention.output.weight", .block = 0},
    NameRule{.theirs = "post_attention_layernorm.weight", .ours = "norm.weight", .block = 1},
    NameRule{.theirs = "mlp.gate_proj.weight", .ours = "mlp.gate_up.weight", .part = "gate", .block = 1},
    NameRule{.theirs = "mlp.up_proj.weight", .ours = "mlp.gate_up.weight", .part = "up", .block = 1},
    NameRule{.theirs = "mlp.down_proj.weight", .ours = "mlp.down.weight", .block = 1},
    NameRule{.theirs = "model.norm.weight", .ours = "norm.weight"},
    NameRule{.theirs = "lm_head.weight", .ours = "head.weight"},
};

// Returns the part of a tensor with this name, or the whole of it for an empty name.
NamedPart part_of(const TensorLayout& tensor, uint32_t index, std::string_view name) {
  NamedPart part{.name = {}, .tensor = index, .elements = {0, tensor.count}, .shape = tensor.shape};
  if (name.empty()) return part;
  const uint64_t row = tensor.count / static_cast<uint64_t>(tensor.shape.front());
  uint64_t begin = 0;
  for (const TensorPart& own : tensor.parts) {
    const uint64_t end = begin + static_cast<uint64_t>(own.rows) * row;
    if (own.name == name) {
      part.elements = {begin, end};
      part.shape.front() = own.rows;
      return part;
    }
    begin = end;
  }
  throw Error(ExitCode::internal, fmt::format("the tensor {} has no part {}", tensor.name, name), "report this");
}

class Namer {
 public:
  explicit Namer(const Layout& layout) : layout_(layout) {}

  void add(const NameRule& rule, const std::string& theirs, const std::string& ours) {
    const TensorLayout* const tensor = layout_.find(ours);
    if (tensor == nullptr) return;
    const auto index = static_cast<uint32_t>(tensor - layout_.tensors().data());
    parts_.push_back(part_of(*tensor, index, rule.part));
    parts_.back().name = theirs;
  }

  std::vector<NamedPart> take() {
    uint64_t named = 0, all = 0;
    for (const NamedPart& part : parts_) named += part.elements.count();
    for (const TensorLayout& tensor : layout_.tensors()) all += tensor.count;
    NIBBLE_CHECK(named == all, "a parameter has no name in Hugging Face's models");
    return std::move(parts_);
  }

 private:
  const Layout& layout_;
  std::vector<NamedPart> parts_;
};

}  // namespace

const NameTable dense_names = {.rules = dense_rules, .layer_pattern = "*-"};

std::vector<NamedPart> named_parts(const NameTable& table, const Layout& layout, int64_t layers) {
  Namer namer(layout);
  const auto in_layer = [](const NameRule& rule) { return rule.block >= 0; };
  const auto first = std::find_if(table.rules.begin(), table.rules.end(), in_layer);
  const auto last = std::find_if_not(first, table.rules.end(), in_layer);
  const auto blocks = static_cast<int64_t>(table.layer_pattern.size());
  const auto add_outside = [&](auto begin, auto end) {
    for (auto rule = begin; rule != end; ++rule) {
      namer.add(*rule, std::string(rule->theirs), std::string(rule->ours));
    }
  };
  add_outside(table.rules.begin(), first);
  for (int64_t layer = 0; layer < layers; ++layer) {
    for (auto rule = first; rule != last; ++rule) {
      namer.add(*rule, fmt::format("model.layers.{}.{}", layer, rule->theirs),
                fmt::format("blocks.{}.{}", layer * blocks + rule->block, rule->ours));
    }
  }
  add_outside(last, table.rules.end());
  return namer.take();
}

}  // namespace nibble
