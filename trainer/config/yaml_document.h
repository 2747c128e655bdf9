// A strict reader for the part of YAML that configurations need: mappings, sequences and scalars, in UTF-8. Anchors,
// aliases, merge keys, tags, several documents, duplicate keys, deep nesting and huge files are refused, so that a file
// means what it looks like and costs what its size says. Every node knows where it stands.
// Implemented in yaml_document.cpp; numbers, booleans and strings in yaml_scalar.cpp.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

// Where a node was written: a file with line and column, or an option of the command line (line 0).
struct YamlPlace {
  std::shared_ptr<const std::string> source;
  int line = 0;
  int column = 0;
  std::string text() const;  // "quickstart.yaml:12:5" or "--set train.steps=x"
};

struct YamlEntry;

struct YamlNode {
  enum class Kind : uint8_t { null, scalar, sequence, map };
  Kind kind = Kind::null;
  YamlPlace place;
  std::string text;     // of a scalar
  bool quoted = false;  // a quoted or block scalar: always a string
  std::vector<YamlNode> items;
  std::vector<YamlEntry> entries;  // in the file's order, keys unique

  const YamlEntry* find(std::string_view key) const;
  YamlEntry* find(std::string_view key);
};

struct YamlEntry {
  std::string key;
  YamlPlace place;  // of the key
  YamlNode value;
};

// Throws ExitCode::bad_config: "<place>: <what>".
[[noreturn]] void refuse_config(const YamlPlace& place, std::string_view what, std::string remedy);

// Throws ExitCode::bad_config with file:line:column. `name` stands for the file in messages. An empty document is null.
YamlNode parse_yaml(const std::string& text, const std::string& name);
// Reads at most 1 MiB. Throws ExitCode::missing_input if there is no such file.
YamlNode read_yaml_file(const std::string& path);

// Replaces the value at a dotted key of a mapping, making mappings on the way: "a.b=c", as given after --set. A value
// that starts with one of [ { " ' is YAML, any other is taken as it stands.
void apply_override(YamlNode& root, const std::string& assignment);

// "3", "1_000_000", "1e9", "10M", "32Ki": k, M, G, B are powers of ten, Ki, Mi, Gi powers of two. nullopt for anything
// else, for values that are not whole and for those beyond 64 bits.
struct ParsedInteger {
  bool negative = false;
  uint64_t magnitude = 0;
};
std::optional<ParsedInteger> parse_integer(std::string_view text);
// The same forms and "0.1", "3e-4", correctly rounded where there is no suffix. Never infinite or NaN.
std::optional<double> parse_real(std::string_view text);

// A scalar that parse_yaml() reads back as the same string: plain where that is safe, else in double quotes.
std::string yaml_string(std::string_view text);

// For messages: in double quotes, on one line, and cut if it is long.
std::string shown(std::string_view text);

bool is_utf8(std::string_view text);

// The candidate most like `word`, if it is like enough to be a slip of the pen; else empty.
std::string_view nearest_word(std::string_view word, const std::vector<std::string_view>& candidates);

}  // namespace nibble
