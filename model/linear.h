// A linear layer, Y = X W^T, and the only caller of recipes: each of its three GEMMs runs on two operands made as the
// recipe says. Weight operands are made once after each change of the weights; the activation operand of the weight
// gradient is made in forward, so that a quantised layer does not need its input again.
//
// Rounding noise is keyed by (seed, step, micro-batch, tensor id of the weight, operand); for weights, which all
// micro-batches of a step share, the micro-batch is 0.
#pragma once

#include <string>

#include "model/parameter.h"
#include "model/step_context.h"
#include "quant/gemm.h"
#include "quant/quantize.h"
#include "quant/recipe.h"

namespace nibble {

struct LinearDescription {
  std::string name;        // by which the recipe's rules know the layer
  uint32_t weight_id = 0;  // [features_out, features_in]
  int64_t features_in = 0;
  int64_t features_out = 0;
  DType dtype = DType::bf16;  // of weights and activations
  LinearRecipe recipe;
};

// Where a layer's memory comes from. `saved` lives from forward to backward; `workspace` within one call, so that
// layers share it.
struct LayerArenas {
  Arena& weights;
  Arena& saved;
  Arena& workspace;
  int64_t sequences = 0;  // of a micro-batch: the largest that a call brings
  int64_t sequence_length = 0;
  bool training = true;

  int64_t tokens() const { return sequences * sequence_length; }
};

struct LinearForward {
  Tensor input;   // [tokens, features_in]
  Tensor output;  // [tokens, features_out], f32 or bf16; empty: only what backward needs
  StepContext context;
  bool keep = false;  // make what backward needs; then tokens must be LayerArenas::tokens()
};

struct LinearBackward {
  Tensor grad_output;  // [tokens, features_out], dtype of the activations
  Tensor grad_input;   // [tokens, features_in], dtype of the activations: overwritten
  StepContext context;
};

class Linear {
 public:
  // Throws ExitCode::bad_config for a recipe that the layer cannot follow.
  explicit Linear(LinearDescription description);

  // Called twice: while the arenas measure, and after they have been committed.
  void allocate(const LayerArenas& arenas);
  // True if backward reads the input of forward, which must then be kept.
  bool keeps_input() const;

  // Views of the flat buffers: weights of the description's dtype, gradients f32 (empty for inference).
  void bind(const ParameterTable& table, const Tensor& weights, const Tensor& gradients);
  void set_weights_changed() { weights_changed_ = true; }

  void forward(const LinearForward& problem);
  // Of the last forward that kept. Adds the weight's gradient to the bound gradients.
  void backward(const LinearBackward& problem);

  // Non-finite values met by quantisers since the last call.
  int64_t take_non_finite_count();
  // "forward nvfp4, grad_input nvfp4, grad_weight bf16"
  std::string describe() const;
  const std::string& name() const { return description_.name; }

 private:
  struct Operand {
    OperandSpec spec;         // `from` taken out: quantize() is given the tensor to read
    bool from_saved = false;  // made from the values of the forward operand
    Purpose purpose = Purpose::forward_x;
    QuantizedTensor storage;
    Tensor dequantized;  // f32 [inner, rows]: those values; empty unless needed
  };

  static Operand make_operand(OperandSpec spec, Purpose purpose);
  void prepare_weights(const StepContext& context);
  QuantizedTensor make(const Operand& operand, const Tensor& source, bool transpose, const StepContext& context);
  bool is_view(const OperandSpec& spec) const;
  bool reads_back(const Operand& operand, const Operand& forward) const;
  static Tensor read_back(const Operand& operand, const QuantizedTensor& forward);
  void allocate_kept(Operand& operand, const Operand& forward, Arena& home, Arena& workspace, int64_t rows,
                     int64_t inner) const;

  LinearDescription description_;
  Operand forward_x_, forward_w_, grad_input_dy_, grad_input_w_, grad_weight_dy_, grad_weight_x_;
  bool training_ = true;

  Tensor weight_;       // [features_out, features_in]
  Tensor grad_weight_;  // f32 [features_out, features_in]
  bool weights_changed_ = true;
  StepContext weights_context_;  // of the noise in the weight operands

  QuantizedTensor weight_operand_;             // [features_out, features_in]
  QuantizedTensor transposed_weight_operand_;  // [features_in, features_out]
  QuantizedTensor kept_input_operand_;         // [features_in, tokens]
  int64_t non_finite_ = 0;
};

}  // namespace nibble
