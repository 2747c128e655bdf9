#include "data/text/json_line.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <vector>

namespace nibble {
namespace {

namespace ondemand = simdjson::ondemand;

// A parser keeps memory for its longest line.
constexpr size_t longest_line_of_kept_parser = size_t{1} << 24U;
constexpr size_t most_keys_to_name = 8;

// A key as it stands in the line, between its quotation marks, and its characters if it has escapes.
bool is_key(simdjson::simdjson_result<ondemand::field>& field, std::string_view line, std::string_view key) {
  const char* const begin = field.key().value_unsafe().raw();
  const char* const end = line.data() + line.size();
  bool has_escapes = false;
  const char* last = begin;
  for (; last < end && *last != '"'; ++last) {
    if (*last != '\\') continue;
    has_escapes = true;
    ++last;
  }
  if (!has_escapes) return std::string_view(begin, static_cast<size_t>(last - begin)) == key;
  std::string_view unescaped;
  return field.unescaped_key().get(unescaped) == simdjson::SUCCESS && unescaped == key;
}

std::string name_keys(const std::vector<std::string>& keys, std::string_view wanted) {
  std::string text = fmt::format("no key \"{}\"", wanted);
  if (keys.empty()) return text;
  text += "; its keys are";
  for (size_t i = 0; i < keys.size() && i < most_keys_to_name; ++i) {
    text += fmt::format("{} \"{}\"", i == 0 ? "" : ",", keys[i]);
  }
  return keys.size() > most_keys_to_name ? text + " and others" : text;
}

std::vector<std::string> keys_of(ondemand::parser& parser, const simdjson::padded_string_view& line) {
  std::vector<std::string> keys;
  ondemand::document document;
  ondemand::object object;
  if (parser.iterate(line).get(document) != simdjson::SUCCESS) return keys;
  if (document.get_object().get(object) != simdjson::SUCCESS) return keys;
  for (auto field : object) {
    std::string_view key;
    if (field.error() != simdjson::SUCCESS || field.unescaped_key().get(key) != simdjson::SUCCESS) break;
    keys.emplace_back(key);
  }
  return keys;
}

std::string parse(ondemand::parser& parser, std::string& line, std::string_view key, std::string& fault) {
  line.reserve(line.size() + simdjson::SIMDJSON_PADDING);
  const simdjson::padded_string_view padded(line.data(), line.size(), line.capacity());
  const auto fail = [&](std::string reason) {
    fault = std::move(reason);
    return std::string();
  };
  ondemand::document document;
  ondemand::object object;
  simdjson::error_code error = parser.iterate(padded).get(document);
  if (error == simdjson::SUCCESS) error = document.get_object().get(object);
  if (error == simdjson::INCORRECT_TYPE) return fail("not a JSON object");
  if (error != simdjson::SUCCESS) return fail(fmt::format("not JSON: {}", simdjson::error_message(error)));
  std::string text;
  bool is_found = false;
  for (auto field : object) {
    if (field.error() != simdjson::SUCCESS) {
      return fail(fmt::format("not JSON: {}", simdjson::error_message(field.error())));
    }
    if (!is_key(field, line, key)) continue;
    std::string_view value;
    error = field.value().get_string().get(value);
    if (error == simdjson::INCORRECT_TYPE) return fail(fmt::format("the value of \"{}\" is not a string", key));
    if (error != simdjson::SUCCESS) {
      return fail(fmt::format("the value of \"{}\" is not a valid string: {}", key, simdjson::error_message(error)));
    }
    text = value;
    is_found = true;
  }
  if (document.current_location().error() != simdjson::OUT_OF_BOUNDS) {
    return fail("not JSON: something follows the object");
  }
  if (!is_found) return fail(name_keys(keys_of(parser, padded), key));
  return text;
}

}  // namespace

std::string text_of_json_line(std::string& line, std::string_view key, std::string& fault) {
  if (line.size() > longest_line_of_kept_parser) {
    ondemand::parser parser;
    return parse(parser, line, key, fault);
  }
  thread_local ondemand::parser parser;
  return parse(parser, line, key, fault);
}

}  // namespace nibble
