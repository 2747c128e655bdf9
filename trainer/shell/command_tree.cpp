#include "trainer/shell/command_tree.h"

#include <CLI/CLI.hpp>
#include <algorithm>

namespace nibble {
namespace {

// The choices of a value stand in the text that is shown for its type: "a|b", or "TEXT:{a,b}" where CLI11 checks them.
// Words in capitals stand for values, not for themselves: "N|all".
std::vector<std::string> choices_of(const std::string& type) {
  const size_t begin = type.find('{');
  const size_t end = type.find('}', begin);
  if (end != std::string::npos) return CLI::detail::split(type.substr(begin + 1, end - begin - 1), ',');
  const bool words = std::ranges::all_of(
      type, [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '|'; });
  return words && type.find('|') != std::string::npos ? CLI::detail::split(type, '|') : std::vector<std::string>();
}

OptionEntry entry_of(const CLI::Option& option) {
  OptionEntry entry{.argument = option.get_positional() ? option.get_name(true) : "",
                    .description = option.get_description(),
                    .choices = choices_of(option.get_type_name()),
                    .takes_value = option.get_type_size_max() != 0,
                    .repeats = option.get_expected_max() > 1,
                    .required = option.get_required()};
  for (const std::string& name : option.get_snames()) entry.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) entry.names.push_back("--" + name);
  return entry;
}

}  // namespace

CommandEntry command_tree(const CLI::App& app) {
  CommandEntry entry{.name = app.get_name(), .description = app.get_description(), .footer = app.get_footer()};
  for (const CLI::Option* option : app.get_options()) entry.options.push_back(entry_of(*option));
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    entry.commands.push_back(command_tree(*command));
  }
  return entry;
}

}  // namespace nibble
