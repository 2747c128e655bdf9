// Reads numbers from JSON, which has no NaN: a number that is not finite is written as null.
#pragma once

#include <cmath>
#include <nlohmann/json.hpp>

namespace nibble {

// Returns the number of a key, or NaN for null. Throws nlohmann::json::exception if the key is missing or its value is
// not a number.
inline double number_in(const nlohmann::json& object, const char* key) {
  const nlohmann::json& value = object.at(key);
  return value.is_null() ? std::nan("") : value.get<double>();
}

}  // namespace nibble
