// The graphs of both passes, built operation by operation, and the choice of their engines.
#include "model/ops/attention/cudnn/cudnn_attention_graph.h"

#include <array>

#include "dist/base/error.h"

namespace nibble::cuda {
namespace {

using Descriptor = cudnnBackendDescriptor_t;
using Extents = std::array<int64_t, 4>;

constexpr int64_t query_axis = 2;  // of scores [sequences, query_heads, queries, keys]
constexpr int64_t key_axis = 3;

struct Layout {
  Extents extents, strides;
};

Layout packed(const Extents& extents) {
  return {extents, {extents[1] * extents[2] * extents[3], extents[2] * extents[3], extents[3], 1}};
}

// Returns the layout with its last two axes exchanged.
Layout transposed(const Layout& layout) {
  const auto exchange = [](const Extents& values) { return Extents{values[0], values[1], values[3], values[2]}; };
  return {exchange(layout.extents), exchange(layout.strides)};
}

// Adds tensors and operations to a graph. Operations return their result.
class GraphBuilder {
 public:
  explicit GraphBuilder(std::vector<CudnnDescriptor>& parts) : parts_(parts) {}

  Descriptor real(AttentionTensor tensor, cudnnDataType_t type, const Layout& layout) {
    return tensor_of(static_cast<int64_t>(tensor), type, layout, Kind::real);
  }
  Descriptor number(AttentionTensor tensor) {
    return tensor_of(static_cast<int64_t>(tensor), CUDNN_DATA_FLOAT, packed({1, 1, 1, 1}), Kind::by_value);
  }
  Descriptor between(cudnnDataType_t type, const Layout& layout) {
    return tensor_of(next_identifier_++, type, layout, Kind::between);
  }

  // result = a (mode) b, where b may be missing. With a `selector`, result is a where it is true and b elsewhere.
  // `axis` is the axis whose indices are generated.
  Descriptor pointwise(cudnnPointwiseMode_t mode, Descriptor a, Descriptor b, Descriptor result,
                       Descriptor selector = nullptr, int64_t axis = -1) {
    CudnnDescriptor& how = part(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    how.set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    how.set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_FLOAT);
    if (axis >= 0) how.set(CUDNN_ATTR_POINTWISE_AXIS, axis);
    const Descriptor finished = how.finalize().get();
    CudnnDescriptor& operation = part(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, finished);
    operation.set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, a).set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, result);
    if (b != nullptr) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    if (selector != nullptr) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_TDESC, selector);
    return finish(operation, result);
  }

  Descriptor multiply(Descriptor a, Descriptor b, Descriptor result) {
    const Descriptor how =
        part(CUDNN_BACKEND_MATMUL_DESCRIPTOR).set(CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT).finalize().get();
    CudnnDescriptor& operation = part(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_MATMUL_ADESC, a).set(CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
    operation.set(CUDNN_ATTR_OPERATION_MATMUL_CDESC, result).set(CUDNN_ATTR_OPERATION_MATMUL_DESC, how);
    return finish(operation, result);
  }

  // Reduces the axes that are shorter in the result.
  Descriptor reduce(cudnnReduceTensorOp_t mode, Descriptor a, Descriptor result) {
    CudnnDescriptor& reduction = part(CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    reduction.set(CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &mode);
    const Descriptor how = reduction.set(CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_DATA_FLOAT).finalize().get();
    CudnnDescriptor& operation = part(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_REDUCTION_XDESC, a).set(CUDNN_ATTR_OPERATION_REDUCTION_YDESC, result);
    return finish(operation.set(CUDNN_ATTR_OPERATION_REDUCTION_DESC, how), result);
  }

  // Returns the same elements with the strides and the type of the result.
  Descriptor reshape(Descriptor a, Descriptor result) {
    CudnnDescriptor& operation = part(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_RESHAPE_XDESC, a).set(CUDNN_ATTR_OPERATION_RESHAPE_YDESC, result);
    return finish(operation, result);
  }

  const std::vector<Descriptor>& operations() const { return operations_; }

 private:
  enum class Kind { real, by_value, between };

  // The reference is valid until the next call of part().
  CudnnDescriptor& part(cudnnBackendDescriptorType_t type) { return parts_.emplace_back(type); }

  Descriptor tensor_of(int64_t identifier, cudnnDataType_t type, const Layout& layout, Kind kind) {
    CudnnDescriptor& tensor = part(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    tensor.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, identifier).set(CUDNN_ATTR_TENSOR_DATA_TYPE, type);
    tensor.set(CUDNN_ATTR_TENSOR_DIMENSIONS, std::span<const int64_t>(layout.extents));
    tensor.set(CUDNN_ATTR_TENSOR_STRIDES, std::span<const int64_t>(layout.strides));
    tensor.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, int64_t{16});
    tensor.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, kind == Kind::between);
    if (kind == Kind::by_value) tensor.set(CUDNN_ATTR_TENSOR_IS_BY_VALUE, true);
    return tensor.finalize().get();
  }

  Descriptor finish(CudnnDescriptor& operation, Descriptor result) {
    operations_.push_back(operation.finalize().get());
    return result;
  }

  std::vector<CudnnDescriptor>& parts_;
  std::vector<Descriptor> operations_;
  int64_t next_identifier_ = 100;  // of tensors that are not given at execution
};

// The layouts of both passes, and the steps that they share.
class AttentionBuilder {
 public:
  AttentionBuilder(const AttentionShape& shape, std::vector<CudnnDescriptor>& parts) : shape_(shape), build_(parts) {
    const int64_t length = shape.sequence_length;
    scores_ = packed({shape.sequences, shape.query_heads, length, length});
    rows_ = packed({shape.sequences, shape.query_heads, length, 1});
    query_ = heads(shape.query_heads, shape.qkv_features());
    key_ = heads(shape.kv_heads, shape.qkv_features());
    output_ = heads(shape.query_heads, shape.output_features());
  }

  // Builds the forward pass with a running softmax: every row's largest score and the sum of the exponentials relative
  // to it.
  void forward() {
    const Descriptor query = build_.real(AttentionTensor::query, CUDNN_DATA_BFLOAT16, query_);
    const Descriptor key = build_.real(AttentionTensor::key, CUDNN_DATA_BFLOAT16, transposed(key_));
    const Descriptor value = build_.real(AttentionTensor::value, CUDNN_DATA_BFLOAT16, key_);
    const Descriptor output = build_.real(AttentionTensor::output, CUDNN_DATA_BFLOAT16, output_);
    const Descriptor log_sum_exp = build_.real(AttentionTensor::log_sum_exp, CUDNN_DATA_FLOAT, rows_);
    const Descriptor scale = build_.number(AttentionTensor::scale);
    const Descriptor scaled =
        build_.pointwise(CUDNN_POINTWISE_MUL, build_.multiply(query, key, score()), scale, score());
    const Descriptor masked = mask(scaled);
    const Descriptor largest = build_.reduce(CUDNN_REDUCE_TENSOR_MAX, masked, row());
    const Descriptor below = build_.pointwise(CUDNN_POINTWISE_SUB, masked, largest, score());
    const Descriptor exponential = build_.pointwise(CUDNN_POINTWISE_EXP, below, nullptr, score());
    const Descriptor sum = build_.reduce(CUDNN_REDUCE_TENSOR_ADD, exponential, row());
    const Descriptor logarithm = build_.pointwise(CUDNN_POINTWISE_LOG, sum, nullptr, row());
    build_.pointwise(CUDNN_POINTWISE_ADD, largest, logarithm, log_sum_exp);
    const Descriptor probability =
        build_.pointwise(CUDNN_POINTWISE_DIV, exponential, sum, build_.between(CUDNN_DATA_BFLOAT16, scores_));
    build_.multiply(probability, value, output);
  }

  // Builds the backward pass. The product that makes the gradients of queries writes them, without a sum in an FP32
  // tensor, because cuDNN runs this form without atomic additions.
  void backward() {
    const Descriptor query = build_.real(AttentionTensor::query, CUDNN_DATA_BFLOAT16, query_);
    const Descriptor key = build_.real(AttentionTensor::key, CUDNN_DATA_BFLOAT16, transposed(key_));
    const Descriptor value = build_.real(AttentionTensor::value, CUDNN_DATA_BFLOAT16, transposed(key_));
    const Descriptor output = build_.real(AttentionTensor::output, CUDNN_DATA_BFLOAT16, output_);
    const Descriptor grad_output = build_.real(AttentionTensor::grad_output, CUDNN_DATA_BFLOAT16, output_);
    const Descriptor scale = build_.number(AttentionTensor::scale);
    const Descriptor mean = mean_gradients(grad_output, output);

    const Descriptor probability = probabilities(query, key, scale);
    const Descriptor probability_transposed = build_.reshape(probability, score_transposed());
    sum_over_group(build_.multiply(probability_transposed, grad_output, head_gradient()),
                   build_.real(AttentionTensor::grad_value, CUDNN_DATA_BFLOAT16, key_));

    const Descriptor grad_probability = build_.multiply(grad_output, value, score());
    const Descriptor centred = build_.pointwise(CUDNN_POINTWISE_SUB, grad_probability, mean, score());
    const Descriptor grad_scaled = build_.pointwise(CUDNN_POINTWISE_MUL, centred, probability, score());
    const Descriptor grad_score = build_.pointwise(CUDNN_POINTWISE_MUL, grad_scaled, scale, score());
    const Descriptor grad_score_transposed = build_.reshape(grad_score, score_transposed());
    sum_over_group(build_.multiply(grad_score_transposed, query, head_gradient()),
                   build_.real(AttentionTensor::grad_key, CUDNN_DATA_BFLOAT16, key_));
    const Descriptor key_upright = build_.reshape(key, build_.between(CUDNN_DATA_FLOAT, key_));
    build_.multiply(grad_score, key_upright, build_.real(AttentionTensor::grad_query, CUDNN_DATA_BFLOAT16, query_));
  }

  const std::vector<Descriptor>& operations() const { return build_.operations(); }

 private:
  // Returns the layout of some heads of tokens of `features` elements: [sequences, heads, sequence_length, head_dim].
  Layout heads(int64_t count, int64_t features) const {
    return {{shape_.sequences, count, shape_.sequence_length, shape_.head_dim},
            {shape_.sequence_length * features, shape_.head_dim, features, 1}};
  }
  Descriptor score() { return build_.between(CUDNN_DATA_FLOAT, scores_); }
  Descriptor score_transposed() {
    Layout layout = transposed(scores_);
    return build_.between(CUDNN_DATA_BFLOAT16, layout);
  }
  Descriptor row() { return build_.between(CUDNN_DATA_FLOAT, rows_); }
  // Returns a tensor for the gradient of the keys or values that one query head sees.
  Descriptor head_gradient() { return build_.between(CUDNN_DATA_BFLOAT16, packed(output_.extents)); }

  // Masks the scores: a query sees the keys from the start of its document up to its own position.
  Descriptor mask(Descriptor scores) {
    const auto indices = [&](int64_t axis) {
      return build_.pointwise(CUDNN_POINTWISE_GEN_INDEX, scores, nullptr, build_.between(CUDNN_DATA_INT32, scores_),
                              nullptr, axis);
    };
    const Descriptor queries = indices(query_axis);
    const Descriptor keys = indices(key_axis);
    const Descriptor seen =
        build_.pointwise(CUDNN_POINTWISE_CMP_GE, queries, keys, build_.between(CUDNN_DATA_BOOLEAN, scores_));
    const Descriptor minus_infinity = build_.number(AttentionTensor::minus_infinity);
    const Descriptor causal = build_.pointwise(CUDNN_POINTWISE_BINARY_SELECT, scores, minus_infinity, score(), seen);
    if (!shape_.document_mask) return causal;
    const int64_t length = shape_.sequence_length;
    const Descriptor document_starts =
        build_.real(AttentionTensor::document_starts, CUDNN_DATA_INT32, packed({shape_.sequences, 1, length, 1}));
    const Descriptor own =
        build_.pointwise(CUDNN_POINTWISE_CMP_GE, keys, document_starts, build_.between(CUDNN_DATA_BOOLEAN, scores_));
    return build_.pointwise(CUDNN_POINTWISE_BINARY_SELECT, causal, build_.number(AttentionTensor::far_below), score(),
                            own);
  }

  Descriptor probabilities(Descriptor query, Descriptor key, Descriptor scale) {
    const Descriptor log_sum_exp = build_.real(AttentionTensor::log_sum_exp, CUDNN_DATA_FLOAT, rows_);
    const Descriptor scaled =
        build_.pointwise(CUDNN_POINTWISE_MUL, build_.multiply(query, key, score()), scale, score());
    const Descriptor exponent = build_.pointwise(CUDNN_POINTWISE_SUB, scaled, log_sum_exp, score());
    return build_.pointwise(CUDNN_POINTWISE_EXP, mask(exponent), nullptr, score());
  }

  // Computes a real tensor, with a kernel of its own before the others. The factor one is where a dropout scale would
  // be.
  Descriptor mean_gradients(Descriptor grad_output, Descriptor output) {
    const Descriptor products =
        build_.pointwise(CUDNN_POINTWISE_MUL, grad_output, output, build_.between(CUDNN_DATA_FLOAT, output_));
    const Descriptor sums = build_.reduce(CUDNN_REDUCE_TENSOR_ADD, products, row());
    return build_.pointwise(CUDNN_POINTWISE_MUL, sums, build_.number(AttentionTensor::one),
                            build_.real(AttentionTensor::mean_gradients, CUDNN_DATA_FLOAT, rows_));
  }

  void sum_over_group(Descriptor of_query_heads, Descriptor of_kv_heads) {
    build_.reduce(CUDNN_REDUCE_TENSOR_ADD, of_query_heads, of_kv_heads);
  }

  const AttentionShape& shape_;
  GraphBuilder build_;
  Layout scores_, rows_, query_, key_, output_;
};

// Returns true if there is the fast deterministic backward pass of compute capability 10.x, which the heuristic of
// these versions does not propose. Later versions number engines anew.
bool has_hidden_engine(const CudnnTarget& target) {
  const size_t version = cudnn_library().version;
  return target.major() == 10 && version >= 91800 && version < 92300;
}
CudnnEngineChoice hidden_engine() {
  return {.engine = 5, .knobs = {{CUDNN_KNOB_TYPE_KERNEL_CFG, 31}, {CUDNN_KNOB_TYPE_STAGES, 2}}};
}

}  // namespace

AttentionGraph::AttentionGraph(const AttentionShape& shape, AttentionPass pass, const CudnnTarget& target)
    : target_(target), pass_(pass) {
  AttentionBuilder builder(shape, parts_);
  if (pass == AttentionPass::forward) {
    builder.forward();
  } else {
    builder.backward();
  }
  graph_ = cudnn_operation_graph(builder.operations(), target);
}

AttentionGraph::Configurations AttentionGraph::configurations() const {
  Configurations found;
  if (pass_ == AttentionPass::backward && has_hidden_engine(target_)) {
    try {
      found.by_hand = std::make_unique<CudnnEngineConfiguration>(graph_, target_, hidden_engine());
    } catch (const Error&) {
      found.by_hand = nullptr;  // this engine does not take the shape; the heuristic has slower ones
    }
  }
  found.of_heuristic = cudnn_heuristic_configurations(graph_, target_);
  return found;
}

std::vector<const CudnnDescriptor*> AttentionGraph::Configurations::all() const {
  std::vector<const CudnnDescriptor*> all;
  if (by_hand != nullptr) all.push_back(&by_hand->descriptor());
  for (const CudnnDescriptor& configuration : of_heuristic) all.push_back(&configuration);
  return all;
}

}  // namespace nibble::cuda
