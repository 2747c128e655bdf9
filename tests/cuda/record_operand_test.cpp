// Tests source_was_finite(), record_operand(), count_non_finite() and measure() on the device.
#include <array>
#include <cmath>
#include <limits>

#include "cuda/gemm_fixture.h"
#include "quant/quantize/statistics.h"

namespace nibble {
namespace {

class RecordOperand : public DeviceTest {};

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

void put(const TwinTensor& tensor, int64_t place, float value) {
  if (tensor.cpu().dtype() == DType::f32) {
    tensor.cpu().as<float>()[place] = value;
  } else {
    tensor.cpu().as<BFloat16>()[place] = bf16_nearest(value);
  }
}

TEST_F(RecordOperand, CountsElementsThatAreNotFinite) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const int64_t count : {1, 7, 4096, 70001}) {
      TwinTensor tensor(dtype, {count});
      tensor.fill_normal(1);
      EXPECT_EQ(count_non_finite(tensor.gpu()), 0);
      put(tensor, count - 1, nan);
      put(tensor, 0, -infinity);
      for (int64_t i = 3; i < count; i += 100) put(tensor, i, i % 3 == 0 ? nan : infinity);
      tensor.upload();
      EXPECT_EQ(count_non_finite(tensor.gpu()), count_non_finite(tensor.cpu())) << count;
      EXPECT_GE(count_non_finite(tensor.gpu()), count < 2 ? 1 : 2);
    }
  }
}

// An operand with this amax, whose source has so many elements that are not finite.
struct Case {
  float amax;
  int64_t not_finite;
  float observed_before;
};

class Recording {
 public:
  Recording(DType dtype, const Case& what, Format format = Format::nvfp4)
      : source_(dtype, {33, 64}), operand_({.format = format, .rows = 33, .inner = 64}, 1) {
    source_.fill_normal(2);
    for (int64_t i = 0; i < what.not_finite; ++i) put(source_, i * 13 + 2, i % 2 == 0 ? nan : infinity);
    source_.upload();
    if (is_quantized(format)) {
      operand_.cpu().tensor_scale.as<float>()[0] = std::isfinite(what.amax) ? 1 : nan;
      operand_.cpu().tensor_scale.as<float>()[1] = what.amax;
      operand_.upload();
    }
    count_.cpu().as<int64_t>()[0] = 100;
    count_.upload();
    observed_.cpu().as<float>()[1] = what.observed_before;
    observed_.upload();
  }

  void run(bool amax_wanted) {
    for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
      QuantizeProblem problem;
      problem.source = source_.on(device);
      problem.spec.format = operand_.cpu().format;
      record_operand(problem, device == DeviceKind::cpu ? operand_.cpu() : operand_.gpu(),
                     {.non_finite = count_.on(device),
                      .observed_amax = amax_wanted ? observed_.on(device).slice(1, 2) : Tensor()});
    }
    EXPECT_TRUE(same_bits(count_));
    EXPECT_TRUE(same_bits(observed_));
  }
  int64_t count() const { return HostCopy(count_.gpu()).as<int64_t>()[0]; }
  float observed() const { return HostCopy(observed_.gpu()).as<float>()[1]; }
  bool was_finite() const { return source_was_finite(operand_.gpu()); }

 private:
  TwinTensor source_;
  TwinOperand operand_;
  TwinTensor count_{DType::i64, {1}};
  TwinTensor observed_{DType::f32, {3}};
};

TEST_F(RecordOperand, FindsWhatTheCpuFinds) {
  // The rotation alone can overflow: then nothing in the source is not finite, and one is counted.
  constexpr Case cases[] = {{2, 0, 1}, {2, 0, 3}, {infinity, 1, 0}, {infinity, 57, 5}, {infinity, 0, 0}, {nan, 3, 2}};
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const Case& what : cases) {
      for (const bool amax_wanted : {true, false}) {
        Recording recording(dtype, what);
        recording.run(amax_wanted);
        const bool finite = std::isfinite(what.amax);
        EXPECT_EQ(recording.was_finite(), finite);
        EXPECT_EQ(recording.count(), 100 + (finite ? 0 : std::max<int64_t>(1, what.not_finite)));
        EXPECT_EQ(recording.observed(), amax_wanted ? std::max(what.observed_before, what.amax) : what.observed_before);
      }
    }
  }
}

TEST_F(RecordOperand, LeavesFormatsAloneThatAreNotQuantised) {
  Recording recording(DType::bf16, {0, 5, 1}, Format::bf16);
  recording.run(true);
  EXPECT_TRUE(recording.was_finite());
  EXPECT_EQ(recording.count(), 100);
  EXPECT_EQ(recording.observed(), 1);
}

TEST_F(RecordOperand, MeasuresAsTheCpuDoes) {
  for (const Format format : all_formats) {
    const DType dtype = format == Format::f32 ? DType::f32 : DType::bf16;
    TwinTensor source(dtype, {40, 160});
    source.fill_normal(1);  // as the operand's source
    const TwinOperand operand({.format = format, .rows = 40, .inner = 160}, 1);
    std::array<OperandStatistics, 2> found;
    for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
      QuantizeProblem problem;
      problem.source = source.on(device);
      problem.spec.format = format;
      found[static_cast<size_t>(device)] = measure(problem, device == DeviceKind::cpu ? operand.cpu() : operand.gpu());
    }
    EXPECT_EQ(found[0].elements, 40 * 160);
    EXPECT_GT(found[0].cosine(), 0.9);
    EXPECT_EQ(found[1].elements, found[0].elements) << name_of(format);
    EXPECT_EQ(found[1].sum_squares, found[0].sum_squares) << name_of(format);
    EXPECT_EQ(found[1].sum_products, found[0].sum_products) << name_of(format);
    EXPECT_EQ(found[1].error_squares, found[0].error_squares) << name_of(format);
    EXPECT_EQ(found[1].smallest_scale, found[0].smallest_scale) << name_of(format);
    EXPECT_EQ(found[1].largest_scale, found[0].largest_scale) << name_of(format);
    EXPECT_EQ(found[1].blocks, found[0].blocks) << name_of(format);
  }
}

}  // namespace
}  // namespace nibble
