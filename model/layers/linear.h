// A linear layer, Y = X W^T, and the only user of recipes: each of its three GEMMs runs on two operands that are made
// as the recipe says. Weight operands are made once after each change of the weights (or for every micro-batch, if
// their signs are drawn for each). The activation operand of the weight gradient is made in forward, so that a
// quantised layer does not need its input again. Two operands of one tensor are made in one read of it.
// quant/recipe/operand_role.h tells how random bits are keyed. Implemented in linear.cpp; the memory plan is
// linear_memory.cpp.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "dist/base/enum_names.h"
#include "model/layers/layer_arenas.h"
#include "model/layers/outlier_channels.h"
#include "model/layers/parameter.h"
#include "model/layers/step_context.h"
#include "model/layers/weight_view.h"
#include "quant/gemm/gemm.h"
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

struct LinearForward {
  Tensor input;   // [tokens, features_in]
  Tensor output;  // [tokens, features_out], f32 or bf16; empty: make only what backward needs
  StepContext context;
  bool keep = false;  // make what backward needs; requires tokens == LayerArenas::tokens()
  // In inference, the segments that the rows of the input are, first to last; empty: the input is one operand. Requires
  // LayerArenas::decoding.
  std::span<const OperandSegment> segments = {};
};

struct LinearBackward {
  Tensor grad_output;  // [tokens, features_out], dtype of the activations
  Tensor grad_input;   // [tokens, features_in], dtype of the activations: overwritten
  StepContext context;
};

// Statistics by operand role. `made` is false for operands that no pass has made, or that are not quantised.
struct LinearStatistics {
  std::array<OperandStatistics, operand_roles> operand;
  std::array<bool, operand_roles> made{};
  double seconds = 0;  // time that measuring took
};

// The three products of a linear layer.
enum class LinearProduct : uint8_t { forward, grad_input, grad_weight };
constexpr size_t linear_products = 3;
constexpr auto enum_names(LinearProduct) {
  return std::to_array<EnumName<LinearProduct>>({{LinearProduct::forward, "forward"},
                                                 {LinearProduct::grad_input, "grad_input"},
                                                 {LinearProduct::grad_weight, "grad_weight"}});
}

// A comparison of a product with the exact one (quant/gemm/gemm_check.h).
struct LinearCheck {
  LinearProduct product = LinearProduct::forward;
  uint64_t tile = 0;  // chooses the tile
  bool made = false;  // by the layer: the product has run
  std::string difference = {};
};

class Linear {
 public:
  // Throws ExitCode::bad_config for a recipe that the layer cannot follow.
  explicit Linear(LinearDescription description);

  // Called twice: while the arenas measure, and after they have been committed.
  void allocate(const LayerArenas& arenas);
  // Returns true if backward reads the input of forward; the caller must then keep it.
  bool keeps_input() const;
  // Returns true if one of the six operands is quantised.
  bool quantizes() const;

  // Sets the weight, of the description's dtype, and its gradient (empty for inference). Operands that were made of
  // weights of another version are made anew.
  void bind(const BucketView& bucket);
  // backward() adds the weight's gradient here, f32 [features_out, features_in]: in the bound gradients, until it is
  // set anew.
  Tensor grad_weight() const { return grad_weight_; }
  void set_grad_weight(const Tensor& grad_weight) { grad_weight_ = grad_weight; }
  void set_weights_changed() { forward_weight_stale_ = backward_weight_stale_ = true; }
  // From now on, statistics of every operand that is made are written here; nullptr ends this.
  void set_statistics(LinearStatistics* statistics) { statistics_ = statistics; }
  // The next run of the check's product is compared, and the result is written there; nullptr ends this. Neither the
  // product nor anything that follows from it changes.
  void set_check(LinearCheck* check) { check_ = check; }
  // Returns whether statistics or a check are wanted. The layer's passes then wait for its device.
  bool watched() const { return statistics_ != nullptr || check_ != nullptr; }
  // Delayed scaling, f32 [operand roles]. `scale_by` holds the amax to scale by (0: the tensor's own) and is on the
  // CPU; `observed` keeps the largest amax observed and is on the layer's device.
  void set_amax(const Tensor& scale_by, const Tensor& observed);
  // From now on, the layer's quantisers add to `count`, i64 [1] on the layer's device, how many non-finite values they
  // read. A layer that quantises must be given a count before its first pass.
  void set_non_finite(const Tensor& count);

  // A row that is a segment has the same bits whichever rows come with it; a square block then has one row.
  void forward(const LinearForward& problem);
  // Runs backward of the last forward that had `keep` set, and adds the weight's gradient to the bound gradients.
  void backward(const LinearBackward& problem);

  // Outlier retention. outlier_count() is the number of retained channels, 0 without retention. set_channel_norms()
  // sets where forward passes with `keep` add the channels' squared norms, f32 [features_in] or empty.
  // set_outlier_channels() sets the retained channels, ascending, from now on.
  int64_t outlier_count() const { return outliers_ ? outliers_->count() : 0; }
  void set_channel_norms(const Tensor& norms);
  void set_outlier_channels(std::span<const int32_t> channels);

  // Writes elements [begin, end) of the weight as forward uses it, f32, in the rotated basis if forward rotates it.
  // Elements of retained channels are NaN. Nothing is written if forward does not quantise the weight.
  void dequantize_weight(uint64_t begin, uint64_t end, float* values, const StepContext& context);

  int amax_history(OperandRole role) const { return operand(role).spec.history; }

  // Returns a text such as "forward nvfp4, grad_input nvfp4, grad_weight bf16, 32 outlier channels mxfp8_e4m3".
  std::string describe() const;
  // Returns the formats of a product's operands, as in recipes: "nvfp4", or "bf16/nvfp4" where they differ.
  std::string format_of(LinearProduct product) const;
  // Describes a product of the last micro-batch. Throws (NIBBLE_CHECK) where it has not run.
  GemmDescription describe(LinearProduct product) const;
  const std::string& name() const { return description_.name; }
  uint32_t weight_id() const { return description_.weight_id; }
  int64_t features_in() const { return description_.features_in; }

 private:
  struct Operand {
    OperandSpec spec;         // without `from`, because quantize() is given the tensor to read
    bool from_saved = false;  // made from the values of the forward operand
    OperandRole role = OperandRole::forward_x;
    QuantizedTensor storage;
    Tensor scratch;      // f32, for quantize()
    Tensor dequantized;  // f32 [inner, rows]: the values of the forward operand; empty unless needed. On a GPU only
                         // statistics and outlier channels fill it
  };
  enum class Weight : uint8_t { forward, backward };

  Operand& operand(OperandRole role) { return operands_[static_cast<size_t>(role)]; }
  const Operand& operand(OperandRole role) const { return operands_[static_cast<size_t>(role)]; }
  void check_recipe() const;
  void set_up_outliers();
  OperandContext operand_context(const StepContext& context) const;
  bool must_remake(const Operand& operand, bool stale, const OperandContext& made_for,
                   const OperandContext& context) const;
  void prepare_forward_weight(const StepContext& context);
  void prepare_backward_weight(const StepContext& context);

  QuantizeProblem problem_of(const Operand& operand, const Tensor& source, bool transpose,
                             const StepContext& context) const;
  bool splits_forward() const { return outliers_ && outliers_->splits_forward(); }
  bool splits_grad_weight() const { return outliers_ && outliers_->splits_grad_weight(); }

  QuantizedTensor make(const Operand& operand, const Tensor& source, bool transpose, const StepContext& context);
  QuantizedTensor make_rows(const Operand& operand, const Tensor& source, const StepContext& context);
  QuantizedTensor make_from_saved(const Operand& operand, const QuantizedTensor& forward, const StepContext& context);
  QuantizedPair make_pair(const Operand& rows, const Operand& columns, const Tensor& source,
                          const StepContext& context);
  void record_operand(const Operand& operand, const QuantizeProblem& problem, const QuantizedTensor& result);
  OperandObservations observations_of(OperandRole role) const;

  bool makes_segments_together(const LinearForward& problem) const;
  void forward_by_segment(const LinearForward& problem);
  bool is_view(const OperandSpec& spec) const;
  OperandLayout layout_of(OperandRole role) const;
  bool reads_back(const Operand& operand, const Operand& forward) const;
  static Tensor read_back(const Operand& operand, const QuantizedTensor& forward);
  void allocate_gemm(LinearProduct which, Arena& workspace, int64_t tokens);
  Tensor& scratch_of(LinearProduct which) { return gemm_scratch_[static_cast<size_t>(which)]; }
  void multiply(LinearProduct which, const GemmProblem& problem);
  void allocate_made(Operand& operand, Arena& arena, Arena& workspace, int64_t rows, int64_t inner) const;
  void allocate_for_backward(Operand& operand, const Operand& forward, const LayerArenas& arenas, Arena& arena,
                             int64_t rows, int64_t inner) const;

  LinearDescription description_;
  std::array<Operand, operand_roles> operands_;
  std::optional<OutlierChannels> outliers_;
  bool training_ = true;
  bool decoding_ = false;

  Tensor weight_;       // [features_out, features_in]
  Tensor grad_weight_;  // f32 [features_out, features_in]
  uint64_t weights_version_ = 0;
  bool forward_weight_stale_ = true;
  bool backward_weight_stale_ = true;
  OperandContext forward_weight_context_, backward_weight_context_;  // for which the weight operands were made

  QuantizedTensor weight_operand_;                      // [features_out, features_in]
  QuantizedTensor transposed_weight_operand_;           // [features_in, features_out]
  QuantizedTensor saved_input_operand_;                 // [features_in, tokens]
  std::vector<float> weight_row_;                       // [features_in], for dequantize_weight()
  Tensor row_scales_;                                   // f32 [tokens, 2], of segments of one row; or empty
  std::array<Tensor, linear_products> gemm_scratch_;    // u8
  std::array<GemmProblem, linear_products> last_gemm_;  // as it ran last, for descriptions
  LinearCheck* check_ = nullptr;
  Tensor non_finite_;  // i64 [1]
  LinearStatistics* statistics_ = nullptr;
  Tensor scale_by_amax_, observed_amax_;  // f32 [operand roles], or empty
};

}  // namespace nibble
