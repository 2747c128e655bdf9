#include "trainer/shell/completion.h"

#include <fmt/format.h>

#include <functional>
#include <string_view>

namespace nibble {
namespace {

// The names of a command and of those above it, without the program's own: " config check".
using Visit = std::function<void(const CommandEntry& command, const std::string& path)>;

void walk(const CommandEntry& command, const std::string& path, const Visit& visit) {
  visit(command, path);
  for (const CommandEntry& inner : command.commands) walk(inner, path + " " + inner.name, visit);
}

bool is_assignment(const OptionEntry& option) {
  return !option.names.empty() && option.names.front() == "--set";
}

std::string replaced(std::string text, std::string_view what, std::string_view by) {
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + by.size())) {
    text.replace(at, what.size(), by);
  }
  return text;
}

// As a part of a zsh specification in single quotes, where brackets and colons have a meaning.
std::string zsh_text(std::string text) {
  text = replaced(std::move(text), "\\", "\\\\");
  for (const char* special : {"[", "]", ":"}) text = replaced(std::move(text), special, std::string("\\") + special);
  return replaced(std::move(text), "'", "'\\''");
}

std::string zsh_function(const std::string& path) {
  return "_nibble" + replaced(path, " ", "_");
}

std::string zsh_value(const OptionEntry& option) {
  if (!option.takes_value) return "";
  const std::string name = zsh_text(option.argument.empty() ? "value" : option.argument);
  if (is_assignment(option)) return fmt::format(":{}:_nibble_keys", name);
  if (!option.choices.empty()) return fmt::format(":{}:({})", name, fmt::join(option.choices, " "));
  return fmt::format(":{}:_files", name);
}

std::string zsh_arguments(const CommandEntry& command) {
  std::string text = "  _arguments -s";
  for (const OptionEntry& option : command.options) {
    if (option.names.empty()) {
      text += fmt::format(" \\\n    '{}{}'", option.repeats ? "*" : "", zsh_value(option));
    }
    for (const std::string& name : option.names) {
      text += fmt::format(" \\\n    '{}{}[{}]{}'", option.repeats ? "*" : "", name, zsh_text(option.description),
                          zsh_value(option));
    }
  }
  return text + "\n";
}

std::string zsh_commands(const CommandEntry& command, const std::string& path) {
  std::string names, cases;
  for (const CommandEntry& inner : command.commands) {
    names += fmt::format("    '{}:{}'\n", inner.name, zsh_text(inner.description));
    cases += fmt::format("    {}) {} ;;\n", inner.name, zsh_function(path + " " + inner.name));
  }
  return fmt::format(
      "  local state\n"
      "  local -a commands=(\n{}  )\n"
      "  _arguments -C '1: :->command' '*:: :->rest'\n"
      "  if [[ $state == command ]]; then\n"
      "    _describe command commands\n"
      "    return\n"
      "  fi\n"
      "  case $words[1] in\n{}  esac\n",
      names, cases);
}

}  // namespace

std::string bash_completion(const CommandEntry& program, const std::vector<std::string>& keys) {
  std::string paths, values, options, words;
  walk(program, "", [&](const CommandEntry& command, const std::string& path) {
    if (!path.empty()) paths += fmt::format("      \"{}\") path=\"{}\" ;;\n", path, path);
    std::vector<std::string> names, candidates;
    for (const CommandEntry& inner : command.commands) candidates.push_back(inner.name);
    for (const OptionEntry& option : command.options) {
      if (option.names.empty()) candidates.insert(candidates.end(), option.choices.begin(), option.choices.end());
      for (const std::string& name : option.names) {
        names.push_back(name);
        if (option.choices.empty()) continue;
        values += fmt::format("    \"{} {}\") choices=\"{}\" ;;\n", path, name, fmt::join(option.choices, " "));
      }
    }
    options += fmt::format("    \"{}\") options=\"{}\" ;;\n", path, fmt::join(names, " "));
    if (!candidates.empty()) words += fmt::format("    \"{}\") words=\"{}\" ;;\n", path, fmt::join(candidates, " "));
  });
  return fmt::format(
      R"(# Completion of nibble's command line for bash, made by `nibble completion bash`.
_nibble() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}}
  local path= word options= words= choices=
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case "$path $word" in
{}    esac
  done
  COMPREPLY=()
  if [ "$previous" = --set ]; then
    compopt -o nospace
    mapfile -t COMPREPLY < <(compgen -W "{}=" -- "$current")
    return
  fi
  case "$path $previous" in
{}  esac
  if [ -n "$choices" ]; then
    mapfile -t COMPREPLY < <(compgen -W "$choices" -- "$current")
    return
  fi
  case "$path" in
{}  esac
  case "$path" in
{}  esac
  if [[ $current == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
    return
  fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
  if [ -n "$path" ] && [ "${{#COMPREPLY[@]}}" -eq 0 ]; then
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  fi
}}
complete -F _nibble nibble
)",
      paths, fmt::join(keys, "= "), values, options, words);
}

std::string zsh_completion(const CommandEntry& program, const std::vector<std::string>& keys) {
  std::string text = fmt::format(
      "#compdef nibble\n"
      "# Completion of nibble's command line for zsh, made by `nibble completion zsh`.\n"
      "_nibble_keys() {{\n  compadd -S '=' -- {}\n}}\n",
      fmt::join(keys, " "));
  walk(program, "", [&](const CommandEntry& command, const std::string& path) {
    const std::string body = command.commands.empty() ? zsh_arguments(command) : zsh_commands(command, path);
    text += fmt::format("{}() {{\n{}}}\n", zsh_function(path), body);
  });
  return text + "if [ \"$funcstack[1]\" = _nibble ]; then _nibble \"$@\"; else compdef _nibble nibble; fi\n";
}

}  // namespace nibble
