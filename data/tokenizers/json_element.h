// An element of a tokenizer.json, with its path for error messages.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "dist/base/error.h"

namespace nibble {

class JsonElement {
 public:
  // `file` and `value` must outlive the element.
  JsonElement(const std::string& file, const nlohmann::json& value) : file_(&file), value_(&value) {}

  const nlohmann::json& value() const { return *value_; }
  const std::string& path() const { return path_; }

  // Throws ExitCode::bad_data; both parts of the message are about this element.
  [[noreturn]] void fail(const std::string& what, const std::string& remedy) const {
    throw Error(ExitCode::bad_data, fmt::format("{}: {} {}", *file_, path_.empty() ? "the file" : path_, what), remedy);
  }
  [[noreturn]] void fail_damaged(const std::string& what) const { fail(what, "restore the file from a copy"); }
  [[noreturn]] void fail_unsupported(const std::string& what, const std::string& supported) const {
    fail(fmt::format("{}, which nibble does not support", what), "supported: " + supported);
  }

  bool has(const char* key) const { return value_->is_object() && value_->contains(key) && !value_->at(key).is_null(); }
  JsonElement at(const char* key) const {
    if (!value_->is_object()) fail_damaged("is no object");
    const auto found = value_->find(key);
    if (found == value_->end()) fail_damaged(fmt::format("has no {}", key));
    return {*file_, *found, path_.empty() ? key : path_ + "." + key};
  }
  JsonElement item(size_t index) const { return {*file_, value_->at(index), fmt::format("{}[{}]", path_, index)}; }
  size_t size_of_array() const {
    if (!value_->is_array()) fail_damaged("is no list");
    return value_->size();
  }
  const std::string& text() const {
    if (!value_->is_string()) fail_damaged("is no text");
    return value_->get_ref<const std::string&>();
  }
  bool flag(const char* key, bool absent) const {
    if (!has(key)) return absent;
    const JsonElement element = at(key);
    if (!element.value().is_boolean()) element.fail_damaged("is neither true nor false");
    return element.value().get<bool>();
  }
  // The type of a component: {"type": "ByteLevel", ...}
  const std::string& type() const { return at("type").text(); }

 private:
  JsonElement(const std::string& file, const nlohmann::json& value, std::string path)
      : file_(&file), value_(&value), path_(std::move(path)) {}

  const std::string* file_;
  const nlohmann::json* value_;
  std::string path_;
};

}  // namespace nibble
