// The choice among the engines of an attention library. The library of these tests has engines of any behaviour, which
// compute with nibble's exact kernels, so that what a sound engine computes has the bits of the CPU.
#include "model/ops/attention/attention_plans.h"

#include <gmock/gmock.h>

#include <functional>

#include "cuda/attention_fixture.h"
#include "model/ops/attention/attention_backend_kind.h"
#include "model/ops/attention/attention_exact.h"

namespace nibble {
namespace {

using cuda::AttentionPass;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

enum class Fault {
  none,
  refuses,   // makes no plan
  unstable,  // one element has another bit every second time
  wrong,     // the last element of every row has the wrong sign
  unwritten  // leaves the last row as it was
};

struct FakeEngine {
  int64_t number = 0;
  AttentionPass pass = AttentionPass::forward;
  Fault fault = Fault::none;
  std::function<int64_t(const AttentionShape&)> workspace = {};  // floats; else what the exact kernels need
};

// What the library was asked for.
struct Calls {
  int plans[2] = {};
  std::vector<int64_t> engines;  // that ran
};

class FakePlan final : public cuda::AttentionPlan {
 public:
  FakePlan(const FakeEngine& engine, const AttentionShape& shape, Calls& calls)
      : engine_(engine),
        floats_(engine.workspace ? engine.workspace(shape) : cuda::exact_attention::workspace_floats(shape)),
        calls_(calls) {}
  int64_t engine() const override { return engine_.number; }
  int64_t workspace_floats() const override { return floats_; }
  void forward(const AttentionForward& problem) const override {
    run(problem.workspace, problem.output, [&] { cuda::exact_attention::forward(problem); });
  }
  void backward(const AttentionBackward& problem) const override {
    run(problem.workspace, problem.grad_qkv, [&] { cuda::exact_attention::backward(problem); });
  }

 private:
  void run(const Tensor& workspace, const Tensor& result, const std::function<void()>& compute) const {
    EXPECT_GE(workspace.elements(), floats_);
    calls_.engines.push_back(engine_.number);
    ++runs_;
    const HostCopy before(result.slice(result.size(0) - 1, result.size(0)));
    compute();
    const HostCopy computed(result);
    const Tensor& values = computed.tensor();
    const int64_t columns = values.cols();
    if (engine_.fault == Fault::unstable && runs_ % 2 == 0) values.as<BFloat16>()[0].bits ^= 1U;
    for (int64_t row = 0; row < values.rows() && engine_.fault == Fault::wrong; ++row) {
      for (int64_t column = columns - 8; column < columns; ++column) {
        values.as<BFloat16>()[row * columns + column].bits ^= 0x8000U;
      }
    }
    copy(values, result);
    if (engine_.fault == Fault::unwritten) copy(before.tensor(), result.slice(result.size(0) - 1, result.size(0)));
  }

  FakeEngine engine_;
  int64_t floats_;
  Calls& calls_;
  mutable int runs_ = 0;
};

class FakeLibrary final : public cuda::AttentionLibrary {
 public:
  explicit FakeLibrary(std::vector<FakeEngine> with) : engines_(std::move(with)) {}
  std::string problem() const override { return {}; }
  std::string name() const override { return "fake 1.0"; }
  std::vector<Engine> engines(const AttentionShape& shape, AttentionPass pass) const override {
    std::vector<Engine> result;
    for (const FakeEngine& engine : engines_) {
      if (engine.pass != pass) continue;
      result.emplace_back([this, engine, shape, pass]() -> std::unique_ptr<cuda::AttentionPlan> {
        if (engine.fault == Fault::refuses) throw Error(ExitCode::bad_config, "this engine does not like the shape");
        ++calls.plans[static_cast<int>(pass)];
        return std::make_unique<FakePlan>(engine, shape, calls);
      });
    }
    return result;
  }
  mutable Calls calls;

 private:
  std::vector<FakeEngine> engines_;
};

constexpr AttentionShape small{2, 40, 4, 2, 8};

class AttentionChoice : public DeviceTest {
 protected:
  void TearDown() override {
    cuda::use_attention_library(nullptr);
    set_attention_backend(AttentionBackendKind::automatic);
  }
  static std::string describe(const FakeLibrary& library, const AttentionUse& use) {
    cuda::use_attention_library(&library);
    return describe_attention_backend(use);
  }
  static FakeEngine forward(int64_t number, Fault fault = Fault::none) {
    return {number, AttentionPass::forward, fault, {}};
  }
  static FakeEngine backward(int64_t number, Fault fault = Fault::none) {
    return {number, AttentionPass::backward, fault, {}};
  }
};

TEST_F(AttentionChoice, TrainingTakesTheFirstEngineThatIsSound) {
  const FakeLibrary sound({forward(1), forward(2), backward(3), backward(4)});
  EXPECT_EQ(describe(sound, {.shape = small}), "fake 1.0 (engine 1 forward, 3 backward)");
  for (const Fault fault : {Fault::refuses, Fault::unstable, Fault::wrong, Fault::unwritten}) {
    SCOPED_TRACE(static_cast<int>(fault));
    const FakeLibrary in_forward({forward(1, fault), forward(2), backward(3)});
    EXPECT_EQ(describe(in_forward, {.shape = small}), "fake 1.0 (engine 2 forward, 3 backward)");
    const FakeLibrary in_backward({forward(1), backward(3, fault), backward(4, fault), backward(5)});
    EXPECT_EQ(describe(in_backward, {.shape = small}), "fake 1.0 (engine 1 forward, 5 backward)");
  }
}

TEST_F(AttentionChoice, TrainingIsTriedWithDocuments) {
  AttentionShape documents = small;
  documents.document_mask = true;
  const FakeLibrary library({forward(1), backward(3, Fault::unstable), backward(4)});
  EXPECT_EQ(describe(library, {.shape = documents}), "fake 1.0 (engine 1 forward, 4 backward)");
}

TEST_F(AttentionChoice, WithoutASoundEngineTrainingIsExact) {
  const FakeLibrary library({forward(1), backward(3, Fault::unstable)});
  EXPECT_EQ(describe(library, {.shape = small}),
            "exact: engine 3 of fake 1.0, backward pass: two runs on the same operands have different bits");
  AttentionOperands operands(small, DType::bf16);
  library.calls.engines.clear();
  operands.forward();
  operands.backward();
  EXPECT_TRUE(same_bits(operands.grad_qkv));
  EXPECT_TRUE(library.calls.engines.empty());
  const FakeLibrary none({});
  EXPECT_EQ(describe(none, {.shape = small}), "exact: fake 1.0 has no engine for the forward pass with head_dim 8");
}

TEST_F(AttentionChoice, PassesRunOnTheirEngines) {
  const FakeLibrary library({forward(1), backward(3)});
  cuda::use_attention_library(&library);
  AttentionOperands operands(small, DType::bf16);
  operands.workspace(DeviceKind::cuda);
  library.calls.engines.clear();
  operands.forward();
  operands.backward();
  EXPECT_TRUE(same_bits(operands.output));
  EXPECT_TRUE(same_bits(operands.grad_qkv));
  EXPECT_EQ(library.calls.engines, (std::vector<int64_t>{1, 3}));
}

TEST_F(AttentionChoice, InferencePlansTheForwardPassOnly) {
  const FakeLibrary library({forward(1), backward(3)});
  EXPECT_EQ(describe(library, {.shape = small, .training = false}), "fake 1.0 (engine 1 forward)");
  EXPECT_EQ(library.calls.plans[0], 1);
  EXPECT_EQ(library.calls.plans[1], 0);
  AttentionOperands shorter({1, 16, 4, 2, 8}, DType::bf16);
  shorter.forward_as_planned_for(small);
  EXPECT_EQ(library.calls.plans[0], 2);
  EXPECT_EQ(library.calls.plans[1], 0);
}

// The last micro-batch of a validation, or a text that grows, has fewer tokens than was planned for, and may get a plan
// with more workspace.
TEST_F(AttentionChoice, ASmallerShapeFitsTheWorkspaceOrIsExact) {
  const auto grows = [](const AttentionShape& shape) {
    return shape.tokens() < small.tokens() ? int64_t{1} << 20 : int64_t{1000};
  };
  AttentionOperands shorter({1, 16, 4, 2, 8}, DType::bf16);
  FakeEngine first = forward(1);
  first.workspace = grows;
  {
    const FakeLibrary library({first, forward(2)});
    EXPECT_EQ(describe(library, {.shape = small, .training = false}), "fake 1.0 (engine 1 forward)");
    shorter.forward_as_planned_for(small);
    EXPECT_EQ(library.calls.engines, std::vector<int64_t>{2});
  }
  const FakeLibrary library({first});
  cuda::use_attention_library(&library);
  ::testing::internal::CaptureStderr();
  for (const int64_t length : {16, 32}) {
    AttentionOperands operands({1, length, 4, 2, 8}, DType::bf16);
    operands.forward_as_planned_for(small);
    operands.forward_on(DeviceKind::cpu, operands.workspace(DeviceKind::cpu).cpu());
    EXPECT_TRUE(same_bits(operands.output));
  }
  EXPECT_TRUE(library.calls.engines.empty());
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, AllOf(HasSubstr("1 x 16 tokens is computed by nibble's exact kernels"), HasSubstr("workspace")));
  EXPECT_THAT(log, Not(HasSubstr("1 x 32 tokens"))) << "it is said once";
}

TEST_F(AttentionChoice, LongExactTrainingIsAskedForByName) {
  const FakeLibrary library({forward(1), backward(3, Fault::refuses)});
  cuda::use_attention_library(&library);
  const AttentionUse allowed{.shape = {1, 512, 1, 1, 8}};
  const AttentionUse longer{.shape = {1, 528, 1, 1, 8}};
  refuse_unasked_exact_attention(allowed, longest_unasked_exact, DeviceKind::cuda);
  try {
    refuse_unasked_exact_attention(longer, longest_unasked_exact, DeviceKind::cuda);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_config);
    EXPECT_THAT(error.what(), AllOf(HasSubstr("528 tokens"), HasSubstr("does not like the shape")));
    EXPECT_THAT(error.remedy(),
                AllOf(HasSubstr("cuda.attention=exact"), HasSubstr("cuDNN 9.10"), HasSubstr("8 times")));
  }
  refuse_unasked_exact_attention(longer, longest_unasked_exact, DeviceKind::cpu);
  set_attention_backend(AttentionBackendKind::exact);
  refuse_unasked_exact_attention(longer, longest_unasked_exact, DeviceKind::cuda);
  set_attention_backend(AttentionBackendKind::automatic);
  EXPECT_THROW(refuse_unasked_exact_attention({.shape = longer.shape, .dtype = DType::f32}, longest_unasked_exact,
                                              DeviceKind::cuda),
               Error);
  EXPECT_THROW(refuse_unasked_exact_attention(allowed, 0, DeviceKind::cuda), Error);
}

}  // namespace
}  // namespace nibble
