// Watches the products of linear layers while a run trains. Every guard.check_products_every steps, one product of one
// layer in one micro-batch, which the step's key chooses for all numbers of ranks alike, is compared with the exact one
// of the same operands (quant/gemm/gemm_check.h). It finds memory, processors and libraries that have begun to compute
// wrong numbers. A step with a check has the same bits as one without.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "dist/ranks/communicator.h"
#include "dist/zero/schedule.h"
#include "model/language_model.h"
#include "trainer/config/run_config.h"
#include "trainer/state/step_state.h"

namespace nibble {

struct ProductCheckRecord {
  uint64_t step = 0;  // counted from 1
  std::string layer;
  std::string product;             // "grad_weight"
  std::string library, algorithm;  // of GemmDescription
  std::string difference;          // empty: none was found
};

class ProductCheck final : public StepState {
 public:
  ProductCheck(Communicator& communicator, const RunConfig& config, const Schedule& schedule);

  std::string_view name() const override { return "product_check"; }
  void begin_micro_batch(const StepEvent& event) override;
  void end_micro_batch(const StepEvent& event) override;
  // Collective; call it after the last attempt at the step. Returns on every rank what was found; nothing on steps
  // without a check.
  std::optional<ProductCheckRecord> collect(uint64_t step) const;

 private:
  bool due(uint64_t step) const;
  // Returns whether a product of this micro-batch is compared.
  bool checked(const StepEvent& event) const { return due(event.step) && event.micro_batch == micro_batch(event.step); }
  uint64_t chosen(uint64_t step, uint64_t what) const;
  Linear& layer(const LanguageModel& model, uint64_t step) const;
  uint64_t micro_batch(uint64_t step) const;

  Communicator& communicator_;
  const RunConfig& config_;
  const Schedule& schedule_;
  LinearCheck check_;
  ProductCheckRecord record_;  // on the rank of the micro-batch
};

// Collective; call it after a step. Returns on every rank who multiplied what: a list of {name, forward, grad_input,
// grad_weight}, one for each linear layer, of which each product is {library, algorithm, format}.
nlohmann::json products_of(const LanguageModel& model, Communicator& communicator, const Schedule& schedule);
// Counts the layers that are multiplied alike: "10 linear: nvfp4 by nibble (exact, avx2); 7 linear: ...".
std::string summary_of_products(const nlohmann::json& layers);

}  // namespace nibble
