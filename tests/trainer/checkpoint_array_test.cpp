// Tensors of checkpoints as arrays; HDF5 files of other programs, which are refused; and files that NumPy wrote, or
// read.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "data/test_files.h"
#include "dist/ranks/self_communicator.h"
#include "trainer/arrays/array_file.h"
#include "trainer/checkpoint_fixture.h"

namespace nibble {
namespace {

using testing_support::Shard;

class CheckpointArrayTest : public testing::Test {
 protected:
  std::string path(const std::string& name) const { return (directory_ / name).string(); }
  std::string refuse(ExitCode code, const std::string& location) {
    const std::string text = expect_error(code, [&] { load_array(location); });
    EXPECT_NE(text.find(path("")), std::string::npos) << text;
    return text;
  }
  // Saves a checkpoint and returns its directory.
  std::filesystem::path save() {
    CheckpointState state = shard_.state();
    state.replicated = {{"quantization/amax_history", Tensor(history_.data(), DType::f32, {2, 3})},
                        {"outliers/channels", Tensor(channels_.data(), DType::i32, {2})}};
    return save_checkpoint(communicator_, directory_.path(), state);
  }

  TemporaryDirectory directory_;
  SelfCommunicator communicator_;
  Shard shard_ = testing_support::whole_state(7);
  std::vector<float> history_{1, 2, 3, 4, 5, 6};
  std::vector<int32_t> channels_{3, 9};
};

TEST_F(CheckpointArrayTest, TensorsOfACheckpointAreReadByName) {
  const std::string checkpoint = save().string();
  const LoadedArray weights = load_array(checkpoint + "/index.h5:parameters/blocks.0.qkv.weight");
  ASSERT_EQ(weights.tensor.dtype(), DType::bf16);
  EXPECT_EQ(weights.name, "parameters/blocks.0.qkv.weight");
  EXPECT_EQ(weights.tensor.size(0), 30);
  EXPECT_EQ(weights.tensor.size(1), 10);
  EXPECT_TRUE(
      std::equal(shard_.parameters.begin() + 256, shard_.parameters.begin() + 556, weights.tensor.as<BFloat16>()));
  const LoadedArray moments = load_array(checkpoint + "/rank-00000.h5:/optimizer/adam_v/blocks.0.conv.weight");
  EXPECT_EQ(moments.shape, (std::vector<int64_t>{3, 4, 5}));
  EXPECT_TRUE(std::equal(shard_.moment_v.begin() + 560, shard_.moment_v.begin() + 620, moments.tensor.as<float>()));
  const LoadedArray history = load_array(checkpoint + "/index.h5:quantization/amax_history");
  EXPECT_EQ(history.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_TRUE(std::equal(history_.begin(), history_.end(), history.tensor.as<float>()));
}

TEST_F(CheckpointArrayTest, NamesThatAreMissingOrWrongAreExplained) {
  const std::string index = save().string() + "/index.h5";
  const std::string none = refuse(ExitCode::usage, index);
  EXPECT_NE(none.find("\"parameters/embedding.weight\""), std::string::npos) << none;
  EXPECT_NE(none.find(" and 7 more"), std::string::npos) << none;
  const std::string wrong = refuse(ExitCode::missing_input, index + ":parameters/v");
  EXPECT_NE(wrong.find("\"parameters/embedding.weight\""), std::string::npos) << wrong;
  refuse(ExitCode::missing_input, index + ":parameters");
  const std::string integers = refuse(ExitCode::bad_data, index + ":outliers/channels");
  EXPECT_NE(integers.find("its elements are int32"), std::string::npos) << integers;
  refuse(ExitCode::missing_input, path("checkpoints/missing.h5:parameters"));
}

TEST_F(CheckpointArrayTest, NothingOfADamagedCheckpointIsRead) {
  const std::filesystem::path checkpoint = save();
  const std::string location = (checkpoint / "index.h5").string() + ":parameters/head.weight";
  for (const char* const name : {"rank-00000.h5", "index.h5", "manifest.json"}) {
    const std::string whole = slurp(checkpoint / name);
    std::string damaged = whole;
    damaged[whole.size() / 2] = static_cast<char>(damaged[whole.size() / 2] ^ 1);
    put(checkpoint / name, damaged);
    EXPECT_NE(refuse(ExitCode::bad_data, location).find(name), std::string::npos) << name;
    put(checkpoint / name, whole);
    load_array(location);
  }
}

// ---- with Debian's python3-h5py, which brings NumPy ----

class ArrayFilePythonTest : public CheckpointArrayTest {
 protected:
  static int python(const std::string& arguments) {
    const std::string script =
        std::string("/usr/bin/python3 ") + NIBBLE_SOURCE_DIR + "/tests/trainer/array_file_python.py ";
    return std::system((script + arguments).c_str());
  }
};

// Expects equal values, bit for bit; any NaN equals any other NaN.
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

TEST_F(ArrayFilePythonTest, FilesOfNumpyAreReadAsPythonReadsThem) {
  ASSERT_EQ(python("write " + path("")), 0) << "(needs Debian's python3-h5py)";
  for (const std::string name : {"halves", "singles", "doubles", "cube", "vector"}) {
    const LoadedArray expected = load_array(path(name + ".single.npy"));
    for (const char* const suffix : {".npy", ".v2.npy", ".v3.npy"})
      expect_same(load_array(path(name + suffix)), expected);
  }
  EXPECT_EQ(load_array(path("vector.npy")).tensor.size(0), 1);
  refuse(ExitCode::bad_data, path("fortran.npy"));
  refuse(ExitCode::bad_data, path("big_endian.npy"));
}

TEST_F(ArrayFilePythonTest, OtherHdf5FilesAreRefusedWithACommandThatConvertsThem) {
  ASSERT_EQ(python("write " + path("")), 0) << "(needs Debian's python3-h5py)";
  refuse(ExitCode::bad_data, path("other.h5"));
  std::string remedy;
  try {
    load_array(path("other.h5:group/cube"));
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    remedy = error.remedy();
  }
  const size_t command = remedy.find("python3 -c ");
  ASSERT_NE(command, std::string::npos) << remedy;
  ASSERT_EQ(std::system(("cd " + path("") + " && PATH=/usr/bin " + remedy.substr(command)).c_str()), 0) << remedy;
  expect_same(load_array(path("other.npy")), load_array(path("cube.npy")));
}

TEST_F(ArrayFilePythonTest, SavedFilesAreWhatPythonExpects) {
  const std::vector<uint8_t> codes{0x10, 0x32, 0x54, 0x76, 0x98};
  std::vector<float> values;
  std::vector<BFloat16> halves;
  for (uint16_t i = 0; i < 24; ++i) {
    values.push_back(0.5f * static_cast<float>(i) - 3.0f);
    halves.push_back({static_cast<uint16_t>(0x3F80 + 7 * i)});
  }
  save_safetensors(path("q.safetensors"),
                   {{"codes", "U8", {1, 5}, codes.data(), codes.size()},
                    {"values", "F32", {4, 6}, values.data(), 96},
                    {"half", "BF16", {24}, halves.data(), 48},
                    {"scale", "F32", {}, values.data(), 4}},
                   {{"recipe", "nvfp4"}, {"quote", "\"\\\n"}}, false);
  EXPECT_EQ(python("check " + path("q.safetensors")), 0);
}

}  // namespace
}  // namespace nibble
