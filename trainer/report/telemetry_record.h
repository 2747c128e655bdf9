// The figures that telemetry measures in one step, for every linear layer and operand, and how they are written and
// read (docs/formats.md).
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

// The figures of one operand: x is its source, q its quantised values. Some are NaN if the source is not finite.
struct OperandFigures {
  double relative_error = 0;  // |x - q|^2 / |x|^2
  double underflow = 0;       // share of the elements whose x is not zero but whose q is
  double clipped = 0;         // share of the elements whose x is beyond the largest value of its scale
  double scales_extreme = 0;  // share of the blocks whose scale is zero or the format's largest
  double zeros = 0;           // share of the elements whose q is zero
};

struct LayerFigures {
  std::string name = {};                                                  // the linear layer's name
  std::array<std::optional<OperandFigures>, operand_roles> operand = {};  // by role; set for quantised operands
  // The figures of the weight's gradient over the step's first micro-batch. The last two compare it with the gradient
  // of the probe, if there was one.
  std::optional<double> grad_zero_share = {}, grad_cosine = {}, grad_relative_error = {};
};

struct TelemetryRecord {
  uint64_t step = 0;   // number of updates, this one included
  double seconds = 0;  // time that telemetry took
  std::vector<LayerFigures> layers = {};
  std::optional<double> grad_cosine = {}, grad_relative_error = {};  // over all linear weights together
};

// The names of the figures. All code that writes, reads or shows figures uses these tables.
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

// Convert a record to the event of metrics.jsonl, and back. telemetry_of() throws nlohmann::json::exception.
nlohmann::json to_event(const TelemetryRecord& record);
TelemetryRecord telemetry_of(const nlohmann::json& event);

struct NamedScalar {
  std::string tag;
  double value = 0;
};
// Returns the finite values for TensorBoard: the means over the layers, and for every layer the gradient's cosine and
// the error of forward.x.
std::vector<NamedScalar> scalars_of(const TelemetryRecord& record);

}  // namespace nibble
