#include "model/ops/attention/cudnn_attention.h"

#include <array>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <tuple>

#include "model/ops/attention/attention_blocks.h"
#include "model/ops/attention/cudnn/cudnn_attention_graph.h"

namespace nibble::cuda {
namespace {

constexpr int64_t alignment_floats = 64;  // alignment of the parts of the workspace

std::string no_engine(const AttentionShape& shape) {
  return cudnn_version_text() + " has no engine for this shape" + (shape.document_mask ? " that masks documents" : "");
}

// One pass of one shape. The plan refers to the graph, so the graph lives as long.
class PlannedPass {
 public:
  // Throws with cuDNN's message if cuDNN has no plan.
  PlannedPass(const AttentionShape& shape, AttentionPass pass, const CudnnTarget& target)
      : graph_(shape, pass, target), configurations_(graph_.configurations()) {
    std::string refusal = no_engine(shape);
    for (const CudnnDescriptor* configuration : configurations_.all()) {
      try {
        plan_.emplace(*configuration, target);
        engine_ = cudnn_engine_of(*configuration);
        return;
      } catch (const Error& error) {
        refusal = error.what();
      }
    }
    throw Error(ExitCode::bad_config, refusal);
  }
  const CudnnPlan& plan() const { return *plan_; }
  int64_t engine() const { return engine_; }

 private:
  AttentionGraph graph_;
  AttentionGraph::Configurations configurations_;
  std::optional<CudnnPlan> plan_;
  int64_t engine_ = 0;
};

// The plans of both passes of a shape, or why there are none.
struct PlannedShape {
  std::unique_ptr<CudnnTarget> target;
  std::unique_ptr<PlannedPass> forward, backward;
  std::string refusal;

  explicit PlannedShape(const AttentionShape& shape) {
    if (shape.head_dim != 64 && shape.head_dim != 128) {
      refusal = "head_dim is " + std::to_string(shape.head_dim) + ", and cuDNN is asked for 64 and 128 only";
      return;
    }
    if (!cudnn_library().available) {
      refusal = cudnn_library().reason;
      return;
    }
    try {
      target = std::make_unique<CudnnTarget>(CudnnTarget::this_gpu());
      forward = std::make_unique<PlannedPass>(shape, AttentionPass::forward, *target);
      backward = std::make_unique<PlannedPass>(shape, AttentionPass::backward, *target);
    } catch (const Error& error) {
      if (error.code() != ExitCode::bad_config) throw;
      refusal = error.what();
    }
  }

  int64_t workspace_floats(const AttentionShape& shape) const {
    const size_t bytes = std::max(forward->plan().workspace_bytes(), backward->plan().workspace_bytes());
    return alignment_floats + mean_floats(shape) + div_ceil(static_cast<int64_t>(bytes), int64_t{sizeof(float)});
  }
  static int64_t mean_floats(const AttentionShape& shape) {
    return round_up(shape.tokens() * shape.query_heads, alignment_floats);
  }
};

// Plans live until the process ends, because the driver may be gone when destructors run.
const PlannedShape& planned(const AttentionShape& shape) {
  using Key = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, bool>;
  static std::mutex mutex;
  static auto& shapes = *new std::map<Key, PlannedShape>;
  const std::lock_guard lock(mutex);
  const Key key{shape.sequences, shape.sequence_length, shape.query_heads,
                shape.kv_heads,  shape.head_dim,        shape.document_mask};
  const auto found = shapes.find(key);
  return found != shapes.end() ? found->second : shapes.try_emplace(key, shape).first->second;
}

const PlannedShape& with_plans(const AttentionShape& shape) {
  const PlannedShape& known = planned(shape);
  NIBBLE_CHECK(known.refusal.empty(), known.refusal);
  return known;
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
    of_plan = means + PlannedShape::mean_floats(shape);
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
    if (answer.engines.empty()) answer.refusal = no_engine(shape);
  } catch (const Error& error) {
    if (error.code() != ExitCode::bad_config) throw;
    answer.refusal = error.what();
  }
  return answer;
}

}  // namespace

std::string cudnn_attention_refusal(const AttentionShape& shape) {
  return planned(shape).refusal;
}

std::string cudnn_attention_name(const AttentionShape& shape) {
  const PlannedShape& known = with_plans(shape);
  return cudnn_version_text() + " (engine " + std::to_string(known.forward->engine()) + " forward, " +
         std::to_string(known.backward->engine()) + " backward, deterministic)";
}

int64_t cudnn_attention_workspace_floats(const AttentionShape& shape) {
  return with_plans(shape).workspace_floats(shape);
}

void cudnn_attention_forward(const AttentionForward& problem) {
  const AttentionShape& shape = problem.shape;
  Arguments arguments(shape, problem.document_starts);
  arguments.add_heads(shape, problem.qkv, AttentionTensor::query, AttentionTensor::key, AttentionTensor::value);
  arguments.add(AttentionTensor::output, problem.output.data());
  arguments.add(AttentionTensor::log_sum_exp, problem.log_sum_exp.data());
  arguments.execute(with_plans(shape).forward->plan(), Workspace(shape, problem.workspace).of_plan);
}

void cudnn_attention_backward(const AttentionBackward& problem) {
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
  arguments.execute(with_plans(shape).backward->plan(), workspace.of_plan);
}

CudnnAttentionSupport cudnn_attention_support(const AttentionShape& shape, const std::string& device_json) {
  const CudnnTarget target = CudnnTarget::described(device_json);
  return {.version = cudnn_library().version,
          .forward = ask(shape, AttentionPass::forward, target),
          .backward = ask(shape, AttentionPass::backward, target)};
}

}  // namespace nibble::cuda
