// JSON has no NaN: a number that is not finite is written as null.
#pragma once

#include <cmath>
#include <nlohmann/json.hpp>

namespace nibble {

// Throws nlohmann::json::exception for a key that is missing or no number.
inline double number_in(const nlohmann::json& object, const char* key) {
  const nlohmann::json& value = object.at(key);
  return value.is_null() ? std::nan("") : value.get<double>();
}

}  // namespace nibble
