#include "model/ops/attention/cudnn_attention.h"

#include <limits>
#include <memory>

#include "model/ops/attention/attention_blocks.h"
#include "model/ops/attention/cudnn/cudnn_attention_graph.h"

namespace nibble::cuda {
namespace {

constexpr int64_t alignment_floats = 64;  // alignment of the parts of the workspace

// What cuDNN proposes for one pass of one shape. Plans refer to the graph, so it lives as long as they do.
struct Proposal {
  CudnnTarget target;
  AttentionGraph graph;
  AttentionGraph::Configurations configurations;

  Proposal(const AttentionShape& shape, AttentionPass pass, CudnnTarget on)
      : target(std::move(on)), graph(shape, pass, target), configurations(graph.configurations()) {}
};

int64_t mean_floats(const AttentionShape& shape) {
  return round_up(shape.tokens() * shape.query_heads, alignment_floats);
}

// The tensors of one execution.
class Arguments {
 public:
  Arguments(const AttentionShape& shape, const Tensor& document_starts)
      : scale_(nibble::attention::score_scale(shape)) {
    add(AttentionTensor::scale, &scale_);
    add(AttentionTensor::minus_infinity, &minus_infinity_);
    if (!shape.document_mask) return;
    add(AttentionTensor::document_starts, document_starts.data());
    add(AttentionTensor::far_below, &far_below_);
  }
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;

  void add(AttentionTensor tensor, void* memory) {
    identifiers_.push_back(static_cast<int64_t>(tensor));
    pointers_.push_back(memory);
  }
  // Adds the three parts of qkv, or of its gradient.
  void add_heads(const AttentionShape& shape, const Tensor& qkv, AttentionTensor query, AttentionTensor key,
                 AttentionTensor value) {
    auto* const first = qkv.as<BFloat16>();
    add(query, first);
    add(key, first + shape.query_heads * shape.head_dim);
    add(value, first + (shape.query_heads + shape.kv_heads) * shape.head_dim);
  }
  void add_one() { add(AttentionTensor::one, &one_); }
  void execute(const CudnnPlan& plan, void* workspace) const { plan.execute(identifiers_, pointers_, workspace); }

 private:
  float scale_;
  float minus_infinity_ = -std::numeric_limits<float>::infinity();
  // A row may see none of its first keys. This value is finite, also times log2(e), so that differences to it are not
  // NaN.
  float far_below_ = -1e30F;
  float one_ = 1;
  std::vector<int64_t> identifiers_;
  std::vector<void*> pointers_;
};

struct Workspace {
  float* means;
  float* of_plan;

  Workspace(const AttentionShape& shape, const Tensor& memory) {
    constexpr uintptr_t bytes = alignment_floats * sizeof(float);
    means = reinterpret_cast<float*>(round_up(reinterpret_cast<uintptr_t>(memory.data()), bytes));
    of_plan = means + mean_floats(shape);
  }
};

class CudnnAttentionPlan final : public AttentionPlan {
 public:
  CudnnAttentionPlan(const AttentionShape& shape, std::shared_ptr<const Proposal> proposal,
                     const CudnnDescriptor& configuration)
      : proposal_(std::move(proposal)),
        plan_(configuration, proposal_->target),
        engine_(cudnn_engine_of(configuration)),
        workspace_floats_(alignment_floats + mean_floats(shape) +
                          div_ceil(static_cast<int64_t>(plan_.workspace_bytes()), int64_t{sizeof(float)})) {}

  int64_t engine() const override { return engine_; }
  int64_t workspace_floats() const override { return workspace_floats_; }

  void forward(const AttentionForward& problem) const override {
    const AttentionShape& shape = problem.shape;
    Arguments arguments(shape, problem.document_starts);
    arguments.add_heads(shape, problem.qkv, AttentionTensor::query, AttentionTensor::key, AttentionTensor::value);
    arguments.add(AttentionTensor::output, problem.output.data());
    arguments.add(AttentionTensor::log_sum_exp, problem.log_sum_exp.data());
    arguments.execute(plan_, Workspace(shape, problem.workspace).of_plan);
  }

  void backward(const AttentionBackward& problem) const override {
    const AttentionShape& shape = problem.shape;
    const Workspace workspace(shape, problem.workspace);
    Arguments arguments(shape, problem.document_starts);
    arguments.add_one();
    arguments.add_heads(shape, problem.qkv, AttentionTensor::query, AttentionTensor::key, AttentionTensor::value);
    arguments.add_heads(shape, problem.grad_qkv, AttentionTensor::grad_query, AttentionTensor::grad_key,
                        AttentionTensor::grad_value);
    arguments.add(AttentionTensor::output, problem.output.data());
    arguments.add(AttentionTensor::log_sum_exp, problem.log_sum_exp.data());
    arguments.add(AttentionTensor::grad_output, problem.grad_output.data());
    arguments.add(AttentionTensor::mean_gradients, workspace.means);
    arguments.execute(plan_, workspace.of_plan);
  }

 private:
  std::shared_ptr<const Proposal> proposal_;
  CudnnPlan plan_;
  int64_t engine_;
  int64_t workspace_floats_;
};

class CudnnAttention final : public AttentionLibrary {
 public:
  std::string problem() const override { return cudnn_library().reason; }
  std::string name() const override { return cudnn_version_text(); }
  std::vector<Engine> engines(const AttentionShape& shape, AttentionPass pass) const override {
    const auto proposal = std::make_shared<const Proposal>(shape, pass, CudnnTarget::this_gpu());
    std::vector<Engine> engines;
    for (const CudnnDescriptor* configuration : proposal->configurations.all()) {
      engines.emplace_back([shape, proposal, configuration] {
        return std::make_unique<CudnnAttentionPlan>(shape, proposal, *configuration);
      });
    }
    return engines;
  }
};

CudnnAttentionPass ask(const AttentionShape& shape, AttentionPass pass, const CudnnTarget& target) {
  CudnnAttentionPass answer;
  try {
    const AttentionGraph graph(shape, pass, target);
    const AttentionGraph::Configurations configurations = graph.configurations();
    answer.chosen_by_hand = configurations.by_hand != nullptr;
    for (const CudnnDescriptor* configuration : configurations.all()) {
      answer.engines.push_back(cudnn_engine_of(*configuration));
    }
    if (answer.engines.empty()) answer.refusal = cudnn_version_text() + " has no engine";
  } catch (const Error& error) {
    if (error.code() != ExitCode::bad_config) throw;
    answer.refusal = error.what();
  }
  return answer;
}

}  // namespace

const AttentionLibrary& cudnn_attention() {
  static const auto& library = *new CudnnAttention;  // plans refer to it until the process ends
  return library;
}

CudnnAttentionSupport cudnn_attention_support(const AttentionShape& shape, const std::string& device_json) {
  const CudnnTarget target = CudnnTarget::described(device_json);
  return {.version = cudnn_library().version,
          .forward = ask(shape, AttentionPass::forward, target),
          .backward = ask(shape, AttentionPass::backward, target)};
}

}  // namespace nibble::cuda
