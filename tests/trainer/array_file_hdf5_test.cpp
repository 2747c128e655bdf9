// Datasets of HDF5 files as arrays; damaged files; and files that NumPy and h5py wrote, or read.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "data/test_files.h"
#include "trainer/arrays/array_file.h"
#include "trainer/arrays/hdf5_file.h"

namespace nibble {
namespace {

class ArrayFileHdf5Test : public testing::Test {
 protected:
  std::string path(const std::string& name) const { return (directory_ / name).string(); }
  std::string refuse(ExitCode code, const std::string& location) {
    const std::string text = expect_error(code, [&] { load_array(location); });
    EXPECT_NE(text.find(path("")), std::string::npos) << text;
    return text;
  }
  // A rank file as a checkpoint has it: elements [begin, end) of tensors of shape [4, 6].
  void write_rank_file(const std::string& name, uint64_t begin, uint64_t end) {
    Hdf5Writer writer(path(name));
    writer.write_slice({"optimizer/adam_m", "w", DType::f32, {4, 6}, begin, end - begin},
                       std::as_bytes(std::span(moments_).subspan(begin, end - begin)));
    writer.write_slice({"parameters", "w", DType::bf16, {4, 6}, begin, end - begin},
                       std::as_bytes(std::span(weights_).subspan(begin, end - begin)));
    writer.close();
  }

  void SetUp() override {
    for (uint16_t i = 0; i < 24; ++i) {
      moments_.push_back(0.5f * static_cast<float>(i) - 3.0f);
      weights_.push_back({static_cast<uint16_t>(0x3F80 + 7 * i)});
    }
  }

  TemporaryDirectory directory_;
  std::vector<float> moments_;
  std::vector<BFloat16> weights_;
};

TEST_F(ArrayFileHdf5Test, ARankFileThatHoldsTheWholeTensorShowsItsShape) {
  write_rank_file("rank-00000.h5", 0, 24);
  const LoadedArray weights = load_array(path("rank-00000.h5:parameters/w"));
  ASSERT_EQ(weights.tensor.dtype(), DType::bf16);
  EXPECT_EQ(weights.name, "parameters/w");
  EXPECT_EQ(weights.tensor.size(0), 4);
  EXPECT_EQ(weights.tensor.size(1), 6);
  EXPECT_TRUE(std::equal(weights_.begin(), weights_.end(), weights.tensor.as<BFloat16>()));
  const LoadedArray moments = load_array(path("rank-00000.h5:/optimizer/adam_m/w"));
  EXPECT_TRUE(std::equal(moments_.begin(), moments_.end(), moments.tensor.as<float>()));
}

TEST_F(ArrayFileHdf5Test, SlicesAreReadWholeThroughTheIndexOrNotAtAll) {
  write_rank_file("rank-00000.h5", 0, 10);
  write_rank_file("rank-00001.h5", 10, 24);
  Hdf5Writer index(path("index.h5"));
  index.write_virtual({"parameters", "w", DType::bf16, {4, 6}}, {{"rank-00000.h5", 0, 10}, {"rank-00001.h5", 10, 14}});
  index.close();
  const std::string slice = refuse(ExitCode::bad_data, path("rank-00001.h5:parameters/w"));
  EXPECT_NE(slice.find("only a slice, elements 10 to 23 of a tensor of shape [4, 6]"), std::string::npos) << slice;
  const LoadedArray whole = load_array(path("index.h5"));
  EXPECT_EQ(whole.name, "parameters/w");
  EXPECT_EQ(whole.shape, (std::vector<int64_t>{4, 6}));
  EXPECT_TRUE(std::equal(weights_.begin(), weights_.end(), whole.tensor.as<BFloat16>()));
  std::filesystem::remove(path("rank-00001.h5"));  // h5py would show NaN
  const std::string missing = refuse(ExitCode::missing_input, path("index.h5"));
  EXPECT_NE(missing.find("rank-00001.h5"), std::string::npos) << missing;
  put(path("rank-00001.h5"), "no HDF5");
  EXPECT_NE(refuse(ExitCode::bad_data, path("index.h5")).find("rank-00001.h5"), std::string::npos);
}

TEST_F(ArrayFileHdf5Test, NamesThatAreMissingOrWrongAreExplained) {
  Hdf5Writer writer(path("x.h5"));
  writer.write_slice({"a", "numbers", DType::i32, {2}, 0, 2}, std::as_bytes(std::span(moments_).first(2)));
  writer.write_slice({"a", "w", DType::f32, {2}, 0, 2}, std::as_bytes(std::span(moments_).first(2)));
  writer.close();
  const std::string several = refuse(ExitCode::usage, path("x.h5"));
  EXPECT_NE(several.find("2 datasets: \"a/numbers\", \"a/w\""), std::string::npos) << several;
  EXPECT_NE(refuse(ExitCode::missing_input, path("x.h5:a/v")).find("\"a/w\""), std::string::npos);
  refuse(ExitCode::missing_input, path("x.h5:a"));  // a group
  EXPECT_NE(refuse(ExitCode::bad_data, path("x.h5:a/numbers")).find("not of type"), std::string::npos);
  put(path("text.h5"), "no HDF5");
  refuse(ExitCode::bad_data, path("text.h5:a"));
  put(path("empty.h5"), "");
  refuse(ExitCode::bad_data, path("empty.h5:a"));
}

TEST_F(ArrayFileHdf5Test, DamagedFilesAreErrorsAndNeverCrashes) {
  write_rank_file("x.h5", 0, 24);
  const std::string whole = slurp(path("x.h5"));
  ASSERT_LT(whole.size(), 10'000u);
  const std::string location = path("y.h5:parameters/w");
  size_t refused = 0;
  const auto try_to_load = [&](const std::string& content) {
    put(path("y.h5"), content);
    try {
      load_array(location);
    } catch (const Error& error) {
      EXPECT_TRUE(error.code() == ExitCode::bad_data || error.code() == ExitCode::missing_input ||
                  error.code() == ExitCode::out_of_memory)
          << error.what();
      ++refused;
    }
  };
  for (size_t size = 0; size < whole.size(); size += 7) try_to_load(whole.substr(0, size));
  EXPECT_EQ(refused, (whole.size() + 6) / 7);
  for (size_t position = 0; position < whole.size(); position += 3) {
    std::string damaged = whole;
    damaged[position] = static_cast<char>(damaged[position] ^ 0xFF);
    try_to_load(damaged);
  }
}

// ---- with Debian's python3-h5py, which brings NumPy ----

class ArrayFilePythonTest : public ArrayFileHdf5Test {
 protected:
  static int python(const std::string& arguments) {
    const std::string script =
        std::string("/usr/bin/python3 ") + NIBBLE_SOURCE_DIR + "/tests/trainer/array_file_python.py ";
    return std::system((script + arguments).c_str());
  }
};

// The same values as found, bit for bit; any NaN is like any other.
void expect_same(const LoadedArray& found, const LoadedArray& expected) {
  EXPECT_EQ(found.shape, expected.shape) << found.name;
  ASSERT_EQ(found.tensor.elements(), expected.tensor.elements()) << found.name;
  const float* const a = found.tensor.as<float>();
  const float* const b = expected.tensor.as<float>();
  for (int64_t i = 0; i < found.tensor.elements(); ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;
    ASSERT_EQ(std::bit_cast<uint32_t>(a[i]), std::bit_cast<uint32_t>(b[i])) << found.name << ", element " << i;
  }
}

TEST_F(ArrayFilePythonTest, FilesOfNumpyAndH5pyAreReadAsPythonReadsThem) {
  ASSERT_EQ(python("write " + path("")), 0) << "(needs Debian's python3-h5py)";
  const std::vector<std::string> names{"halves", "singles", "doubles", "cube", "vector"};
  for (const std::string& name : names) {
    const LoadedArray expected = load_array(path(name + ".single.npy"));
    for (const char* const suffix : {".npy", ".v2.npy", ".v3.npy"})
      expect_same(load_array(path(name + suffix)), expected);
    for (const char* const group : {"plain", "big_endian", "packed", "one_chunk", "latest.h5"}) {
      const bool own_file = std::string(group).ends_with(".h5");
      expect_same(load_array(path(own_file ? group : "x.h5") + ":" + (own_file ? "" : std::string(group) + "/") + name),
                  expected);
    }
  }
  EXPECT_EQ(load_array(path("vector.npy")).tensor.size(0), 1);
  refuse(ExitCode::bad_data, path("fortran.npy"));
  refuse(ExitCode::bad_data, path("big_endian.npy"));
  refuse(ExitCode::bad_data, path("x.h5:scalar"));
  refuse(ExitCode::bad_data, path("x.h5:empty"));
  refuse(ExitCode::bad_data, path("x.h5:integers"));
  EXPECT_NE(refuse(ExitCode::out_of_memory, path("x.h5:terabytes")).find("memory"), std::string::npos);
}

TEST_F(ArrayFilePythonTest, SavedFilesAreWhatPythonExpects) {
  const std::vector<uint8_t> codes{0x10, 0x32, 0x54, 0x76, 0x98};
  save_safetensors(path("q.safetensors"),
                   {{"codes", "U8", {1, 5}, codes.data(), codes.size()},
                    {"values", "F32", {4, 6}, moments_.data(), 96},
                    {"half", "BF16", {24}, weights_.data(), 48},
                    {"scale", "F32", {}, moments_.data(), 4}},
                   {{"recipe", "nvfp4"}, {"quote", "\"\\\n"}}, false);
  EXPECT_EQ(python("check " + path("q.safetensors")), 0);
}

}  // namespace
}  // namespace nibble
