#include "trainer/arrays/stored_array.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "dist/base/error.h"
#include "dist/base/text.h"
#include "quant/format/codec.h"

namespace nibble {

namespace {

constexpr uint64_t block_elements = uint64_t{1} << 18;

// Widens FP16 to FP32 exactly. The bits of exponent and mantissa, moved to their positions in FP32, are the value times
// 2^-112; this holds for subnormal numbers too.
float widened(uint16_t half) {
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7FFFu) << 13;
  const float finite = float_of_bits(magnitude) * 0x1p112f;
  const bool special = (half & 0x7C00u) == 0x7C00u;  // infinite or NaN
  const uint32_t bits = special ? (magnitude | 0x7F800000u) : bits_of(finite);
  return float_of_bits(bits | (static_cast<uint32_t>(half & 0x8000u) << 16));
}

void widen(const std::byte* source, uint64_t count, float* target) {
  for (uint64_t i = 0; i < count; ++i) {
    uint16_t half = 0;
    std::memcpy(&half, source + 2 * i, sizeof half);
    target[i] = widened(half);
  }
}

// Rounds FP64 to FP32. Returns the index of the first finite number that is beyond the range of FP32, or `count`.
uint64_t round_to_single(const std::byte* source, uint64_t count, float* target) {
  uint64_t first = count;
  for (uint64_t i = count; i-- > 0;) {
    double value = 0;
    std::memcpy(&value, source + 8 * i, sizeof value);
    target[i] = static_cast<float>(value);
    if (std::isfinite(value) && !is_finite(target[i])) first = i;
  }
  return first;
}

std::unique_ptr<Arena> take_memory(const StoredArray& array, uint64_t bytes) {
  auto memory = std::make_unique<Arena>(array.location);
  memory->allocate(bytes);
  try {
    memory->commit();
  } catch (const Error& error) {
    throw Error(error.code(), error.what(), "read a smaller array, or do it on a machine with more memory");
  }
  return memory;
}

void widen_bf16(const std::byte* source, uint64_t count, float* target) {
  for (uint64_t i = 0; i < count; ++i) {
    uint16_t half = 0;
    std::memcpy(&half, source + 2 * i, sizeof half);
    target[i] = float_of_bits(static_cast<uint32_t>(half) << 16);
  }
}

}  // namespace

void read_floats(const StoredArray& array, const ReadBytes& read, std::span<float> target) {
  if (array.type == StoredDType::f32) {
    read(std::as_writable_bytes(target));
    return;
  }
  const uint64_t size = size_of(array.type);
  std::vector<std::byte> buffer(std::min<uint64_t>(target.size(), block_elements) * size);
  for (uint64_t done = 0; done < target.size();) {
    const uint64_t count = std::min<uint64_t>(target.size() - done, block_elements);
    read(std::span(buffer).first(count * size));
    float* const block = target.data() + done;
    if (array.type == StoredDType::f16) {
      widen(buffer.data(), count, block);
    } else if (array.type == StoredDType::bf16) {
      widen_bf16(buffer.data(), count, block);
    } else if (const uint64_t beyond = round_to_single(buffer.data(), count, block); beyond < count) {
      fail_array(array.location, fmt::format("element {} is finite, but beyond the range of FP32", done + beyond),
                 "scale the array before it is saved");
    }
    done += count;
  }
}

uint64_t stored_bytes(const StoredArray& array) {
  if (array.shape.empty()) {
    fail_array(array.location, "a single number, not an array", "save it with at least one axis");
  }
  uint64_t bytes = std::max<uint64_t>(size_of(array.type), size_of(DType::f32));
  for (const uint64_t extent : array.shape) {
    if (extent == 0) fail_array(array.location, "the array is empty", "save an array with at least one element");
    if (__builtin_mul_overflow(bytes, extent, &bytes) || bytes > INT64_MAX / 2) {
      fail_array(array.location, fmt::format("a shape of [{}] is impossible", fmt::join(array.shape, ", ")));
    }
  }
  return bytes / std::max<uint64_t>(size_of(array.type), size_of(DType::f32)) * size_of(array.type);
}

LoadedArray read_stored(const StoredArray& array, const ReadBytes& read) {
  const auto elements = static_cast<int64_t>(stored_bytes(array) / size_of(array.type));
  const auto columns = static_cast<int64_t>(array.shape.back());
  const DType dtype = array.type == StoredDType::bf16 ? DType::bf16 : DType::f32;
  const uint64_t bytes = static_cast<uint64_t>(elements) * size_of(dtype);
  LoadedArray result;
  result.name = array.name;
  result.shape.assign(array.shape.begin(), array.shape.end());
  result.memory = take_memory(array, bytes);
  result.tensor = Tensor(result.memory->allocate(bytes), dtype, {elements / columns, columns});
  if (array.type == StoredDType::bf16 || array.type == StoredDType::f32) {
    read({static_cast<std::byte*>(result.tensor.data()), bytes});
  } else {
    read_floats(array, read, {result.tensor.as<float>(), static_cast<size_t>(elements)});
  }
  return result;
}

std::string location_text(const std::filesystem::path& path, std::string_view name) {
  return fmt::format("{}, tensor {}", path.string(), shown(name));
}

std::string listed(const std::vector<std::string>& names, size_t total) {
  constexpr size_t most = 10;
  std::string text;
  const size_t count = std::min(names.size(), most);
  for (size_t i = 0; i < count; ++i) text += (i == 0 ? "" : ", ") + shown(names[i]);
  return total > count ? fmt::format("{} and {} more", text, total - count) : text;
}

void fail_array(const std::string& location, std::string_view complaint, const std::string& remedy) {
  throw Error(ExitCode::bad_data, fmt::format("{}: {}", location, complaint), remedy);
}

}  // namespace nibble
