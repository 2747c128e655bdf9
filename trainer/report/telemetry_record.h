// What telemetry has found in one step: figures of every linear layer and operand, and how they are written and read
// (docs/formats.md).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "quant/recipe/operand_role.h"

namespace nibble {

// Of one operand; a source that is not finite makes some of them NaN.
struct OperandFigures {
  double relative_error = 0;  // |x - q|^2 / |x|^2
  double underflow = 0;       // share of x that is not zero but became it
  double clipped = 0;         // share of x beyond the reach of its scale
  double scales_extreme = 0;  // share of the blocks whose scale is zero or the format's largest
  double zeros = 0;           // share of q that is zero
};

struct LayerFigures {
  std::string name = {};                                                  // of the linear layer
  std::array<std::optional<OperandFigures>, operand_roles> operand = {};  // by role; only what is quantised
  // Of the weight's gradient, over the step's first micro-batch. The last two against the probe's, if there was one.
  std::optional<double> grad_zero_share = {}, grad_cosine = {}, grad_relative_error = {};
};

struct TelemetryRecord {
  uint64_t step = 0;   // updates done, this one included
  double seconds = 0;  // that telemetry took
  std::vector<LayerFigures> layers = {};
  std::optional<double> grad_cosine = {}, grad_relative_error = {};  // over all linear weights together
};

// The figures by name: what writes, reads or shows them goes through these tables.
struct OperandFigure {
  std::string_view key, title;
  double OperandFigures::*value;
};
constexpr std::array<OperandFigure, 5> operand_figures = {{
    {"relative_error", "relative error", &OperandFigures::relative_error},
    {"underflow", "underflow", &OperandFigures::underflow},
    {"clipped", "clipped", &OperandFigures::clipped},
    {"scales_extreme", "scales at an extreme", &OperandFigures::scales_extreme},
    {"zeros", "zeros", &OperandFigures::zeros},
}};
struct GradientFigure {
  std::string_view key, title;
  std::optional<double> LayerFigures::*value;
};
constexpr std::array<GradientFigure, 3> gradient_figures = {{
    {"grad_cosine", "cosine with the probe", &LayerFigures::grad_cosine},
    {"grad_relative_error", "relative error against the probe", &LayerFigures::grad_relative_error},
    {"grad_zero_share", "zeros", &LayerFigures::grad_zero_share},
}};

// The event of metrics.jsonl. Reading throws nlohmann::json::exception.
nlohmann::json to_event(const TelemetryRecord& record);
TelemetryRecord telemetry_of(const nlohmann::json& event);

struct NamedScalar {
  std::string tag;
  double value = 0;
};
// For TensorBoard: means over the layers, and of every layer the gradient's cosine and the error of forward.x. Only
// finite values.
std::vector<NamedScalar> scalars_of(const TelemetryRecord& record);

}  // namespace nibble
