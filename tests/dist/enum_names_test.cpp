#include "dist/base/enum_names.h"

#include <gtest/gtest.h>

#include <cstdint>

namespace nibble {
namespace {

enum class Season : uint8_t { spring, summer, winter };

}  // namespace

namespace elsewhere {

enum class Colour : uint32_t { red, green };
constexpr auto enum_names(Colour) {
  return std::to_array<EnumName<Colour>>({{Colour::red, "red"}, {Colour::green, "dark green"}});
}

}  // namespace elsewhere

namespace {

using elsewhere::Colour;

template <class Enum, size_t count>
constexpr bool complete(const EnumName<Enum> (&rows)[count]) {
  return detail::is_complete(std::to_array(rows));
}

TEST(EnumNames, TranslateBothWays) {
  EXPECT_EQ(name_of(Colour::red), "red");
  EXPECT_EQ(name_of(Colour::green), "dark green");
  EXPECT_EQ(name_of(static_cast<Colour>(2)), "?");
  EXPECT_EQ(parse_name<Colour>("dark green"), Colour::green);
  EXPECT_EQ(parse_name<Colour>("green"), std::nullopt);
  EXPECT_EQ(parse_name<Colour>(""), std::nullopt);
}

TEST(EnumNames, AreListedInTheOrderOfTheValues) {
  EXPECT_EQ(all_names<Colour>(), (std::array<std::string_view, 2>{"red", "dark green"}));
  EXPECT_EQ(all_values<Colour>(), (std::array{Colour::red, Colour::green}));
}

// Tests what name_of() asserts at compile time.
TEST(EnumNames, ATableNamesEveryValueOnce) {
  using enum Season;
  static_assert(complete<Season>({{spring, "a"}, {summer, "b"}, {winter, "c"}}));
  static_assert(!complete<Season>({{spring, "a"}, {summer, "b"}}), "the last value is missing");
  static_assert(!complete<Season>({{spring, "a"}, {winter, "c"}}), "a value in the middle is missing");
  static_assert(!complete<Season>({{summer, "b"}, {winter, "c"}}), "the first value is missing");
  static_assert(!complete<Season>({{spring, "a"}, {spring, "b"}, {winter, "c"}}), "a value stands twice");
  static_assert(!complete<Season>({{spring, "a"}, {summer, "a"}, {winter, "c"}}), "a name stands twice");
  static_assert(!complete<Season>({{spring, "a"}, {summer, "b"}, {winter, "c"}, {static_cast<Season>(3), "d"}}),
                "a row of no value");
}

}  // namespace
}  // namespace nibble
