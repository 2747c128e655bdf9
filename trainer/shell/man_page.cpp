#include "trainer/shell/man_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <sstream>
#include <string_view>

namespace nibble {
namespace {

// Escapes what troff would read as its own: backslashes, hyphens that are to stay hyphens, and dots and quotes that
// begin a line.
std::string escaped(std::string_view text) {
  std::string result;
  bool at_line = true;
  for (const char c : text) {
    if (at_line && (c == '.' || c == '\'')) result += "\\&";
    at_line = c == '\n';
    if (c == '\\') {
      result += "\\e";
    } else if (c == '-') {
      result += "\\-";
    } else {
      result += c;
    }
  }
  return result;
}

std::string as_it_stands(std::string_view text) {
  return fmt::format(".PP\n.nf\n{}\n.fi\n", escaped(text));
}

std::string upper(std::string_view name) {
  std::string text(name);
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return text;
}

std::string placeholder(const OptionEntry& option) {
  return option.choices.empty() ? upper(option.names.back().substr(option.names.back().find_first_not_of('-')))
                                : fmt::format("{}", fmt::join(option.choices, "|"));
}

std::string option_item(const OptionEntry& option) {
  std::string tag;
  for (const std::string& name : option.names) {
    if (!tag.empty()) tag += ", ";
    tag += "\\fB" + escaped(name) + "\\fR";
  }
  if (option.names.empty()) tag = "\\fI" + escaped(option.argument) + "\\fR";
  if (!option.names.empty() && option.takes_value) tag += " \\fI" + escaped(placeholder(option)) + "\\fR";
  return fmt::format(".TP\n{}\n{}\n", tag, escaped(option.description));
}

std::string synopsis(const CommandEntry& command, const std::string& path) {
  std::string text = fmt::format("\\fB{}\\fR", escaped(path));
  if (!command.commands.empty()) return text + " \\fICOMMAND\\fR";
  text += " [\\fIOPTION\\fR]...";
  for (const OptionEntry& option : command.options) {
    if (!option.names.empty()) continue;
    const std::string name = "\\fI" + escaped(option.argument) + "\\fR" + (option.repeats ? "..." : "");
    text += option.required ? " " + name : " [" + name + "]";
  }
  return text;
}

std::string section(const CommandEntry& command, const std::string& path) {
  std::string text =
      fmt::format(".SS {}\n{}.\n.PP\n{}\n", escaped(path), escaped(command.description), synopsis(command, path));
  for (const OptionEntry& option : command.options) {
    if (std::ranges::find(option.names, "--help") == option.names.end()) text += option_item(option);
  }
  if (!command.footer.empty()) text += as_it_stands(command.footer);
  for (const CommandEntry& inner : command.commands) text += section(inner, path + " " + inner.name);
  return text;
}

}  // namespace

std::string man_page(const CommandEntry& program, const std::string& version) {
  std::string text = fmt::format(
      ".TH NIBBLE 1 \"\" \"nibble {}\" \"User Commands\"\n"
      ".SH NAME\nnibble \\- pretrain language models in four bits\n"
      ".SH SYNOPSIS\n\\fBnibble\\fR \\fICOMMAND\\fR [\\fIARGUMENT\\fR]...\n.br\n"
      "\\fBmpirun\\fR \\fB\\-n\\fR \\fIRANKS\\fR \\fBnibble train\\fR \\fICONFIG\\fR\n"
      ".SH DESCRIPTION\n"
      "nibble pretrains language models with NVFP4 and other narrow formats, on CPUs and on NVIDIA GPUs, on any number "
      "of\n"
      "ranks, and says what they cost against BF16. A run is described by one YAML file.\n",
      version);
  text += as_it_stands(program.footer);
  text += ".SH COMMANDS\n";
  for (const CommandEntry& command : program.commands) text += section(command, "nibble " + command.name);
  text +=
      ".SH ENVIRONMENT\n"
      ".TP\n\\fBNIBBLE_CONFIG_DIR\\fR\nA directory with recipes/ and models/ that are found by name.\n"
      ".TP\n\\fBNIBBLE_ISA\\fR\nThe widest instruction set to use, such as avx2 or portable; the bits are the same.\n"
      ".TP\n\\fBNO_COLOR\\fR\nIf it is set, messages have no colours.\n"
      ".SH SEE ALSO\n\\fBmpirun\\fR(1)\n";
  return text;
}

}  // namespace nibble
