#include "trainer/record/tensorboard.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <bit>

#include "dist/base/error.h"
#include "dist/base/stopwatch.h"
#include "dist/watch/heartbeat.h"

namespace nibble {

namespace {

constexpr std::array<uint32_t, 256> crc_table = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value & 1) != 0 ? (value >> 1) ^ 0x82F63B78u : value >> 1;
    table[i] = value;
  }
  return table;
}();

// Returns the little-endian bytes of an integer.
template <class Integer>
std::string little_endian(Integer value) {
  std::string bytes;
  for (size_t i = 0; i < sizeof(Integer); ++i) bytes.push_back(static_cast<char>((value >> (8 * i)) & 0xFF));
  return bytes;
}

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value > 0x7F; value >>= 7) bytes.push_back(static_cast<char>(value | 0x80));
  bytes.push_back(static_cast<char>(value));
  return bytes;
}

// Encode protocol-buffer fields. The wire types are 0 varint, 1 fixed 64 bits, 2 length-delimited, 5 fixed 32 bits.
std::string field_varint(uint32_t field, uint64_t value) {
  return varint(field << 3) + varint(value);
}
std::string field_double(uint32_t field, double value) {
  return varint(field << 3 | 1) + little_endian(std::bit_cast<uint64_t>(value));
}
std::string field_float(uint32_t field, float value) {
  return varint(field << 3 | 5) + little_endian(std::bit_cast<uint32_t>(value));
}
std::string field_bytes(uint32_t field, std::string_view value) {
  return varint(field << 3 | 2) + varint(value.size()) + std::string(value);
}

// The field numbers are those of tensorflow/core/util/event.proto, framework/summary.proto and framework/tensor.proto,
// of tensorboard/plugins/hparams/plugin_data.proto, and of google/protobuf/struct.proto.
constexpr uint32_t event_wall_time = 1, event_step = 2, event_file_version = 3, event_summary = 5,
                   event_session_log = 7;
constexpr uint32_t summary_value = 1, value_tag = 1, value_simple = 2, value_tensor = 8, value_metadata = 9;
constexpr uint32_t session_status = 1, session_start_status = 1;
constexpr uint32_t metadata_plugin = 1, plugin_name = 1, plugin_content = 2;
constexpr uint32_t tensor_type = 1, tensor_shape = 2, tensor_string = 8, shape_dimension = 2, dimension_size = 1;
constexpr uint32_t type_float = 1, type_string = 7;
constexpr uint32_t hparams_version = 1, hparams_session = 3, session_hparams = 1, session_start_time = 5;
constexpr uint32_t map_key = 1, map_value = 2, struct_number = 2, struct_string = 3, struct_bool = 4;

std::string plugin_metadata(std::string_view plugin, std::string_view content) {
  return field_bytes(value_metadata, field_bytes(metadata_plugin, field_bytes(plugin_name, plugin) +
                                                                      field_bytes(plugin_content, content)));
}

uint32_t masked(uint32_t crc) {
  return std::rotr(crc, 15) + 0xA282EAD8u;
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t crc = ~0u;
  for (const char byte : bytes) crc = crc_table[(crc ^ static_cast<uint8_t>(byte)) & 0xFF] ^ (crc >> 8);
  return ~crc;
}

TensorboardWriter::TensorboardWriter(const std::filesystem::path& directory) {
  std::error_code ignored;
  std::filesystem::create_directories(directory, ignored);
  const auto path = directory / fmt::format("events.out.tfevents.{}.{}.{}.0",
                                            static_cast<int64_t>(seconds_since_1970()), host_name(), getpid());
  file_.open(path, std::ios::binary | std::ios::trunc);
  if (!file_) {
    throw Error(ExitCode::cannot_create, fmt::format("cannot create {}", path.string()),
                "make the run directory writable, or set log.tensorboard=false");
  }
  write_record(field_double(event_wall_time, seconds_since_1970()) + field_bytes(event_file_version, "brain.Event:2"));
}

void TensorboardWriter::write_record(const std::string& event) {
  const std::string length = little_endian(static_cast<uint64_t>(event.size()));
  file_ << length << little_endian(masked(crc32c(length))) << event << little_endian(masked(crc32c(event)));
}

void TensorboardWriter::write_summary(const std::string& value, uint64_t step) {
  write_record(field_double(event_wall_time, seconds_since_1970()) + field_varint(event_step, step) +
               field_bytes(event_summary, field_bytes(summary_value, value)));
}

void TensorboardWriter::scalar(std::string_view tag, double value, uint64_t step) {
  write_summary(field_bytes(value_tag, tag) + field_float(value_simple, static_cast<float>(value)), step);
}

void TensorboardWriter::text(std::string_view tag, std::string_view markdown, uint64_t step) {
  const std::string shape = field_bytes(shape_dimension, field_varint(dimension_size, 1));
  const std::string tensor =
      field_varint(tensor_type, type_string) + field_bytes(tensor_shape, shape) + field_bytes(tensor_string, markdown);
  write_summary(field_bytes(value_tag, tag) + plugin_metadata("text", "") + field_bytes(value_tensor, tensor), step);
}

void TensorboardWriter::hyperparameters(const std::vector<Hyperparameter>& parameters) {
  std::string session;
  for (const Hyperparameter& parameter : parameters) {
    std::string value;
    if (const auto* number = std::get_if<double>(&parameter.value)) value = field_double(struct_number, *number);
    if (const auto* truth = std::get_if<bool>(&parameter.value)) value = field_varint(struct_bool, *truth ? 1 : 0);
    if (const auto* text = std::get_if<std::string>(&parameter.value)) value = field_bytes(struct_string, *text);
    session += field_bytes(session_hparams, field_bytes(map_key, parameter.name) + field_bytes(map_value, value));
  }
  session += field_double(session_start_time, seconds_since_1970());
  const std::string content = field_varint(hparams_version, 0) + field_bytes(hparams_session, session);
  // The figures are in the metadata; the tensor is there because a summary must have a value.
  const std::string nothing = field_varint(tensor_type, type_float) + field_bytes(tensor_shape, "");
  write_summary(field_bytes(value_tag, "_hparams_/session_start_info") + plugin_metadata("hparams", content) +
                    field_bytes(value_tensor, nothing),
                0);
}

void TensorboardWriter::session_start(uint64_t step) {
  write_record(field_double(event_wall_time, seconds_since_1970()) + field_varint(event_step, step) +
               field_bytes(event_session_log, field_varint(session_status, session_start_status)));
}

void TensorboardWriter::flush() {
  file_.flush();
}

}  // namespace nibble
