#include "trainer/state/product_check.h"

#include <fmt/format.h>

#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <span>

#include "dist/base/error.h"
#include "dist/base/hash.h"
#include "dist/base/text.h"

namespace nibble {

namespace {

constexpr std::array<LinearProduct, linear_products> all_products{LinearProduct::forward, LinearProduct::grad_input,
                                                                  LinearProduct::grad_weight};

std::string text_of(const nlohmann::json& product) {
  return fmt::format("{} by {} ({})", product.at("format").get<std::string>(), product.at("library").get<std::string>(),
                     product.at("algorithm").get<std::string>());
}

}  // namespace

ProductCheck::ProductCheck(Communicator& communicator, const RunConfig& config, const Schedule& schedule)
    : communicator_(communicator), config_(config), schedule_(schedule) {}

bool ProductCheck::due(uint64_t step) const {
  const auto every = static_cast<uint64_t>(config_.guard.check_products_every);
  return every > 0 && (step + 1) % every == 0;
}

// Returns a random number of the step; `what` tells the numbers of one step apart.
uint64_t ProductCheck::chosen(uint64_t step, uint64_t what) const {
  const std::array<uint64_t, 3> key{config_.run.seed, step, what};
  return hash64(std::as_bytes(std::span(key)));
}

uint64_t ProductCheck::micro_batch(uint64_t step) const {
  return chosen(step, 0) % static_cast<uint64_t>(config_.micro_batches_per_step());
}

Linear& ProductCheck::layer(const LanguageModel& model, uint64_t step) const {
  return *model.linears()[chosen(step, 1) % model.linears().size()];
}

void ProductCheck::begin_micro_batch(const StepEvent& event) {
  if (!checked(event)) return;
  check_ = {.product = all_products[chosen(event.step, 2) % linear_products], .tile = chosen(event.step, 3)};
  layer(event.model, event.step).set_check(&check_);
}

void ProductCheck::end_micro_batch(const StepEvent& event) {
  if (!checked(event)) return;
  Linear& linear = layer(event.model, event.step);
  linear.set_check(nullptr);
  NIBBLE_CHECK(check_.made, "a training pass runs every product");
  const GemmDescription by = linear.describe(check_.product);
  record_ = {.step = event.step + 1,
             .layer = linear.name(),
             .product = std::string(name_of(check_.product)),
             .library = by.library,
             .algorithm = by.algorithm,
             .difference = check_.difference};
}

std::optional<ProductCheckRecord> ProductCheck::collect(uint64_t step) const {
  if (!due(step)) return std::nullopt;
  const int rank = schedule_.lane_of(micro_batch(step));
  const nlohmann::json own = {record_.layer, record_.product, record_.library, record_.algorithm, record_.difference};
  const auto found = nlohmann::json::parse(broadcast_string(communicator_, own.dump(), rank));
  return ProductCheckRecord{.step = step + 1,
                            .layer = found[0],
                            .product = found[1],
                            .library = found[2],
                            .algorithm = found[3],
                            .difference = found[4]};
}

nlohmann::json products_of(const LanguageModel& model, Communicator& communicator, const Schedule& schedule) {
  const int rank = schedule.lane_of(0);  // a rank without micro-batches multiplies nothing
  nlohmann::json layers = nlohmann::json::array();
  if (communicator.rank() == rank) {
    for (const Linear* linear : model.linears()) {
      nlohmann::json layer = {{"name", linear->name()}};
      for (const LinearProduct product : all_products) {
        const GemmDescription by = linear->describe(product);
        layer[std::string(name_of(product))] = {
            {"library", by.library}, {"algorithm", by.algorithm}, {"format", linear->format_of(product)}};
      }
      layers.push_back(std::move(layer));
    }
  }
  return nlohmann::json::parse(broadcast_string(communicator, layers.dump(), rank));
}

std::string summary_of_products(const nlohmann::json& layers) {
  std::vector<std::string> texts;  // one for each layer
  for (const nlohmann::json& layer : layers) {
    std::map<std::string, std::string> products;  // names of products, by how they are multiplied
    for (const LinearProduct product : all_products) {
      std::string& names = products[text_of(layer.at(std::string(name_of(product))))];
      names += fmt::format("{}{}", names.empty() ? "" : ", ", name_of(product));
    }
    std::string& text = texts.emplace_back();
    for (const auto& [how, names] : products) {
      text += fmt::format("{}{}{}", text.empty() ? "" : ", ", products.size() > 1 ? names + " " : "", how);
    }
  }
  return counted(texts, "linear");
}

}  // namespace nibble
