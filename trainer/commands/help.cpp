// The commands that tell of the others: nibble help, nibble completion and nibble man.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "dist/base/error.h"
#include "dist/base/text.h"
#include "trainer/commands/commands.h"
#include "trainer/config/field_table.h"
#include "trainer/shell/completion.h"
#include "trainer/shell/man_page.h"

namespace nibble {
namespace {

std::vector<CLI::App*> commands_of(const CLI::App& app) {
  return const_cast<CLI::App&>(app).get_subcommands([](CLI::App*) { return true; });
}

const CLI::App& command_of(const CLI::App& app, const std::string& name) {
  std::vector<std::string> names;
  for (const CLI::App* command : commands_of(app)) {
    if (command->get_name() == name) return *command;
    names.push_back(command->get_name());
  }
  throw Error(ExitCode::usage, fmt::format("unknown command {}", unknown_word(name, {names.begin(), names.end()})),
              names.empty() ? fmt::format("{} has no commands of its own", app.get_name())
                            : fmt::format("the commands are {}", fmt::join(names, ", ")));
}

void print_help(const CLI::App& program, const std::vector<std::string>& path) {
  const CLI::App* command = &program;
  std::string above;
  for (const std::string& name : path) {
    above += (above.empty() ? "" : " ") + command->get_name();
    command = &command_of(*command, name);
  }
  // The formatter, not App::help(), which would show the help of `nibble help`: the command that was parsed.
  const std::string name = above.empty() ? command->get_name() : above + " " + command->get_name();
  fmt::print("{}", command->get_formatter()->make_help(command, name, CLI::AppFormatMode::Normal));
}

void print_completion(const CommandEntry& program, const std::string& shell) {
  std::vector<std::string> keys;
  for (const Field& field : config_fields()) keys.emplace_back(field.key);
  fmt::print("{}", shell == "bash" ? bash_completion(program, keys) : zsh_completion(program, keys));
}

}  // namespace

void add_help_options(CLI::App& command) {
  auto path = std::make_shared<std::vector<std::string>>();
  command.add_option("COMMAND", *path, "The command, such as train or config check; none = the list of all");
  command.footer("Example:\n  nibble help train");
  command.final_callback([path, &command] { print_help(*command.get_parent(), *path); });
}

void add_completion_options(CLI::App& command) {
  auto shell = std::make_shared<std::string>();
  command.add_option("SHELL", *shell, "The shell")->required()->check(CLI::IsMember({"bash", "zsh"}));
  command.footer(
      "Examples:\n"
      "  source <(nibble completion bash)      (in ~/.bashrc)\n"
      "  nibble completion zsh > ~/.zsh/functions/_nibble");
  command.final_callback([shell, &command] { print_completion(command_tree(*command.get_parent()), *shell); });
}

void add_man_options(CLI::App& command) {
  command.footer("Example:\n  nibble man | man -l -");
  command.final_callback(
      [&command] { fmt::print("{}", man_page(command_tree(*command.get_parent()), NIBBLE_VERSION)); });
}

}  // namespace nibble
