// The six operands of a linear layer: memory for them, and their making as the recipe says. Weight operands are made
// once after each change of the weights (or for every micro-batch, if their signs are drawn for each). The activation
// operand of the weight gradient is made in forward, so that a quantised layer does not need its input again. Two
// operands of one tensor are made in one read of it. quant/recipe/operand_role.h tells how random bits are keyed.
// Implemented in operand_pipeline.cpp; the memory plan is operand_pipeline_memory.cpp.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/layers/layer_arenas.h"
#include "model/layers/outlier_channels.h"
#include "model/layers/step_context.h"
#include "quant/quantize/quantize.h"
#include "quant/quantize/statistics.h"
#include "quant/recipe/operand_role.h"
#include "quant/recipe/recipe.h"

namespace nibble {

struct LinearDescription {
  std::string name;        // the name that the recipe's rules match
  uint32_t weight_id = 0;  // tensor id of the weight [features_out, features_in]
  int64_t features_in = 0;
  int64_t features_out = 0;
  DType dtype = DType::bf16;  // of weights and activations
  LinearRecipe recipe;
  OperandLocations locations = {};  // where the recipe states each operand, for messages
  std::optional<OutlierRule> outliers = {};
};

// Statistics by operand role. `made` is false for operands that no pass has made, or that are not quantised.
struct LinearStatistics {
  std::array<OperandStatistics, operand_roles> operand;
  std::array<bool, operand_roles> made{};
  double seconds = 0;  // time that measuring took
};

// The input of a forward pass.
struct PipelineInput {
  Tensor x;  // [tokens, features_in]
  StepContext context;
  bool keep = false;                              // make what backward needs
  bool product = true;                            // make what the forward product needs
  std::span<const OperandSegment> segments = {};  // as in LinearForward
};

class OperandPipeline {
 public:
  // Throws ExitCode::bad_config for a recipe that a layer cannot follow.
  explicit OperandPipeline(LinearDescription description);

  const LinearDescription& description() const { return description_; }
  const OperandSpec& spec_of(OperandRole role) const { return operand(role).spec; }  // without `from`
  // Returns true if backward reads the input of forward; the caller must then keep it.
  bool keeps_input() const;
  // Returns true if one of the six operands is quantised.
  bool quantizes() const;

  // These are called in this order: while the arenas measure, and after they have been committed. The caller releases
  // the workspace after each, when it has taken what lives together with that stage.
  void allocate_for_weights(const LayerArenas& arenas);
  void allocate_for_forward(const LayerArenas& arenas);
  void allocate_for_backward(const LayerArenas& arenas);

  // Sets the weight [features_out, features_in]. Operands made of one of another version are made anew.
  void set_weight(const Tensor& weight, uint64_t version);
  void set_weights_changed() { forward_weight_stale_ = backward_weight_stale_ = true; }

  // Makes the forward weight if it is out of date, and returns it, [features_out, features_in].
  const QuantizedTensor& forward_weight(const StepContext& context);
  // The same for the weight of the input's gradient, [features_in, features_out]. A forward pass has come before.
  const QuantizedTensor& backward_weight(const StepContext& context);
  // Returns whether forward_input() makes the operands of these segments in one. Else they are made one by one.
  bool makes_together(const Tensor& x, std::span<const OperandSegment> segments, const StepContext& context) const;
  // Returns the operand of the forward product, [tokens, features_in], if it is wanted; the forward weight has been
  // made.
  QuantizedTensor forward_input(const PipelineInput& input);
  const QuantizedTensor& kept_input() const { return saved_input_operand_; }  // [features_in, tokens]
  // Returns dY, [tokens, features_out], and its transpose, the operands of the two products of backward.
  QuantizedPair grad_output(const Tensor& dy, const StepContext& context);

  // The split of the operands that is in force now; null: none.
  OperandSplit* forward_split() { return splits_forward() ? &*outliers_ : nullptr; }
  OperandSplit* grad_weight_split() { return splits_grad_weight() ? &*outliers_ : nullptr; }
  OutlierChannels* outliers() { return outliers_ ? &*outliers_ : nullptr; }
  const OutlierChannels* outliers() const { return outliers_ ? &*outliers_ : nullptr; }

  // As in Linear.
  void set_statistics(LinearStatistics* statistics) { statistics_ = statistics; }
  bool has_statistics() const { return statistics_ != nullptr; }
  void set_amax(const Tensor& scale_by, const Tensor& observed);
  void set_non_finite(const Tensor& count);
  void dequantize_weight(uint64_t begin, uint64_t end, float* values, const StepContext& context);

 private:
  struct Operand {
    OperandSpec spec;         // without `from`, because quantize() is given the tensor to read
    bool from_saved = false;  // made from the values of the forward operand
    OperandRole role = OperandRole::forward_x;
    QuantizedTensor storage;
    Tensor scratch;      // f32, for quantize()
    Tensor dequantized;  // f32 [inner, rows]: the values of the forward operand; empty unless needed. On a GPU only
                         // statistics and splits fill it
  };

  Operand& operand(OperandRole role) { return operands_[static_cast<size_t>(role)]; }
  const Operand& operand(OperandRole role) const { return operands_[static_cast<size_t>(role)]; }
  void check_recipe() const;
  void set_up_outliers();
  bool splits_forward() const { return outliers_ && outliers_->splits_forward(); }
  bool splits_grad_weight() const { return outliers_ && outliers_->splits_grad_weight(); }

  bool is_view(const OperandSpec& spec) const;
  OperandLayout layout_of(OperandRole role) const;
  bool reads_back(const Operand& operand, const Operand& forward) const;
  static Tensor read_back(const Operand& operand, const QuantizedTensor& forward);
  OperandContext operand_context(const StepContext& context) const;
  bool must_remake(const Operand& operand, bool stale, const OperandContext& made_for,
                   const OperandContext& context) const;

  QuantizeProblem problem_of(const Operand& operand, const Tensor& source, bool transpose,
                             const StepContext& context) const;
  QuantizedTensor make(const Operand& operand, const Tensor& source, bool transpose, const StepContext& context);
  QuantizedTensor make_rows(const Operand& operand, const Tensor& source, const StepContext& context);
  QuantizedTensor make_from_saved(const Operand& operand, const QuantizedTensor& forward, const StepContext& context);
  QuantizedPair make_pair(const Operand& rows, const Operand& columns, const Tensor& source,
                          const StepContext& context);
  void record_operand(const Operand& operand, const QuantizeProblem& problem, const QuantizedTensor& result);
  OperandObservations observations_of(OperandRole role) const;

  void allocate_made(Operand& operand, Arena& arena, Arena& workspace, int64_t rows, int64_t inner) const;
  void allocate_in_advance(Operand& operand, const Operand& forward, const LayerArenas& arenas, Arena& arena,
                           int64_t rows, int64_t inner) const;

  LinearDescription description_;
  std::array<Operand, operand_roles> operands_;
  std::optional<OutlierChannels> outliers_;
  bool decoding_ = false;

  Tensor weight_;  // [features_out, features_in]
  uint64_t weights_version_ = 0;
  bool forward_weight_stale_ = true;
  bool backward_weight_stale_ = true;
  OperandContext forward_weight_context_, backward_weight_context_;  // for which the weight operands were made

  QuantizedTensor weight_operand_;             // [features_out, features_in]
  QuantizedTensor transposed_weight_operand_;  // [features_in, features_out]
  QuantizedTensor saved_input_operand_;        // [features_in, tokens]
  Tensor row_scales_;                          // f32 [tokens, 2], of segments of one row; or empty
  std::vector<float> weight_row_;              // [features_in], for dequantize_weight()
  Tensor non_finite_;                          // i64 [1]
  LinearStatistics* statistics_ = nullptr;
  Tensor scale_by_amax_, observed_amax_;  // f32 [operand roles], or empty
};

}  // namespace nibble
