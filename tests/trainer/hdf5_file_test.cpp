#include "trainer/checkpoint/hdf5_file.h"

#include <gtest/gtest.h>

#include <vector>

#include "dist/base/error.h"
#include "trainer/checkpoint_fixture.h"

namespace nibble {
namespace {

using testing_support::ScratchDirectory;

// Returns the row-major indices of the boxes' elements, in order.
std::vector<uint64_t> elements_of(const std::vector<int64_t>& shape, const std::vector<Hyperslab>& slabs) {
  std::vector<uint64_t> result;
  for (const Hyperslab& slab : slabs) {
    std::vector<uint64_t> index(shape.size(), 0);
    bool more = true;
    while (more) {
      uint64_t flat = 0;
      for (size_t axis = 0; axis < shape.size(); ++axis) {
        flat = flat * static_cast<uint64_t>(shape[axis]) + slab.start[axis] + index[axis];
      }
      result.push_back(flat);
      more = false;
      for (size_t axis = shape.size(); axis-- > 0 && !more;) {
        more = ++index[axis] < slab.count[axis];
        if (!more) index[axis] = 0;
      }
    }
  }
  return result;
}

TEST(HyperslabTest, BoxesHoldExactlyTheRange) {
  const std::vector<std::vector<int64_t>> shapes{{1}, {13}, {5, 1}, {1, 5}, {4, 7}, {3, 4, 5}, {2, 3, 1, 4}};
  for (const auto& shape : shapes) {
    uint64_t count = 1;
    for (const int64_t extent : shape) count *= static_cast<uint64_t>(extent);
    for (uint64_t begin = 0; begin <= count; ++begin) {
      for (uint64_t end = begin; end <= count; ++end) {
        std::vector<uint64_t> expected;
        for (uint64_t flat = begin; flat < end; ++flat) expected.push_back(flat);
        const std::vector<Hyperslab> slabs = hyperslabs_of_range(shape, begin, end);
        ASSERT_EQ(elements_of(shape, slabs), expected);
        ASSERT_LE(slabs.size(), 2 * shape.size() - 1);
      }
    }
  }
}

class Hdf5FileTest : public testing::Test {
 protected:
  ScratchDirectory scratch_{"nibble_hdf5"};
  std::filesystem::path path_ = scratch_.path() / "file.h5";
};

TEST_F(Hdf5FileTest, SlicesOfEveryTypeComeBack) {
  std::vector<std::byte> bytes(64);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 37 + 200);
  const std::vector<DType> dtypes{DType::f32, DType::bf16, DType::u8, DType::i32};
  const auto slice_of = [&](DType dtype) {
    return TensorSlice{"group", std::string(name_of(dtype)), dtype, {4, 100}, 300, bytes.size() / size_of(dtype)};
  };
  Hdf5Writer writer(path_);
  for (const DType dtype : dtypes) writer.write_slice(slice_of(dtype), bytes);
  writer.close();
  Hdf5Reader reader(path_);
  for (const DType dtype : dtypes) {
    std::vector<std::byte> part(32);
    reader.read_slice(slice_of(dtype), 16 / size_of(dtype), part);
    EXPECT_TRUE(std::equal(part.begin(), part.end(), bytes.begin() + 16)) << name_of(dtype);
  }
}

TEST_F(Hdf5FileTest, ASliceThatIsNotTheExpectedOneIsRefused) {
  const std::vector<std::byte> bytes(40);
  const TensorSlice slice{"group", "name", DType::f32, {2, 10}, 5, 10};
  Hdf5Writer writer(path_);
  writer.write_slice(slice, bytes);
  writer.close();
  Hdf5Reader reader(path_);
  std::vector<std::byte> destination(4);
  reader.read_slice(slice, 0, destination);
  std::vector<TensorSlice> wrong(6, slice);
  wrong[0].dtype = DType::i32;
  wrong[1].count = 9;
  wrong[2].offset = 6;
  wrong[3].shape = {20};
  wrong[4].shape = {10, 2};
  wrong[5].name = "other";
  for (const TensorSlice& other : wrong) {
    try {
      reader.read_slice(other, 0, destination);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data);
    }
  }
}

TEST_F(Hdf5FileTest, WritingWhereSomethingIsNamesFileAndReason) {
  Hdf5Writer(path_).close();
  try {
    Hdf5Writer writer(path_);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io);
    EXPECT_NE(std::string(error.what()).find("file.h5: "), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("exists"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace nibble
