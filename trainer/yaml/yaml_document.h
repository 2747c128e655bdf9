// A strict reader for the part of YAML that configurations need: mappings, sequences and scalars, in UTF-8. Anchors,
// aliases, merge keys, tags, several documents, duplicate keys, deep nesting and huge files are refused, so that a file
// means what it looks like, and reading it takes memory and time in proportion to its size. Every node knows its
// location. yaml_document.cpp holds the reader, yaml_scalar.cpp the functions for numbers and strings.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

// The location of a node: a file with line and column, or an option of the command line (then `line` is 0).
struct SourceLocation {
  std::shared_ptr<const std::string> source;
  int line = 0;
  int column = 0;
  std::string text() const;  // "quickstart.yaml:12:5" or "--set train.steps=x"
};

struct YamlEntry;

struct YamlNode {
  enum class Kind : uint8_t { null, scalar, sequence, map };
  Kind kind = Kind::null;
  SourceLocation location;
  std::string text;     // of a scalar
  bool quoted = false;  // a quoted or block scalar, which is always a string
  std::vector<YamlNode> items;
  std::vector<YamlEntry> entries;  // in the file's order, keys unique

  const YamlEntry* find(std::string_view key) const;
  YamlEntry* find(std::string_view key);
};

struct YamlEntry {
  std::string key;
  SourceLocation location;  // of the key
  YamlNode value;
};

// Throws ExitCode::bad_config with the message "<location>: <what>".
[[noreturn]] void refuse_config(const SourceLocation& location, std::string_view what, std::string remedy);

// Parses a text; `name` stands for the file in messages. An empty document is a null node. Throws ExitCode::bad_config
// with file:line:column.
YamlNode parse_yaml(const std::string& text, const std::string& name);
// Parses a file of at most 1 MiB. Throws ExitCode::missing_input if there is no such file.
YamlNode read_yaml_file(const std::string& path);

// Returns a scalar with the text as it stands, null if it is empty. Refuses what parse_yaml() refuses in any text.
YamlNode plain_scalar(const std::string& text, const std::string& name);

// Reads an integer such as "3", "1_000_000", "1e9", "10M" or "32Ki": k, M, G, B are powers of ten, Ki, Mi, Gi powers of
// two. Returns nullopt for a text of another form, a value that is not whole and a value beyond 64 bits.
struct ParsedInteger {
  bool negative = false;
  uint64_t magnitude = 0;
};
std::optional<ParsedInteger> parse_integer(std::string_view text);
// Reads a real number: the forms of parse_integer(), and "0.1" or "3e-4". The value is correctly rounded if it has no
// suffix, and is never infinite or NaN.
std::optional<double> parse_real(std::string_view text);

// Returns a scalar that parse_yaml() reads back as the same string: plain where that is safe, else in double quotes.
std::string yaml_string(std::string_view text);

}  // namespace nibble
