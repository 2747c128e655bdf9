#include "trainer/report/telemetry_record.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "trainer/report/json_number.h"

namespace nibble {
namespace {

void write_optional(nlohmann::json& object, std::string_view key, const std::optional<double>& value) {
  if (value) object[std::string(key)] = *value;
}

std::optional<double> read_optional(const nlohmann::json& object, std::string_view key) {
  const std::string name(key);
  return object.contains(name) ? std::optional(number_in(object, name.c_str())) : std::nullopt;
}

nlohmann::json to_json(const LayerFigures& layer) {
  nlohmann::json operands = nlohmann::json::object();
  for (const OperandRole role : all_operand_roles) {
    const auto& figures = layer.operand[static_cast<size_t>(role)];
    if (!figures) continue;
    nlohmann::json& operand = operands[std::string(name_of(role))];
    for (const OperandFigure& figure : operand_figures) operand[std::string(figure.key)] = (*figures).*(figure.value);
  }
  nlohmann::json object = {{"name", layer.name}, {"operands", operands}};
  for (const GradientFigure& figure : gradient_figures) write_optional(object, figure.key, layer.*(figure.value));
  return object;
}

LayerFigures layer_of(const nlohmann::json& object) {
  LayerFigures layer{.name = object.at("name")};
  const nlohmann::json& operands = object.at("operands");
  for (const OperandRole role : all_operand_roles) {
    const auto found = operands.find(std::string(name_of(role)));
    if (found == operands.end()) continue;
    OperandFigures& figures = layer.operand[static_cast<size_t>(role)].emplace();
    for (const OperandFigure& figure : operand_figures) {
      figures.*(figure.value) = number_in(*found, std::string(figure.key).c_str());
    }
  }
  for (const GradientFigure& figure : gradient_figures) layer.*(figure.value) = read_optional(object, figure.key);
  return layer;
}

// The mean of the values that are finite.
class Mean {
 public:
  void add(double value) {
    if (!std::isfinite(value)) return;
    sum_ += value;
    ++count_;
  }
  void write(std::string tag, std::vector<NamedScalar>& scalars) const {
    if (count_ > 0) scalars.push_back({std::move(tag), sum_ / static_cast<double>(count_)});
  }

 private:
  double sum_ = 0;
  int64_t count_ = 0;
};

void write_finite(std::string tag, const std::optional<double>& value, std::vector<NamedScalar>& scalars) {
  if (value && std::isfinite(*value)) scalars.push_back({std::move(tag), *value});
}

}  // namespace

nlohmann::json to_event(const TelemetryRecord& record) {
  nlohmann::json layers = nlohmann::json::array();
  for (const LayerFigures& layer : record.layers) layers.push_back(to_json(layer));
  nlohmann::json event = {
      {"event", "telemetry"}, {"step", record.step}, {"seconds", record.seconds}, {"layers", layers}};
  write_optional(event, "grad_cosine", record.grad_cosine);
  write_optional(event, "grad_relative_error", record.grad_relative_error);
  return event;
}

TelemetryRecord telemetry_of(const nlohmann::json& event) {
  TelemetryRecord record{.step = event.at("step"),
                         .seconds = number_in(event, "seconds"),
                         .layers = {},
                         .grad_cosine = read_optional(event, "grad_cosine"),
                         .grad_relative_error = read_optional(event, "grad_relative_error")};
  for (const nlohmann::json& layer : event.at("layers")) record.layers.push_back(layer_of(layer));
  return record;
}

std::vector<NamedScalar> scalars_of(const TelemetryRecord& record) {
  std::vector<NamedScalar> scalars;
  for (const OperandRole role : all_operand_roles) {
    for (const OperandFigure& figure : operand_figures) {
      Mean mean;
      for (const LayerFigures& layer : record.layers) {
        const auto& figures = layer.operand[static_cast<size_t>(role)];
        if (figures) mean.add((*figures).*(figure.value));
      }
      mean.write(fmt::format("telemetry/{}/{}", figure.key, name_of(role)), scalars);
    }
  }
  Mean zero_share;
  for (const LayerFigures& layer : record.layers) {
    if (layer.grad_zero_share) zero_share.add(*layer.grad_zero_share);
  }
  zero_share.write("telemetry/grad_zero_share", scalars);
  write_finite("telemetry/grad_cosine", record.grad_cosine, scalars);
  write_finite("telemetry/grad_relative_error", record.grad_relative_error, scalars);
  for (const LayerFigures& layer : record.layers) {
    write_finite("telemetry_layers/grad_cosine/" + layer.name, layer.grad_cosine, scalars);
    const auto& forward_x = layer.operand[static_cast<size_t>(OperandRole::forward_x)];
    if (!forward_x) continue;
    write_finite("telemetry_layers/forward.x_relative_error/" + layer.name, forward_x->relative_error, scalars);
  }
  return scalars;
}

}  // namespace nibble
