// What the keys of operands may not say together, one row a rule.
#include <fmt/format.h>

#include <array>
#include <utility>

#include "quant/recipe/operand_table.h"

namespace nibble {
namespace {

bool is_blocked(const OperandSpec& spec) {
  return traits_of(spec.format).block != 0;
}
bool is_eden(const OperandSpec& spec) {
  return spec.round == Rounding::ms_eden;
}

// What an operand may not say, whatever its role. `what` and `remedy` are called if `is_broken` is true.
struct SpecRule {
  bool (*is_broken)(const OperandSpec& spec);
  std::string (*what)(const OperandSpec& spec);
  std::string_view remedy;
};

bool is_nvfp4(const OperandSpec& spec) {
  return spec.format == Format::nvfp4;
}
bool is_mx(const OperandSpec& spec) {
  return traits_of(spec.format).block_scale == ScaleCode::e8m0;
}
bool is_e2m1(const OperandSpec& spec) {
  return traits_of(spec.format).element == ElementCode::e2m1;
}
// Whether several scales are tried.
bool chooses_scale(const OperandSpec& spec) {
  return spec.scale != ScaleRule::amax && spec.scale != ScaleRule::amax_up && spec.scale != ScaleRule::rms;
}

std::string does_not_know(const OperandSpec& spec, std::string_view setting, std::string_view value = {}) {
  return fmt::format("{} does not know {}{}", name_of(spec.format), setting, value);
}

constexpr auto spec_rules = std::to_array<SpecRule>({
    {[](const OperandSpec& s) {
       return !is_quantized(s.format) && s != OperandSpec{.format = s.format, .from = s.from};
     },
     [](const OperandSpec& s) {
       return fmt::format("{} is not quantised: it has no scale, round or rotate", name_of(s.format));
     },
     "remove those keys, or choose a quantised format"},
    // What only some formats know.
    {[](const OperandSpec& s) { return s.block == BlockShape::square && !is_nvfp4(s); },
     [](const OperandSpec& s) { return does_not_know(s, "square blocks"); }, "it is for nvfp4"},
    {[](const OperandSpec& s) { return s.scale == ScaleRule::amax_up && !is_mx(s); },
     [](const OperandSpec& s) { return does_not_know(s, "scale: ", "amax_up"); }, "it is for mxfp4 and mxfp8"},
    {[](const OperandSpec& s) { return s.scale == ScaleRule::rms && !is_e2m1(s); },
     [](const OperandSpec& s) { return does_not_know(s, "scale: ", "rms"); }, "it is for nvfp4 and mxfp4"},
    {[](const OperandSpec& s) { return chooses_scale(s) && !is_nvfp4(s); },
     [](const OperandSpec& s) { return does_not_know(s, "scale: ", name_of(s.scale)); }, "it is for nvfp4"},
    {[](const OperandSpec& s) { return s.round == Rounding::stochastic && !is_e2m1(s); },
     [](const OperandSpec& s) { return does_not_know(s, "round: ", "stochastic"); }, "it is for nvfp4 and mxfp4"},
    {[](const OperandSpec& s) {
       return (s.round == Rounding::stochastic_published || s.round == Rounding::ms_eden) && !is_nvfp4(s);
     },
     [](const OperandSpec& s) { return does_not_know(s, "round: ", name_of(s.round)); }, "it is for nvfp4"},
    {[](const OperandSpec& s) { return (s.range != 0 || s.ceiling != 0) && !is_nvfp4(s); },
     [](const OperandSpec& s) { return does_not_know(s, "range and ceiling"); }, "it is for nvfp4"},
    {[](const OperandSpec& s) { return s.outer != OuterScale::tensor && !is_nvfp4(s); },
     [](const OperandSpec& s) { return does_not_know(s, "outer: 1x128"); }, "it is for nvfp4"},
    {[](const OperandSpec& s) { return s.history != 0 && is_blocked(s); },
     [](const OperandSpec& s) { return does_not_know(s, "history"); }, "it is for fp8_e4m3 and fp8_e5m2"},
    // What does not go together.
    {[](const OperandSpec& s) {
       return s.rotate != 0 && s.rotate != 16 && s.rotate != 32 && s.rotate != 64 && s.rotate != 128;
     },
     [](const OperandSpec& s) { return fmt::format("a rotation of {} points is not supported", s.rotate); },
     "set rotate: 0, 16, 32, 64 or 128"},
    {[](const OperandSpec& s) { return s.rotations != 1 && (s.rotations != 2 || s.rotate == 0); },
     [](const OperandSpec& s) { return fmt::format("{} rotations of {} points", s.rotations, s.rotate); },
     "set rotations: 1 or 2, and rotate to the number of points"},
    {[](const OperandSpec& s) { return s.rotate == 0 && s.signs != Signs::fixed; },
     [](const OperandSpec&) { return std::string("signs are drawn, but nothing is rotated"); },
     "remove signs, or set rotate"},
    {[](const OperandSpec& s) { return s.block == BlockShape::square && s.rotate != 0; },
     [](const OperandSpec&) { return std::string("square blocks are rotated"); },
     "a rotation acts along the inner axis only: use block: 1x16, or rotate: 0"},
    {[](const OperandSpec& s) { return s.history < 0 || s.history > largest_history; },
     [](const OperandSpec& s) { return fmt::format("a history of {} steps", s.history); }, "use 0 to 1024"},
    {[](const OperandSpec& s) { return !is_eden(s) && s.correction != EdenCorrection::post_hoc; },
     [](const OperandSpec&) { return std::string("a correction, but no ms_eden"); }, "set round: ms_eden"},
    {[](const OperandSpec& s) {
       return is_eden(s) && (s.scale != ScaleRule::amax || s.block != BlockShape::row || s.outer != OuterScale::tensor);
     },
     [](const OperandSpec&) { return std::string("ms_eden chooses its scales itself"); },
     "use scale: amax, block: 1x16, outer: tensor with round: ms_eden"},
    {[](const OperandSpec& s) { return s.outer != OuterScale::tensor && s.block != BlockShape::row; },
     [](const OperandSpec&) { return std::string("outer: 1x128 with square blocks"); },
     "use block: 1x16 or outer: tensor"},
    {[](const OperandSpec& s) {
       return s.scale == ScaleRule::rms && (s.block != BlockShape::row || s.round != Rounding::nearest);
     },
     [](const OperandSpec&) {
       return std::string("scale: rms clips: it is for rows of blocks that are rounded to nearest");
     },
     "use block: 1x16, round: nearest"},
    {[](const OperandSpec& s) { return chooses_scale(s) && s.round == Rounding::stochastic_published; },
     [](const OperandSpec&) { return std::string("stochastic_published with a choice of scales"); },
     "use round: stochastic or scale: amax"},
    {[](const OperandSpec& s) { return s.scale == ScaleRule::search && s.round == Rounding::stochastic; },
     [](const OperandSpec&) { return std::string("scale: search with noise"); },
     "a scale searched for after the fact makes stochastic rounding biased: use scale: amax"},
    {[](const OperandSpec& s) { return s.range != 0 && (s.range < 1 || s.range > 8); },
     [](const OperandSpec& s) { return fmt::format("a range of {}", s.range); },
     "use 1 to 8; the largest E2M1 magnitude is 6"},
    {[](const OperandSpec& s) { return s.ceiling != 0 && (s.ceiling < 1 || s.ceiling > 448); },
     [](const OperandSpec& s) { return fmt::format("a ceiling of {}", s.ceiling); },
     "use 1 to 448, the largest E4M3 number"},
});

bool is_forward(OperandRole role) {
  return role == OperandRole::forward_x || role == OperandRole::forward_w;
}

// What an operand may not say in its role.
struct RoleRule {
  bool (*is_broken)(const OperandSpec& spec, OperandRole role);
  std::string_view what;  // after the operand's name
  std::string_view remedy;
};

constexpr auto role_rules = std::to_array<RoleRule>({
    {[](const OperandSpec& s, OperandRole) { return is_eden(s) && !has_drawn_signs(s); },
     ": round: ms_eden without drawn signs is biased: nothing but the rotation is random",
     "set rotate: 128 and signs: micro_batch (or step), for both operands of the product"},
    {[](const OperandSpec& s, OperandRole role) { return is_forward(role) && s.signs == Signs::micro_batch; },
     ": signs: micro_batch, but the forward weight is made once a step",
     "set signs: step (or fixed), for both operands of forward"},
    {[](const OperandSpec& s, OperandRole role) {
       return s.from == Source::saved && role != OperandRole::grad_input_w && role != OperandRole::grad_weight_x;
     },
     " cannot be made from a saved operand",
     "only grad_input.w and grad_weight.x have a forward operand; use from: original"},
});

// A rotation that only one of the two operands of a GEMM has would not cancel in the product.
struct RotationRule {
  std::string_view key;
  bool (*differs)(const OperandSpec& a, const OperandSpec& b);
};

constexpr auto rotation_rules = std::to_array<RotationRule>({
    {"rotate", [](const OperandSpec& a, const OperandSpec& b) { return a.rotate != b.rotate; }},
    {"rotations", [](const OperandSpec& a, const OperandSpec& b) { return a.rotations != b.rotations; }},
    {"signs", [](const OperandSpec& a, const OperandSpec& b) { return a.signs != b.signs; }},
});

std::optional<RecipeFault> rotation_fault(const LinearRecipe& recipe, OperandRole role, OperandRole other) {
  const OperandSlot& slot = operand_slots[static_cast<size_t>(role)];
  const OperandSlot& other_slot = operand_slots[static_cast<size_t>(other)];
  const OperandSpec& a = spec_of(recipe, role);
  const OperandSpec& b = spec_of(recipe, other);
  for (const RotationRule& rule : rotation_rules) {
    if (!rule.differs(a, b)) continue;
    const OperandKey& key = *find_operand_key(rule.key);
    return RecipeFault{
        role, other,
        fmt::format("{}: {} and {} differ in {}: {} and {}", slot.gemm(), slot.operand(), other_slot.operand(), key.key,
                    key.text(a), key.text(b)),
        fmt::format("the rotation cancels only if both operands have it: give both the same {}", key.key)};
  }
  return {};
}

std::optional<RecipeFault> saved_fault(const LinearRecipe& recipe, OperandRole role, OperandRole forward) {
  if (spec_of(recipe, role).from != Source::saved) return {};
  const OperandSpec& source = spec_of(recipe, forward);
  const auto fault = [&](std::string_view state, std::string_view remedy) {
    return RecipeFault{role, forward,
                       fmt::format("{} is made from the saved forward operand, which is {}", name_of(role), state),
                       fmt::format("set from: original for {}, or {}", name_of(role), remedy)};
  };
  if (!is_quantized(source.format)) return fault("not quantised", "quantise the forward operand");
  if (source.rotate != 0) return fault("rotated", "rotate: 0 in forward");
  return {};
}

}  // namespace

std::optional<RecipeFault> find_fault(const OperandSpec& spec) {
  for (const SpecRule& rule : spec_rules) {
    if (!rule.is_broken(spec)) continue;
    return RecipeFault{.what = rule.what(spec), .remedy = std::string(rule.remedy)};
  }
  return {};
}

std::optional<RecipeFault> find_fault(const OperandSpec& spec, OperandRole role) {
  if (std::optional<RecipeFault> fault = find_fault(spec)) {
    fault->role = fault->other = role;
    fault->what = fmt::format("{}: {}", name_of(role), fault->what);
    return fault;
  }
  for (const RoleRule& rule : role_rules) {
    if (!rule.is_broken(spec, role)) continue;
    return RecipeFault{role, role, fmt::format("{}{}", name_of(role), rule.what), std::string(rule.remedy)};
  }
  return {};
}

std::optional<RecipeFault> find_fault(const LinearRecipe& recipe) {
  for (const OperandRole role : all_operand_roles) {
    if (auto fault = find_fault(spec_of(recipe, role), role)) return fault;
  }
  using enum OperandRole;
  for (const auto& [role, other] : {std::pair(forward_x, forward_w), std::pair(grad_input_dy, grad_input_w),
                                    std::pair(grad_weight_dy, grad_weight_x)}) {
    if (auto fault = rotation_fault(recipe, role, other)) return fault;
  }
  if (auto fault = saved_fault(recipe, grad_input_w, forward_w)) return fault;
  return saved_fault(recipe, grad_weight_x, forward_x);
}

}  // namespace nibble
