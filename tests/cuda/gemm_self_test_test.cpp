// Checks that the self-test of native GEMMs passes, and fails where the library is wrong: then nothing runs there.
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>

#include "cuda/gemm_fixture.h"
#include "dist/base/error.h"
#include "quant/gemm/cuda/cublaslt_library.h"
#include "quant/gemm/cuda/gemm_backend.h"
#include "quant/gemm/cuda/gemm_self_test.h"
#include "quant/gemm/gemm_backend_kind.h"

namespace nibble {
namespace {

class GemmSelfTest : public DeviceTest {
 protected:
  static void SetUpTestSuite() {
    setenv("NIBBLE_SIMULATED_CAPABILITY", "103", 1);
    use_first_gpu();
  }
  void SetUp() override {
    ASSERT_NE(cuda::cublaslt(), nullptr) << cuda::cublaslt_absence();
    const std::string refusal = cuda::cublaslt_gemm().refusal({.a = Format::nvfp4, .b = Format::nvfp4});
    if (!refusal.empty()) GTEST_SKIP() << refusal;
    cuda::forget_gemm_self_test();
  }
  void TearDown() override {
    unsetenv("NIBBLE_FAKE_CUBLASLT_FAULT");
    cuda::forget_gemm_self_test();
  }
  // Returns whether the library can be made wrong: not on a GPU.
  static bool library_can_be_wrong() {
    void* const library = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_NOLOAD);
    return library != nullptr && dlsym(library, "fake_cublaslt_heuristic_calls") != nullptr;
  }
};

TEST_F(GemmSelfTest, PassesAndIsCached) {
  const std::vector<cuda::ProbeResult> results = cuda::run_gemm_self_test();
  EXPECT_GE(results.size(), 21U);  // seven probes of nvfp4 and of two kinds of mxfp8
  for (const cuda::ProbeResult& result : results) {
    EXPECT_TRUE(result.passed) << result.backend << ", " << result.format << ", " << result.probe << ": "
                               << result.finding;
  }
  EXPECT_TRUE(cuda::native_gemm_is_sound());
  setenv("NIBBLE_FAKE_CUBLASLT_FAULT", "alpha", 1);
  EXPECT_TRUE(cuda::native_gemm_is_sound());  // probed once a process
}

struct Fault {
  const char* name;
  const char* probe;  // the probe that finds the fault first
  bool in_mxfp8 = true;
};

TEST_F(GemmSelfTest, FindsWhatLibrariesDoWrong) {
  if (!library_can_be_wrong()) GTEST_SKIP() << "only the simulator's library";
  for (const Fault& fault : {Fault{"alpha", "scales of whole tensors"}, Fault{"swizzle", "one scale of 2 among ones"},
                             Fault{"beta", "sum with the output"}, Fault{"nibbles", "order of elements", false},
                             Fault{"unstable", "ten times the same"}}) {
    setenv("NIBBLE_FAKE_CUBLASLT_FAULT", fault.name, 1);
    cuda::forget_gemm_self_test();
    const std::vector<cuda::ProbeResult> results = cuda::run_gemm_self_test();
    for (const std::string format : {"nvfp4", "mxfp8_e4m3"}) {
      const auto failed = std::find_if(results.begin(), results.end(), [&](const cuda::ProbeResult& result) {
        return result.format == format && result.probe == fault.probe && !result.passed;
      });
      const bool expected = format == "nvfp4" || fault.in_mxfp8;
      EXPECT_EQ(failed != results.end(), expected) << fault.name << ", " << format;
      if (failed != results.end()) {
        EXPECT_FALSE(failed->finding.empty());
      }
    }
    testing::internal::CaptureStderr();
    EXPECT_FALSE(cuda::native_gemm_is_sound()) << fault.name;
    const std::string warning = testing::internal::GetCapturedStderr();
    EXPECT_NE(warning.find("self-test"), std::string::npos) << warning;
  }
}

TEST_F(GemmSelfTest, AFailedLibraryIsNotUsed) {
  if (!library_can_be_wrong()) GTEST_SKIP() << "only the simulator's library";
  setenv("NIBBLE_FAKE_CUBLASLT_FAULT", "swizzle", 1);  // emulation reads the scales itself, so it is right
  EXPECT_NE(cuda::describe_gemm(Format::nvfp4, Format::nvfp4).find("emulated in bf16"), std::string::npos)
      << cuda::describe_gemm(Format::nvfp4, Format::nvfp4);
  const TwinOperand a({Format::nvfp4, 16, 64}, 1);
  const TwinOperand b({Format::nvfp4, 16, 64}, 2);
  TwinTensor output(DType::f32, {16, 16});
  const size_t bytes = gemm_scratch_bytes(shape_of(a, b), DeviceKind::cuda);
  EXPECT_EQ(bytes, size_t{2 * 16 * 64 * 2});
  const DeviceBytes scratch(bytes);
  gemm({.a = a.cpu(), .b = b.cpu(), .output = output.cpu()});
  gemm({.a = a.gpu(), .b = b.gpu(), .output = output.gpu(), .scratch = scratch.tensor()});
  const HostCopy got(output.gpu());
  for (int64_t i = 0; i < 256; ++i)
    ASSERT_NEAR(got.as<float>()[static_cast<size_t>(i)], output.cpu().as<float>()[i], 1e-4);
}

}  // namespace
}  // namespace nibble
