// Reads .npy and .safetensors files that are made byte by byte, and checks which files are refused.
#include "trainer/arrays/array_file.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/test_files.h"

namespace nibble {
namespace {

using Json = nlohmann::json;

template <class Integer>
std::string little_endian(Integer value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

template <class Number>
std::string bytes_of(const std::vector<Number>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(Number)};
}

std::string npy_header(const std::string& dictionary, int version = 1) {
  const std::string text = dictionary + "\n";
  const std::string length = version == 1 ? little_endian(static_cast<uint16_t>(text.size()))
                                          : little_endian(static_cast<uint32_t>(text.size()));
  return std::string("\x93NUMPY") + static_cast<char>(version) + '\0' + length + text;
}

std::string npy(const std::string& descr, const std::string& shape, const std::string& data, int version = 1) {
  return npy_header("{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }", version) + data;
}

std::string safetensors(const std::string& header, const std::string& data) {
  return little_endian(static_cast<uint64_t>(header.size())) + header + data;
}

std::vector<float> floats_of(const LoadedArray& array) {
  const float* const values = array.tensor.as<float>();
  return {values, values + array.tensor.elements()};
}

class ArrayFileTest : public testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& content) {
    put(directory_ / name, content);
    return (directory_ / name).string();
  }
  // Loads a file of this content and expects an error that names the file and says `what`.
  void refuse(const std::string& name, const std::string& content, const std::string& what,
              ExitCode code = ExitCode::bad_data) {
    const std::string path = write(name, content);
    const std::string text = expect_error(code, [&] { load_array(path); });
    EXPECT_NE(text.find(path), std::string::npos) << text;
    EXPECT_NE(text.find(what), std::string::npos) << text;
  }
  void refuse_header(const std::string& header, const std::string& data, const std::string& what) {
    refuse("x.safetensors", safetensors(header, data), what);
  }

  TemporaryDirectory directory_;
  const std::vector<float> six_{1.0f, -0.0f, 3.5f, std::numeric_limits<float>::infinity(), 1e-45f, -6.25f};
};

// ---- .npy ----

TEST_F(ArrayFileTest, EveryVersionAndFloatTypeOfNpyIsRead) {
  for (const int version : {1, 2, 3}) {
    const LoadedArray array = load_array(write("matrix.npy", npy("<f4", "(2, 3)", bytes_of(six_), version)));
    EXPECT_EQ(array.name, "matrix");
    EXPECT_EQ(array.shape, (std::vector<int64_t>{2, 3}));
    EXPECT_EQ(array.tensor.rank(), 2);
    EXPECT_EQ(array.tensor.size(0), 2);
    EXPECT_EQ(array.tensor.size(1), 3);
    EXPECT_EQ(bytes_of(floats_of(array)), bytes_of(six_));
  }
  const std::vector<uint16_t> halves{0x3C00, 0x8000, 0x0001, 0x7BFF, 0xFC00, 0x83FF};
  const std::vector<float> widened{
      1.0f, -0.0f, 0x1p-24f, 65504.0f, -std::numeric_limits<float>::infinity(), -1023.0f * 0x1p-24f};
  EXPECT_EQ(bytes_of(floats_of(load_array(write("x.npy", npy("<f2", "(6,)", bytes_of(halves)))))), bytes_of(widened));
  // The values are ties to even in both directions, values below and above a tie, a subnormal result, and an infinity.
  const std::vector<double> doubles{1 + 0x1p-24,           1 + 0x3p-24, 1 + 0x1p-24 + 0x1p-50,
                                    1 + 0x3p-24 - 0x1p-50, 0x1.8p-149,  -std::numeric_limits<double>::infinity()};
  const std::vector<float> rounded{1.0f,         1 + 0x1p-22f, 1 + 0x1p-23f,
                                   1 + 0x1p-23f, 0x1p-148f,    -std::numeric_limits<float>::infinity()};
  EXPECT_EQ(bytes_of(floats_of(load_array(write("x.npy", npy("<f8", "(6,)", bytes_of(doubles)))))), bytes_of(rounded));
}

TEST_F(ArrayFileTest, LeadingAxesAreFlattenedAndAVectorIsARow) {
  const LoadedArray cube = load_array(write("x.npy", npy("<f4", "(1, 2, 3)", bytes_of(six_))));
  EXPECT_EQ(cube.tensor.size(0), 2);
  EXPECT_EQ(cube.tensor.size(1), 3);
  EXPECT_EQ(cube.shape, (std::vector<int64_t>{1, 2, 3}));
  const LoadedArray vector = load_array(write("x.npy", npy("<f4", "(6,)", bytes_of(six_))));
  EXPECT_EQ(vector.tensor.size(0), 1);
  EXPECT_EQ(vector.tensor.size(1), 6);
  EXPECT_EQ(vector.shape, (std::vector<int64_t>{6}));
}

TEST_F(ArrayFileTest, HeadersThatPythonWouldAcceptAreRead) {
  for (const char* header : {"{'shape': (2, 3), 'fortran_order': False, 'descr': '<f4'}",
                             "{\"descr\":\"<f4\",\"fortran_order\":False,\"shape\":(2,3,)}   ",
                             "{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L), }"}) {
    EXPECT_EQ(load_array(write("x.npy", npy_header(header) + bytes_of(six_))).tensor.size(1), 3) << header;
  }
}

TEST_F(ArrayFileTest, EveryTruncationOfANpyFileIsRefused) {
  for (const int version : {1, 2}) {
    const std::string whole = npy("<f4", "(2, 3)", bytes_of(six_), version);
    for (size_t size = 0; size < whole.size(); ++size) {
      const std::string path = write("x.npy", whole.substr(0, size));
      expect_error(ExitCode::bad_data, [&] { load_array(path); });
    }
    refuse("x.npy", whole + "x", "25 bytes follow");
  }
}

TEST_F(ArrayFileTest, NpyFilesThatCannotBeReadSayWhy) {
  const std::string data = bytes_of(six_);
  refuse("x.npy", "\x93NUMPX" + npy("<f4", "(6,)", data).substr(6), "not a .npy file");
  refuse("x.npy", "\x93NUMPY\x04" + npy("<f4", "(6,)", data).substr(7), "version 4.0");
  refuse("x.npy", "\x93NUMPY\x01\x01" + npy("<f4", "(6,)", data).substr(8), "version 1.1");
  refuse("x.npy", npy(">f4", "(6,)", data), "big-endian");
  refuse("x.npy", npy("<V2", "(12,)", data), "BF16");
  refuse("x.npy", npy("<i4", "(6,)", data), "<i4");
  refuse("x.npy", npy("", "(6,)", data), "are not read");
  refuse("x.npy", npy("<f4", "()", data), "a single number");
  refuse("x.npy", npy("<f4", "(0, 3)", ""), "empty");
  refuse("x.npy", npy_header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6,)}") + data, "records");
  const std::string fortran = npy_header("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }") + data;
  refuse("x.npy", fortran, "Fortran order");
  try {
    load_array(write("x.npy", fortran));
  } catch (const Error& error) {
    EXPECT_NE(error.remedy().find("numpy.ascontiguousarray"), std::string::npos);
  }
  refuse("x.npy", npy("<f8", "(2,)", bytes_of(std::vector<double>{1.0, -1e39})), "element 1 is finite");
}

TEST_F(ArrayFileTest, HostileNpyHeadersAreRefused) {
  const std::string data = bytes_of(six_);
  for (const char* shape : {"(-2, -3)", "(2, -3)", "(18446744073709551616,)", "6", "(6)", "(2, 3", "(2 3)", "(,)",
                            "(2, 3.0)", "None", "(0x6,)"}) {
    refuse("x.npy", npy("<f4", shape, data), "header is not NumPy's");
  }
  // The products of these sizes wrap around to 6, to 0, or only when they are multiplied by the element size.
  for (const char* shape :
       {"(4611686018427387904, 4)", "(4294967296, 4294967296)", "(18446744073709551615,)", "(2305843009213693952, 2)",
        "(3, 6148914691236517206)", "(9223372036854775807,)", "(2305843009213693952,)"}) {
    refuse("x.npy", npy("<f4", shape, data), "impossible");
  }
  refuse("x.npy", npy("<f4", "(1000000000000,)", data), "4000000000000");
  for (const char* header :
       {"", "{", "{}", "[]", "{'descr': '<f4'}", "{'descr': '<f4', 'fortran_order': False}", "{'descr': '<f4",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (6,)}",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (6,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (6,), 'more': 1}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (6,)} extra"}) {
    refuse("x.npy", npy_header(header) + data, "header is not NumPy's");
  }
  const std::string huge = std::string("\x93NUMPY\x02") + '\0' + little_endian(uint32_t{0xFFFFFFFF});
  refuse("x.npy", huge + data, "cut off inside its header");
  refuse("x.npy", npy_header(std::string(2 << 20, ' '), 2), "more than the 1048576 allowed");
}

// ---- safetensors ----

Json entry(const std::string& dtype, const std::vector<uint64_t>& shape, uint64_t begin, uint64_t end) {
  return {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {begin, end}}};
}

TEST_F(ArrayFileTest, TensorsOfEveryFloatTypeAreRead) {
  const std::vector<uint16_t> bf16{0x3F80, 0xFFC1};
  const std::vector<uint16_t> f16{0x3C00, 0x0001};
  const std::vector<double> f64{1.5, -2.25};
  const Json header{{"__metadata__", {{"format", "pt"}}},
                    {"a.f32", entry("F32", {3, 2}, 0, 24)},
                    {"b:bf16", entry("BF16", {2}, 24, 28)},
                    {"c.f16", entry("F16", {2, 1}, 28, 32)},
                    {"d.f64", entry("F64", {1, 1, 2}, 32, 48)},
                    {"e.new", {{"dtype", "F4"}, {"shape", {2}}, {"data_offsets", {48, 49}}}}};
  const std::string path =
      write("x.safetensors",
            safetensors(header.dump() + "   ", bytes_of(six_) + bytes_of(bf16) + bytes_of(f16) + bytes_of(f64) + "x"));
  const LoadedArray a = load_array(path + ":a.f32");
  EXPECT_EQ(a.name, "a.f32");
  EXPECT_EQ(a.tensor.size(0), 3);
  EXPECT_EQ(bytes_of(floats_of(a)), bytes_of(six_));
  const LoadedArray b = load_array(path + ":b:bf16");
  ASSERT_EQ(b.tensor.dtype(), DType::bf16);
  EXPECT_EQ(b.tensor.as<BFloat16>()[0].bits, 0x3F80);
  EXPECT_EQ(b.tensor.as<BFloat16>()[1].bits, 0xFFC1);
  EXPECT_EQ(floats_of(load_array(path + ":c.f16")), (std::vector<float>{1.0f, 0x1p-24f}));
  const LoadedArray d = load_array(path + ":d.f64");
  EXPECT_EQ(d.shape, (std::vector<int64_t>{1, 1, 2}));
  EXPECT_EQ(floats_of(d), (std::vector<float>{1.5f, -2.25f}));
  EXPECT_NE(expect_error(ExitCode::bad_data, [&] { load_array(path + ":e.new"); }).find("F4"), std::string::npos);
  const std::string none = expect_error(ExitCode::missing_input, [&] { load_array(path + ":f"); });
  EXPECT_NE(none.find("\"a.f32\", \"b:bf16\""), std::string::npos) << none;
}

TEST_F(ArrayFileTest, OneTensorNeedsNoNameAndSeveralAreListed) {
  Json header{{"only", entry("F32", {6}, 0, 24)}};
  EXPECT_EQ(load_array(write("x.safetensors", safetensors(header.dump(), bytes_of(six_)))).name, "only");
  header.clear();
  for (uint64_t i = 0; i < 6; ++i) header["t" + std::to_string(i)] = entry("F32", {1}, 4 * i, 4 * i + 4);
  for (uint64_t i = 6; i < 12; ++i) header["u" + std::to_string(i)] = entry("F32", {0}, 24, 24);
  const std::string path = write("x.safetensors", safetensors(header.dump(), bytes_of(six_)));
  const std::string text = expect_error(ExitCode::usage, [&] { load_array(path); });
  EXPECT_NE(text.find("12 tensors: \"t0\", \"t1\""), std::string::npos) << text;
  EXPECT_NE(text.find("and 2 more"), std::string::npos) << text;
  EXPECT_NE(expect_error(ExitCode::bad_data, [&] { load_array(path + ":u7"); }).find("empty"), std::string::npos);
}

TEST_F(ArrayFileTest, EveryTruncationOfASafetensorsFileIsRefused) {
  const Json header{{"a", entry("F32", {2, 2}, 0, 16)}, {"b", entry("F32", {2}, 16, 24)}};
  const std::string whole = safetensors(header.dump(), bytes_of(six_));
  EXPECT_EQ(load_array(write("x.safetensors", whole) + ":a").tensor.size(0), 2);
  for (size_t size = 0; size < whole.size(); ++size) {
    const std::string path = write("x.safetensors", whole.substr(0, size));
    expect_error(ExitCode::bad_data, [&] { load_array(path + ":a"); });
  }
  refuse("x.safetensors", whole + "x", "1 bytes at the end");
}

TEST_F(ArrayFileTest, HostileSafetensorsHeadersAreRefused) {
  const std::string data = bytes_of(six_);
  const auto with = [](const Json& value) { return Json{{"x", value}}.dump(); };
  refuse("x.safetensors", little_endian(uint64_t{100'000'001}) + "{}", "more than the 100000000 allowed");
  refuse("x.safetensors", little_endian(UINT64_MAX) + "{}", "more than the 100000000 allowed");
  refuse("x.safetensors", little_endian(uint64_t{99'999'999}) + "{}", "cut off inside its header");
  for (const char* text : {"", "{", "{\"x\":", "\xFF\xFE", "{\"x\": NaN}"}) refuse_header(text, data, "not JSON");
  refuse_header("[]", data, "not a JSON object");
  refuse_header("{}", "", "no tensor");
  refuse_header(std::string(100'000, '['), "", "nested too deeply");
  for (const char* text : {"{\"x\": 1}", "{\"x\": {\"dtype\": \"F32\", \"shape\": [6]}}"}) {
    refuse_header(text, data, "does not give dtype");
  }
  refuse_header("{\"x\": {\"dtype\": 1, \"shape\": [6], \"data_offsets\": [0, 24]}}", data, "not a string");
  const std::string valid = entry("F32", {6}, 0, 24).dump();
  refuse_header("{\"x\": " + valid + ", \"x\": " + valid + "}", data, "comes twice");
  for (const char* shape : {"[-6]", "[6.0]", "[\"6\"]", "[1e1]", "[18446744073709551616]"}) {
    refuse_header("{\"x\": {\"dtype\": \"F32\", \"shape\": " + std::string(shape) + ", \"data_offsets\": [0, 24]}}",
                  data, "not an unsigned integer");
  }
  refuse_header("{\"x\": {\"dtype\": \"F32\", \"shape\": 6, \"data_offsets\": [0, 24]}}", data, "not a list");
  refuse_header("{\"x\": {\"dtype\": \"F32\", \"shape\": [6], \"data_offsets\": [0]}}", data, "not a begin and an end");
  refuse_header(with(entry("F32", {6}, 24, 0)), data, "not a begin and an end");
  refuse_header(with(entry("F32", {5}, 0, 24)), data, "24 bytes of data, but F32 of shape [5] take 20");
  refuse_header(with(entry("F32", {1ULL << 62, 4}, 0, 0)), "", "impossible");
  refuse_header(with(entry("F32", {(1ULL << 63) + 6}, 0, 24)), data, "impossible");
  refuse_header(with(entry("F32", {7}, 0, 28)), data, "ends at byte 28, but the file has 24");
  refuse_header(with(entry("F32", {6}, UINT64_MAX - 24, UINT64_MAX)), data, "belong to no tensor");
  refuse_header(with(entry("F32", {}, 0, 4)), "1234", "a single number");
  refuse_header(with(entry("F8_E4M3", {24}, 0, 24)), data, "F8_E4M3");
}

TEST_F(ArrayFileTest, TensorsThatOverlapOrLeaveGapsAreRefused) {
  const auto both = [](const Json& a, const Json& b) { return Json{{"a", a}, {"b", b}}.dump(); };
  const std::string data = bytes_of(six_);
  refuse_header(both(entry("F32", {4}, 0, 16), entry("F32", {3}, 12, 24)), data, "overlaps");
  refuse_header(both(entry("F32", {6}, 0, 24), entry("F32", {6}, 0, 24)), data, "overlaps");
  refuse_header(both(entry("F32", {6}, 0, 24), entry("F32", {0}, 8, 8)), data, "overlaps");
  refuse_header(both(entry("F32", {2}, 0, 8), entry("F32", {3}, 12, 24)), data, "4 bytes before its data");
  refuse_header(both(entry("F32", {2}, 0, 8), entry("F32", {3}, 8, 20)), data, "4 bytes at the end");
}

// ---- locations ----

TEST_F(ArrayFileTest, WhereAFileEndsAndANameBegins) {
  std::filesystem::create_directories(directory_ / "run.h5:old");
  const std::string plain = npy("<f4", "(6,)", bytes_of(six_));
  EXPECT_EQ(load_array(write("run.h5:old/y.npy", plain)).name, "y");
  EXPECT_EQ(load_array(write("a:b.npy", plain)).name, "a:b");
  const Json header{{"w.npy", entry("F32", {6}, 0, 24)}};
  const std::string path = write("x.safetensors", safetensors(header.dump(), bytes_of(six_)));
  EXPECT_EQ(load_array(path + ":w.npy").name, "w.npy");
  expect_error(ExitCode::usage, [&] { load_array(path + ":"); });
  expect_error(ExitCode::usage, [&] { load_array((directory_ / "a:b.npy").string() + ":w"); });
  for (const char* nothing : {"", ":", "x", "x.bin", "x.txt:w", "npy"}) {
    expect_error(ExitCode::usage, [&] { load_array(nothing); });
  }
}

TEST_F(ArrayFileTest, MissingFilesAreMissingInput) {
  for (const char* name : {"no.npy", "no.safetensors", "no.safetensors:w", "no.h5", "no.hdf5:w", "no/no.npy"}) {
    const std::string text = expect_error(ExitCode::missing_input, [&] { load_array((directory_ / name).string()); });
    EXPECT_NE(text.find("no"), std::string::npos) << text;
  }
  std::filesystem::create_directory(directory_ / "directory.npy");
  expect_error(ExitCode::missing_input, [&] { load_array((directory_ / "directory.npy").string()); });
}

// ---- writing ----

TEST_F(ArrayFileTest, WhatIsSavedIsReadBack) {
  const std::vector<uint8_t> codes{1, 2, 3};
  const std::vector<uint16_t> bf16{0x3F80, 0xC000};
  const std::filesystem::path path = directory_ / "q.safetensors";
  const std::vector<NamedArray> arrays{
      {"codes", "U8", {1, 3}, codes.data(), 3}, {"scales", "F8_E4M3", {3, 1}, codes.data(), 3},
      {"global", "F32", {}, six_.data(), 4},    {"values", "F32", {2, 3}, six_.data(), 24},
      {"half", "BF16", {2}, bf16.data(), 4},    {"nothing", "U8", {0, 4}, nullptr, 0}};
  save_safetensors(path, arrays, {{"recipe", "nvfp4"}, {"input", "\xFF.npy"}}, false);
  const LoadedArray values = load_array(path.string() + ":values");
  EXPECT_EQ(values.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(bytes_of(floats_of(values)), bytes_of(six_));
  EXPECT_EQ(load_array(path.string() + ":half").tensor.as<BFloat16>()[1].bits, 0xC000);

  const std::string content = slurp(path);
  uint64_t length = 0;
  std::memcpy(&length, content.data(), sizeof length);
  EXPECT_EQ(length % 8, 0u);
  const Json header = Json::parse(content.substr(8, length));
  EXPECT_EQ(header["__metadata__"], (Json{{"recipe", "nvfp4"}, {"input", "\xEF\xBF\xBD.npy"}}));
  EXPECT_EQ(header["codes"]["dtype"], "U8");
  EXPECT_EQ(header["codes"]["shape"], (Json{1, 3}));
  EXPECT_EQ(header["global"]["shape"], Json::array());
  for (const NamedArray& array : arrays) {
    const uint64_t begin = header[array.name]["data_offsets"][0];
    EXPECT_EQ(begin % (array.dtype == "F32" ? 4 : array.dtype == "BF16" ? 2 : 1), 0u) << array.name;
    const std::string expected(static_cast<const char*>(array.data == nullptr ? "" : array.data), array.bytes);
    EXPECT_EQ(content.substr(8 + length + begin, array.bytes), expected) << array.name;
  }
}

TEST_F(ArrayFileTest, AFileIsOverwrittenOnlyWhereThatIsAllowed) {
  const std::filesystem::path path = directory_ / "q.safetensors";
  put(path, "precious");
  const std::vector<NamedArray> arrays{{"x", "F32", {6}, six_.data(), 24}};
  const std::string text = expect_error(ExitCode::cannot_create, [&] { save_safetensors(path, arrays, {}, false); });
  EXPECT_NE(text.find(path.string()), std::string::npos) << text;
  EXPECT_EQ(slurp(path), "precious");
  save_safetensors(path, arrays, {}, true);
  EXPECT_EQ(bytes_of(floats_of(load_array(path.string()))), bytes_of(six_));
  const auto entries =
      std::distance(std::filesystem::directory_iterator(directory_.path()), std::filesystem::directory_iterator());
  EXPECT_EQ(entries, 1);  // no temporary file is left
  expect_error(ExitCode::cannot_create, [&] { save_safetensors(directory_ / "no/q.safetensors", arrays, {}, false); });
  expect_error(ExitCode::bad_data, [&] { save_safetensors(path, {{"\xFF", "F32", {6}, six_.data(), 24}}, {}, true); });
}

}  // namespace
}  // namespace nibble
