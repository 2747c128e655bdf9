// A linear layer, Y = X W^T: an operand pipeline (model/layers/operand_pipeline.h), which makes the operands as the
// recipe says, and three products of them.
#pragma once

#include <array>
#include <span>
#include <string>

#include "dist/base/enum_names.h"
#include "model/layers/layer_arenas.h"
#include "model/layers/operand_pipeline.h"
#include "model/layers/parameter.h"
#include "model/layers/step_context.h"
#include "model/layers/weight_view.h"
#include "quant/gemm/gemm.h"

namespace nibble {

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
  bool keeps_input() const { return pipeline_.keeps_input(); }
  // Returns true if one of the six operands is quantised.
  bool quantizes() const { return pipeline_.quantizes(); }

  // Sets the weight, of the description's dtype, and its gradient (empty for inference). Operands that were made of
  // weights of another version are made anew.
  void bind(const BucketView& bucket);
  // backward() adds the weight's gradient here, f32 [features_out, features_in]: in the bound gradients, until it is
  // set anew.
  Tensor grad_weight() const { return grad_weight_; }
  void set_grad_weight(const Tensor& grad_weight) { grad_weight_ = grad_weight; }
  void set_weights_changed() { pipeline_.set_weights_changed(); }
  // From now on, statistics of every operand that is made are written here; nullptr ends this.
  void set_statistics(LinearStatistics* statistics) { pipeline_.set_statistics(statistics); }
  // The next run of the check's product is compared, and the result is written there; nullptr ends this. Neither the
  // product nor anything that follows from it changes.
  void set_check(LinearCheck* check) { check_ = check; }
  // Returns whether statistics or a check are wanted. The layer's passes then wait for its device.
  bool watched() const { return pipeline_.has_statistics() || check_ != nullptr; }
  // Delayed scaling, f32 [operand roles]. `scale_by` holds the amax to scale by (0: the tensor's own) and is on the
  // CPU; `observed` keeps the largest amax observed and is on the layer's device.
  void set_amax(const Tensor& scale_by, const Tensor& observed) { pipeline_.set_amax(scale_by, observed); }
  // From now on, the layer's quantisers add to `count`, i64 [1] on the layer's device, how many non-finite values they
  // read. A layer that quantises must be given a count before its first pass.
  void set_non_finite(const Tensor& count) { pipeline_.set_non_finite(count); }

  // A row that is a segment has the same bits whichever rows come with it; a square block then has one row.
  void forward(const LinearForward& problem);
  // Runs backward of the last forward that had `keep` set, and adds the weight's gradient to the bound gradients.
  void backward(const LinearBackward& problem);

  // Outlier retention. outlier_count() is the number of retained channels, 0 without retention. set_channel_norms()
  // sets where forward passes with `keep` add the channels' squared norms, f32 [features_in] or empty.
  // set_outlier_channels() sets the retained channels, ascending, from now on.
  int64_t outlier_count() const { return pipeline_.outliers() == nullptr ? 0 : pipeline_.outliers()->count(); }
  void set_channel_norms(const Tensor& norms);
  void set_outlier_channels(std::span<const int32_t> channels);

  // Writes elements [begin, end) of the weight as forward uses it, f32, in the rotated basis if forward rotates it.
  // Elements of retained channels are NaN. Nothing is written if forward does not quantise the weight.
  void dequantize_weight(uint64_t begin, uint64_t end, float* values, const StepContext& context) {
    pipeline_.dequantize_weight(begin, end, values, context);
  }

  int amax_history(OperandRole role) const { return pipeline_.spec_of(role).history; }

  // Returns a text such as "forward nvfp4, grad_input nvfp4, grad_weight bf16, 32 outlier channels mxfp8_e4m3".
  std::string describe() const;
  // Returns the formats of a product's operands, as in recipes: "nvfp4", or "bf16/nvfp4" where they differ.
  std::string format_of(LinearProduct product) const;
  // Describes a product of the last micro-batch. Throws (NIBBLE_CHECK) where it has not run.
  GemmDescription describe(LinearProduct product) const;
  const std::string& name() const { return description().name; }
  uint32_t weight_id() const { return description().weight_id; }
  int64_t features_in() const { return description().features_in; }

 private:
  const LinearDescription& description() const { return pipeline_.description(); }
  void allocate_gemm(LinearProduct which, const LayerArenas& arenas);
  Tensor& scratch_of(LinearProduct which) { return gemm_scratch_[static_cast<size_t>(which)]; }
  void multiply(LinearProduct which, const GemmProblem& problem);
  void forward_by_segment(const LinearForward& problem);

  OperandPipeline pipeline_;
  Tensor grad_weight_;                                  // f32 [features_out, features_in]
  std::array<Tensor, linear_products> gemm_scratch_;    // u8
  std::array<GemmProblem, linear_products> last_gemm_;  // as it ran last, for descriptions
  LinearCheck* check_ = nullptr;
};

}  // namespace nibble
