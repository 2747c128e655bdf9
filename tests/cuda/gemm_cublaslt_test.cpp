// Compares GEMMs by cuBLASLt, native and emulated, with the exact backend. Where the device lacks what a test needs, as
// a GPU before Blackwell has no FP4 units, the test says so and is skipped; the simulator has it.
#include <dlfcn.h>

#include <cmath>
#include <cstdlib>

#include "cuda/gemm_fixture.h"
#include "dist/base/error.h"
#include "quant/gemm/cuda/cublaslt_library.h"
#include "quant/gemm/cuda/gemm_backend.h"
#include "quant/gemm/cuda/gemm_rules.h"
#include "quant/gemm/cuda/gemm_self_test.h"
#include "quant/gemm/gemm_backend_kind.h"

namespace nibble {
namespace {

using cuda::GemmBackendKind;

// The simulated device has the compute capability 10.0 of a Blackwell GPU.
class CublasLt : public DeviceTest {
 protected:
  static void SetUpTestSuite() {
    setenv("NIBBLE_SIMULATED_CAPABILITY", "100", 1);
    use_first_gpu();
  }
  void SetUp() override { ASSERT_NE(cuda::cublaslt(), nullptr) << cuda::cublaslt_absence(); }
  void TearDown() override {
    unsetenv("NIBBLE_FAKE_CUBLASLT_VERSION");
    cuda::set_gemm_backend(GemmBackendKind::automatic);
    cuda::set_gemm_fallback(cuda::GemmFallback::exact);
    cuda::forget_gemm_self_test();
  }
};

struct GemmCase {
  const TwinOperand& a;
  const TwinOperand& b;
  DType dtype = DType::f32;
  bool accumulate = false;
};

std::vector<float> run(GemmBackendKind backend, const GemmCase& problem, float before) {
  cuda::set_gemm_backend(backend);
  const GemmShape shape = shape_of(problem.a, problem.b);
  const DeviceBytes scratch(gemm_scratch_bytes(shape, DeviceKind::cuda));
  TwinTensor output(problem.dtype, {shape.m, shape.n});
  for (int64_t i = 0; i < output.cpu().elements(); ++i) {
    if (problem.dtype == DType::f32) output.cpu().as<float>()[i] = before;
    if (problem.dtype == DType::bf16) output.cpu().as<BFloat16>()[i] = bf16_nearest(before);
  }
  output.upload();
  gemm({.a = problem.a.gpu(),
        .b = problem.b.gpu(),
        .output = output.gpu(),
        .accumulate = problem.accumulate,
        .scratch = scratch.tensor()});
  const HostCopy host(output.gpu());
  std::vector<float> values(static_cast<size_t>(output.cpu().elements()));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = problem.dtype == DType::f32 ? host.as<float>()[i] : to_float(host.as<BFloat16>()[i]);
  }
  return values;
}

// Returns sum |a b| of every output, from decoded operands.
std::vector<double> sizes_of(const TwinOperand& a, const TwinOperand& b) {
  const auto decoded = [](const QuantizedTensor& operand) {
    std::vector<float> values(static_cast<size_t>(operand.rows * operand.inner));
    if (is_quantized(operand.format)) {
      dequantize(operand, tensor_of(std::span<float>(values), {operand.rows, operand.inner}));
      return values;
    }
    for (int64_t row = 0; row < operand.rows; ++row) {
      for (int64_t k = 0; k < operand.inner; ++k) {
        const int64_t place = operand.transposed ? k * operand.rows + row : row * operand.inner + k;
        values[static_cast<size_t>(row * operand.inner + k)] = operand.format == Format::f32
                                                                   ? operand.values.as<float>()[place]
                                                                   : to_float(operand.values.as<BFloat16>()[place]);
      }
    }
    return values;
  };
  const std::vector<float> left = decoded(a.cpu());
  const std::vector<float> right = decoded(b.cpu());
  const GemmShape shape = shape_of(a, b);
  std::vector<double> sizes;
  for (int64_t i = 0; i < shape.m; ++i) {
    for (int64_t j = 0; j < shape.n; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < shape.k; ++k) {
        sum += std::abs(static_cast<double>(left[static_cast<size_t>(i * shape.k + k)]) *
                        right[static_cast<size_t>(j * shape.k + k)]);
      }
      sizes.push_back(sum);
    }
  }
  return sizes;
}

// Returns the counter of the simulator's library, which counts requests for algorithms; null on a GPU.
int (*heuristic_calls())() {
  void* const library = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_NOLOAD);
  return library == nullptr ? nullptr : reinterpret_cast<int (*)()>(dlsym(library, "fake_cublaslt_heuristic_calls"));
}

// The errors of both backends are at most k units of 2^-24 of the sum of magnitudes; f32 operands that are multiplied
// as such lose nothing either. Output rounding comes on top.
void expect_close(GemmBackendKind backend, const GemmCase& problem, const std::string& what) {
  const float before = problem.accumulate ? 2.5F : std::nanf("");
  const std::vector<float> got = run(backend, problem, before);
  const std::vector<float> wanted =
      run(GemmBackendKind::exact, {problem.a, problem.b, DType::f32, problem.accumulate}, before);
  const std::vector<double> sizes = sizes_of(problem.a, problem.b);
  const bool eight_bits = traits_of(problem.a.cpu().format).code_bits == 8 && heuristic_calls() == nullptr;
  const double unit = eight_bits ? 0x1p-12 : 2 * static_cast<double>(problem.a.cpu().inner + 2) * 0x1p-24;
  for (size_t i = 0; i < got.size(); ++i) {
    const double last = std::abs(static_cast<double>(wanted[i])) * (problem.dtype == DType::bf16 ? 0x1p-8 : 0x1p-22);
    ASSERT_NEAR(got[i], wanted[i], unit * sizes[i] + last) << what << ", element " << i;
  }
}
void expect_close_everywhere(GemmBackendKind backend, const TwinOperand& a, const TwinOperand& b,
                             const std::string& what) {
  expect_close(backend, {a, b}, what + ", fp32");
  expect_close(backend, {a, b, DType::f32, true}, what + ", added");
  const bool f32 = a.cpu().format == Format::f32 || b.cpu().format == Format::f32 || !a.cpu().outer_scales.empty();
  if (!f32) expect_close(backend, {a, b, DType::bf16}, what + ", bf16");
}

TEST_F(CublasLt, EveryPairNativeOrEmulated) {
  constexpr int64_t inner = 96;
  for (const Format left : all_formats) {
    for (const Format right : all_formats) {
      const TwinOperand a({left, 37, inner}, 1);
      const TwinOperand b({right, 48, inner}, 2);
      expect_close_everywhere(GemmBackendKind::automatic, a, b, name_of_pair(left, right));
      expect_close_everywhere(GemmBackendKind::emulated, a, b, "emulated " + name_of_pair(left, right));
      if (cuda::cublaslt_gemm().refusal(shape_of(a, b)).empty()) {
        expect_close_everywhere(GemmBackendKind::cublaslt, a, b, "native " + name_of_pair(left, right));
      }
    }
  }
}

TEST_F(CublasLt, WhatIsNativeOnBlackwell) {
  if (!cuda::native_gemm_is_sound()) GTEST_SKIP() << cuda::describe_gemm(Format::nvfp4, Format::nvfp4);
  const auto native = [](Format a, Format b) { return cuda::cublaslt_gemm().refusal({.a = a, .b = b}).empty(); };
  for (const Format a : all_formats) {
    for (const Format b : all_formats) {
      const bool fp8 = a >= Format::fp8_e4m3 && b >= Format::fp8_e4m3 && (a == Format::fp8_e4m3 || a != b);
      const bool mx = (a == Format::mxfp8_e4m3 || a == Format::mxfp8_e5m2) &&
                      (b == Format::mxfp8_e4m3 || b == Format::mxfp8_e5m2) && (a == Format::mxfp8_e4m3 || a != b);
      const bool same = a == b && (a == Format::f32 || a == Format::bf16 || a == Format::nvfp4);
      EXPECT_EQ(native(a, b), fp8 || mx || same) << name_of_pair(a, b);
    }
  }
  EXPECT_EQ(cuda::describe_gemm(Format::nvfp4, Format::nvfp4), "nvfp4: native, " + cuda::cublaslt_gemm().description());
}

TEST_F(CublasLt, TransposedOperandsAsTheyLie) {
  for (const Format format : {Format::bf16, Format::f32}) {
    for (const bool left : {false, true}) {
      for (const bool right : {false, true}) {
        const TwinOperand a({format, 37, 45, left}, 1);
        const TwinOperand b({format, 24, 45, right}, 2);
        expect_close_everywhere(GemmBackendKind::cublaslt, a, b, std::string(name_of(format)));
      }
    }
  }
  const TwinOperand a({Format::bf16, 33, 64, true}, 1);
  const TwinOperand b({Format::nvfp4, 34, 64}, 2);
  expect_close_everywhere(GemmBackendKind::emulated, a, b, "bf16 transposed x nvfp4");
}

TEST_F(CublasLt, ManyStripsOfScales) {
  const TwinOperand a({Format::nvfp4, 140, 224}, 1);
  const TwinOperand b({Format::nvfp4, 136, 224}, 2);
  expect_close_everywhere(GemmBackendKind::automatic, a, b, "nvfp4");
  expect_close_everywhere(GemmBackendKind::emulated, a, b, "emulated nvfp4");
}

TEST_F(CublasLt, ShapesThatAreNotNativeAreEmulated) {
  const TwinOperand a({Format::nvfp4, 37, 48}, 1);  // k is no multiple of 32
  const TwinOperand b({Format::nvfp4, 24, 48}, 2);
  EXPECT_FALSE(cuda::cublaslt_gemm().refusal(shape_of(a, b)).empty());
  EXPECT_GT(gemm_scratch_bytes(shape_of(a, b), DeviceKind::cuda), 0U);
  expect_close_everywhere(GemmBackendKind::automatic, a, b, "k = 48");
  const TwinOperand c({Format::fp8_e4m3, 37, 33}, 1);
  const TwinOperand d({Format::fp8_e4m3, 23, 33}, 2);
  expect_close_everywhere(GemmBackendKind::automatic, c, d, "odd fp8");
  cuda::set_gemm_backend(GemmBackendKind::cublaslt);
  try {
    gemm_scratch_bytes(shape_of(a, b), DeviceKind::cuda);
    FAIL() << "a backend that was named must not be replaced";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_config);
    EXPECT_FALSE(error.remedy().empty());
  }
}

TEST_F(CublasLt, OuterScalesAreMultipliedInFp32) {
  const TwinOperand a({Format::nvfp4, 36, 256, false, true}, 1);
  const TwinOperand b({Format::nvfp4, 24, 256}, 2);
  const TwinOperand c({Format::bf16, 24, 256, true}, 3);
  expect_close_everywhere(GemmBackendKind::automatic, a, b, "nvfp4");
  expect_close_everywhere(GemmBackendKind::automatic, a, c, "bf16 transposed");
}

TEST_F(CublasLt, RotationsAndTensorScalesGoIntoAlpha) {
  TwinOperand a({Format::nvfp4, 16, 64}, 1);
  TwinOperand b({Format::nvfp4, 16, 64}, 2);
  a.cpu().rotation_bits = b.cpu().rotation_bits = 7;
  a.cpu().tensor_scale.as<float>()[0] = 1e-25F;
  b.cpu().tensor_scale.as<float>()[0] = 3e-9F;
  a.upload();
  b.upload();
  const GemmCase problem{a, b};
  for (const GemmBackendKind backend : {GemmBackendKind::automatic, GemmBackendKind::emulated}) {
    const std::vector<float> got = run(backend, problem, 0);
    const std::vector<float> wanted = run(GemmBackendKind::exact, problem, 0);
    for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], wanted[i], 1e-5 * std::abs(wanted[i]) + 1e-37) << i;
    EXPECT_GT(std::abs(got[0]), 1e-34F);
  }
}

TEST_F(CublasLt, TwiceTheSameBits) {
  const TwinOperand a({Format::nvfp4, 36, 96}, 1);
  const TwinOperand b({Format::nvfp4, 24, 96}, 2);
  for (const GemmBackendKind backend : {GemmBackendKind::automatic, GemmBackendKind::emulated}) {
    const GemmCase problem{a, b};
    EXPECT_EQ(run(backend, problem, 0), run(backend, problem, 0));
  }
}

TEST_F(CublasLt, AlgorithmsAreChosenOnceAndCarriedInAPlan) {
  const TwinOperand a({Format::bf16, 40, 56}, 1);
  const TwinOperand b({Format::bf16, 24, 56}, 2);
  const std::vector<float> first = run(GemmBackendKind::cublaslt, {a, b}, 0);
  const std::string plan = cuda::export_gemm_plan();
  EXPECT_NE(plan.find("\n40 24 56 "), std::string::npos) << plan;
  const auto calls = heuristic_calls();
  const int before = calls != nullptr ? calls() : 0;
  cuda::import_gemm_plan(plan);
  EXPECT_EQ(cuda::export_gemm_plan(), plan);
  EXPECT_EQ(run(GemmBackendKind::cublaslt, {a, b}, 0), first);
  if (calls != nullptr) {
    EXPECT_EQ(calls(), before);
  }
}

TEST_F(CublasLt, APlannedAlgorithmThatTheLibraryDoesNotTakeIsReplaced) {
  const TwinOperand a({Format::bf16, 41, 56}, 1);
  const TwinOperand b({Format::bf16, 24, 56}, 2);
  const std::vector<float> first = run(GemmBackendKind::cublaslt, {a, b}, 0);
  const std::string plan = cuda::export_gemm_plan();
  std::string damaged = plan;
  const size_t line = damaged.find("\n41 24 56 ");
  ASSERT_NE(line, std::string::npos);
  size_t word = line;  // first word of the algorithm, behind 13 numbers
  for (int i = 0; i < 13; ++i) word = damaged.find(' ', word + 1);
  damaged.replace(word + 1, damaged.find(' ', word + 1) - word - 1, "fedcba9876543210");
  testing::internal::CaptureStderr();
  cuda::import_gemm_plan(damaged);
  EXPECT_EQ(run(GemmBackendKind::cublaslt, {a, b}, 0), first);
  EXPECT_NE(testing::internal::GetCapturedStderr().find("does not accept"), std::string::npos);
  EXPECT_EQ(cuda::export_gemm_plan(), plan);
}

// Runs with a fault of the simulator's library, on a shape of its own, since a shape is tried once.
void expect_other_algorithm(const char* fault, int64_t rows) {
  const TwinOperand a({Format::nvfp4, rows, 96}, 1);
  const TwinOperand b({Format::nvfp4, 152, 96}, 2);
  const TwinOperand c({Format::bf16, rows, 96, true}, 3);
  cuda::native_gemm_is_sound();  // the self-test comes before the fault
  setenv("NIBBLE_FAKE_CUBLASLT_FAULT", fault, 1);
  testing::internal::CaptureStderr();
  expect_close_everywhere(GemmBackendKind::automatic, a, b, fault);
  expect_close_everywhere(GemmBackendKind::automatic, c, b, fault);
  const std::string log = testing::internal::GetCapturedStderr();
  unsetenv("NIBBLE_FAKE_CUBLASLT_FAULT");
  EXPECT_NE(log.find("algorithm 1, tile 0, stages 0 is not used for a GEMM"), std::string::npos) << log;
}

TEST_F(CublasLt, AnAlgorithmThatFailsItsTrialIsNotUsed) {
  if (heuristic_calls() == nullptr) GTEST_SKIP() << "only the simulator's library can be wrong on demand";
  expect_other_algorithm("first_wrong", 144);
  expect_other_algorithm("first_unstable", 160);
}

TEST_F(CublasLt, WithoutARightAlgorithmTheProductIsExactOrRefused) {
  if (heuristic_calls() == nullptr) GTEST_SKIP() << "only the simulator's library can be wrong on demand";
  const TwinOperand a({Format::bf16, 176, 96}, 1);
  const TwinOperand b({Format::bf16, 152, 96}, 2);
  const GemmCase problem{a, b, DType::f32, true};
  const std::vector<float> exact = run(GemmBackendKind::exact, problem, 1.5F);
  setenv("NIBBLE_FAKE_CUBLASLT_FAULT", "all_wrong", 1);
  EXPECT_EQ(run(GemmBackendKind::automatic, problem, 1.5F), exact);
  cuda::set_gemm_fallback(cuda::GemmFallback::emulated);
  EXPECT_THROW(run(GemmBackendKind::automatic, problem, 1.5F), Error);
  unsetenv("NIBBLE_FAKE_CUBLASLT_FAULT");
}

TEST_F(CublasLt, WhatIsNotNativeIsRefusedOnRequest) {
  const auto scratch = [](Format a, Format b) {
    return gemm_scratch_bytes({.a = a, .b = b, .m = 32, .n = 32, .k = 64}, DeviceKind::cuda);
  };
  EXPECT_GT(scratch(Format::mxfp4, Format::bf16), 0U);
  cuda::set_gemm_fallback(cuda::GemmFallback::none);
  EXPECT_EQ(scratch(Format::bf16, Format::bf16), 0U);
  EXPECT_THROW(scratch(Format::mxfp4, Format::bf16), Error);
  cuda::set_gemm_backend(GemmBackendKind::emulated);
  EXPECT_GT(scratch(Format::mxfp4, Format::bf16), 0U);
}

TEST_F(CublasLt, VersionsKnownToBeWrongAreRefused) {
  EXPECT_FALSE(cuda::known_nvfp4_fault(120803).empty());
  EXPECT_TRUE(cuda::known_nvfp4_fault(120900).empty());
  EXPECT_TRUE(cuda::known_nvfp4_fault(130100).empty());
  EXPECT_FALSE(cuda::known_nvfp4_fault(130400).empty());
  EXPECT_TRUE(cuda::known_nvfp4_fault(130401).empty());
  EXPECT_EQ(cuda::name_of_cublaslt_version(130401), "13.4.1");
  if (heuristic_calls() == nullptr) GTEST_SKIP() << "only the simulator's library can say that it is another version";
  setenv("NIBBLE_FAKE_CUBLASLT_VERSION", "130400", 1);
  EXPECT_EQ(cuda::describe_gemm(Format::nvfp4, Format::nvfp4),
            "nvfp4: emulated in bf16 (cuBLASLt 13.4.0 may ignore the scale of a whole tensor)");
  EXPECT_EQ(cuda::describe_gemm(Format::mxfp8_e4m3, Format::mxfp8_e4m3), "mxfp8_e4m3: native, cuBLASLt 13.4.0");
  const TwinOperand a({Format::nvfp4, 36, 96}, 1);
  const TwinOperand b({Format::nvfp4, 24, 96}, 2);
  expect_close_everywhere(GemmBackendKind::automatic, a, b, "emulated");
}

TEST_F(CublasLt, DescriptionsNameThePath) {
  EXPECT_EQ(cuda::describe_gemm(Format::bf16, Format::bf16), "bf16: native, " + cuda::cublaslt_gemm().description());
  EXPECT_EQ(cuda::describe_gemm(Format::mxfp4, Format::bf16),
            "mxfp4 x bf16: emulated in bf16 (cuBLASLt has no GEMM of these two formats)");
  cuda::set_gemm_backend(GemmBackendKind::exact);
  EXPECT_EQ(cuda::describe_gemm(Format::nvfp4, Format::nvfp4), "nvfp4: exact, kernels of nibble");
}

// An f32 GEMM has no bf16 output there; refusal() does not say so before.
TEST_F(CublasLt, WhatTheLibraryRefusesAfterAllIsExactOrAnError) {
  const TwinOperand a({Format::f32, 16, 32}, 1);
  const TwinOperand b({Format::f32, 24, 32}, 2);
  const GemmCase problem{a, b, DType::bf16};
  EXPECT_THROW(run(GemmBackendKind::cublaslt, problem, 0), Error);
  EXPECT_EQ(run(GemmBackendKind::automatic, problem, 0), run(GemmBackendKind::exact, problem, 0));
}

TEST_F(CublasLt, ScratchMemoryIsBounded) {
  cuda::set_gemm_backend(GemmBackendKind::emulated);
  const auto scratch = [](int64_t m, int64_t n, int64_t k) {
    return gemm_scratch_bytes({.a = Format::nvfp4, .b = Format::nvfp4, .m = m, .n = n, .k = k}, DeviceKind::cuda);
  };
  EXPECT_EQ(scratch(128, 256, 64), static_cast<size_t>((128 + 256) * 64 * 2));
  EXPECT_LE(scratch(1 << 20, 1 << 16, 1 << 14), size_t{512} << 20);
  EXPECT_EQ(gemm_scratch_bytes({.m = 128, .n = 128, .k = 64}, DeviceKind::cuda), 0U);  // bf16 x bf16
}

TEST_F(CublasLt, LargeOperandsAreDecodedInPieces) {
  const TwinOperand a({Format::nvfp4, 300, 48}, 1);
  const TwinOperand b({Format::mxfp8_e4m3, 260, 64}, 2);
  const TwinOperand c({Format::nvfp4, 260, 48}, 3);
  const TwinOperand d({Format::bf16, 300, 64, true}, 4);
  cuda::set_largest_decoded_part(1);
  cuda::set_gemm_backend(GemmBackendKind::emulated);
  EXPECT_EQ(gemm_scratch_bytes(shape_of(a, c), DeviceKind::cuda), size_t{2 * 128 * 48 * 2});
  expect_close_everywhere(GemmBackendKind::emulated, a, c, "both operands in pieces");
  expect_close_everywhere(GemmBackendKind::emulated, d, b, "one operand in pieces");
  cuda::set_largest_decoded_part(int64_t{256} << 20);
}

TEST_F(CublasLt, PlansFromElsewhereAreIgnoredAndDamagedOnesRefused) {
  const std::string plan = cuda::export_gemm_plan();
  const std::string line = "\n7 7 7 0 0 0 0 0 0 16 16 16 7 1 0 0 0 0 0 0 0 0\n";
  const auto import = [](const std::string& text) {
    testing::internal::CaptureStderr();
    cuda::import_gemm_plan(text);
    return testing::internal::GetCapturedStderr();
  };
  EXPECT_NE(import("nibble gemm plan 2\ndevice another GPU\nlibrary 130100" + line).find("another GPU"),
            std::string::npos);
  EXPECT_NE(import("nibble gemm plan 3\nwhatever").find("ignored"), std::string::npos);
  EXPECT_EQ(cuda::export_gemm_plan(), plan);
  for (const std::string damaged :
       {"", "plan", "nibble gemm plan 2\nlibrary 1\n", "nibble gemm plan 2\ndevice x\n",
        "nibble gemm plan 2\ndevice x\nlibrary 1x\n", "nibble gemm plan 2\ndevice x\nlibrary 1\n1 2 3\n",
        "nibble gemm plan 2\ndevice x\nlibrary 1\n7 7 7 0 0 0 0 0 0 16 16 16 7 g\n"}) {
    EXPECT_THROW(cuda::import_gemm_plan(damaged), Error) << damaged;
  }
}

}  // namespace
}  // namespace nibble
