// The names of an enum's values, written once, beside the enum and in its namespace:
//   enum class Signs : uint8_t { fixed, step, micro_batch };
//   constexpr auto enum_names(Signs) {
//     return std::to_array<EnumName<Signs>>(
//         {{Signs::fixed, "fixed"}, {Signs::step, "step"}, {Signs::micro_batch, "micro_batch"}});
//   }
// A row may also say, for people, what the value means. name_of(), doc_of(), parse_name(), all_names() and all_values()
// then work for the enum. Its values must count from 0, and the table must have one row for every value, in the order
// of the values. A table that lacks a value, or that has a value or a name twice, does not compile where it is used.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string_view>

namespace nibble {

template <class Enum>
struct EnumName {
  Enum value;
  std::string_view name;
  std::string_view doc = {};  // what people are told about the value
};

namespace detail {

// Returns true if the number is a value of its enum: compilers print values by name, other numbers as "(Enum)3".
template <auto number>
constexpr bool is_enumerator() {
  std::string_view text = __PRETTY_FUNCTION__;  // "... [with auto number = nibble::Signs::fixed]"
  text.remove_prefix(text.find_last_of(":)= ") + 1);
  return !text.empty() && (text[0] < '0' || text[0] > '9');
}

// Returns true if there is one row for every value, in their order, and every name is there once.
template <class Enum, size_t count>
constexpr bool is_complete(const std::array<EnumName<Enum>, count>& rows) {
  for (size_t i = 0; i < count; ++i) {
    if (rows[i].value != static_cast<Enum>(i)) return false;
    for (size_t j = 0; j < i; ++j) {
      if (rows[i].name == rows[j].name) return false;
    }
  }
  return is_enumerator<static_cast<Enum>(count - 1)>() && !is_enumerator<static_cast<Enum>(count)>();
}

template <class Enum>
constexpr auto table = enum_names(Enum{});

// Returns the table after checking it.
template <class Enum>
constexpr const auto& names() {
  static_assert(is_enumerator<Enum{}>(), "this compiler prints enumerators in another way");
  static_assert(is_complete(table<Enum>),
                "enum_names() needs one row for every value, in their order, with different names");
  return table<Enum>;
}

}  // namespace detail

template <class Enum>
concept NamedEnum = requires {
  enum_names(Enum{});
};

// Returns the value's name, or "?" for a number that is no value of the enum.
template <NamedEnum Enum>
constexpr std::string_view name_of(Enum value) {
  const auto index = static_cast<size_t>(value);
  return index < detail::names<Enum>().size() ? detail::names<Enum>()[index].name : "?";
}

// Returns what people are told about the value; it may be empty.
template <NamedEnum Enum>
constexpr std::string_view doc_of(Enum value) {
  const auto index = static_cast<size_t>(value);
  return index < detail::names<Enum>().size() ? detail::names<Enum>()[index].doc : std::string_view();
}

// Returns the value with this name; nullopt if there is none.
template <NamedEnum Enum>
constexpr std::optional<Enum> parse_name(std::string_view name) {
  for (const EnumName<Enum>& row : detail::names<Enum>()) {
    if (row.name == name) return row.value;
  }
  return std::nullopt;
}

// all_names() and all_values() return all names and all values, in the order of the values.
template <NamedEnum Enum>
constexpr auto all_names() {
  std::array<std::string_view, detail::names<Enum>().size()> names;
  for (size_t i = 0; i < names.size(); ++i) names[i] = detail::names<Enum>()[i].name;
  return names;
}
template <NamedEnum Enum>
constexpr auto all_values() {
  std::array<Enum, detail::names<Enum>().size()> values;
  for (size_t i = 0; i < values.size(); ++i) values[i] = detail::names<Enum>()[i].value;
  return values;
}

}  // namespace nibble
