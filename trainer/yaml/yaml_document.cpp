#include "trainer/yaml/yaml_document.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <sstream>

#include "dist/base/error.h"
#include "dist/base/file.h"
#include "dist/base/text.h"
#include "dist/base/utf8.h"

namespace nibble {
namespace {

constexpr size_t max_bytes = size_t{1} << 20;
constexpr size_t max_depth = 16;
constexpr size_t max_nodes = 10'000;

// Builds nodes from the events of yaml-cpp. The library's own tree is not used: it follows aliases into cycles and
// accepts duplicate keys silently.
class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(std::shared_ptr<const std::string> source) : source_(std::move(source)) {
    root_.location = {source_, 1, 1};
  }

  YamlNode take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ > 0)
      refuse_config(location(mark), "a second YAML document", "keep one document (one `---`) in the file");
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    refuse_anchor(mark, anchor);
    YamlNode node;
    node.location = location(mark);
    add(std::move(node));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    refuse_config(location(mark), "YAML aliases are not supported",
                  "write the value out; quote it if the `*` is part of it");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    refuse_anchor(mark, anchor);
    if (!tag.empty() && tag != "?" && tag != "!") refuse_tag(mark);
    YamlNode node;
    node.kind = YamlNode::Kind::scalar;
    node.location = location(mark);
    node.text = value;
    node.quoted = tag == "!";
    add(std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::sequence);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::map);
  }
  void OnMapEnd() override { close(); }

 private:
  // A mapping or sequence that is being read. `key` is set while its value has not been read.
  struct Level {
    YamlNode node;
    std::optional<YamlNode> key;
  };

  SourceLocation location(const YAML::Mark& mark) const { return {source_, mark.line + 1, mark.column + 1}; }

  void refuse_anchor(const YAML::Mark& mark, YAML::anchor_t anchor) const {
    if (anchor == YAML::NullAnchor) return;
    refuse_config(location(mark), "YAML anchors are not supported",
                  "remove the `&name` and write the value out; quote it if the `&` is part of it");
  }
  [[noreturn]] void refuse_tag(const YAML::Mark& mark) const {
    refuse_config(location(mark), "YAML tags are not supported",
                  "remove the `!tag`; quote the value if the `!` is part of it");
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YamlNode::Kind kind) {
    refuse_anchor(mark, anchor);
    if (!tag.empty() && tag != "?") refuse_tag(mark);
    if (levels_.size() >= max_depth) {
      refuse_config(location(mark), fmt::format("nested more than {} levels deep", max_depth), "flatten the file");
    }
    Level level;
    level.node.kind = kind;
    level.node.location = location(mark);
    levels_.push_back(std::move(level));
  }

  void close() {
    YamlNode node = std::move(levels_.back().node);
    levels_.pop_back();
    add(std::move(node));
  }

  void add(YamlNode node) {
    if (++nodes_ > max_nodes) {
      refuse_config(node.location, fmt::format("more than {} YAML nodes", max_nodes),
                    "a configuration is far smaller: wrong file?");
    }
    if (levels_.empty()) {
      root_ = std::move(node);
      return;
    }
    Level& level = levels_.back();
    if (level.node.kind == YamlNode::Kind::sequence) {
      level.node.items.push_back(std::move(node));
    } else if (!level.key) {
      check_key(level.node, node);
      level.key = std::move(node);
    } else {
      level.node.entries.push_back({std::move(level.key->text), std::move(level.key->location), std::move(node)});
      level.key.reset();
    }
  }

  static void check_key(const YamlNode& map, const YamlNode& key) {
    if (key.kind != YamlNode::Kind::scalar) refuse_config(key.location, "a key must be a word", "write `name: value`");
    if (key.text == "<<") {
      refuse_config(key.location, "YAML merge keys (`<<`) are not supported", "write the merged keys out");
    }
    if (const YamlEntry* first = map.find(key.text)) {
      refuse_config(key.location, fmt::format("duplicate key {}", shown(key.text)),
                    fmt::format("it is already set at {}; keep one of them", first->location.text()));
    }
  }

  std::shared_ptr<const std::string> source_;
  YamlNode root_;
  std::vector<Level> levels_;
  size_t nodes_ = 0;
  int documents_ = 0;
};

// Returns the line and column (in bytes) of an offset into the text.
SourceLocation location_at(const std::string& text, size_t offset, std::shared_ptr<const std::string> source) {
  const std::string_view before = std::string_view(text).substr(0, offset);
  const size_t line_start = before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
  return {std::move(source), static_cast<int>(std::count(before.begin(), before.end(), '\n')) + 1,
          static_cast<int>(offset - line_start) + 1};
}

void check_text(const std::string& text, const std::shared_ptr<const std::string>& source) {
  if (text.size() > max_bytes) {
    throw Error(ExitCode::bad_config, fmt::format("{}: larger than 1 MiB", *source),
                "a configuration is far smaller: is this the right file?");
  }
  const std::optional<size_t> invalid = find_invalid_utf8(text);
  for (size_t offset = 0; offset < invalid.value_or(text.size()); ++offset) {
    const auto byte = static_cast<uint8_t>(text[offset]);
    if ((byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\r') || byte == 0x7F) {
      refuse_config(location_at(text, offset, source), fmt::format("control character 0x{:02x}", byte), "remove it");
    }
  }
  if (invalid) refuse_config(location_at(text, *invalid, source), "not valid UTF-8", "save the file as UTF-8 text");
}

}  // namespace

void refuse_config(const SourceLocation& location, std::string_view what, std::string remedy) {
  throw Error(ExitCode::bad_config, fmt::format("{}: {}", location.text(), what), std::move(remedy));
}

std::string SourceLocation::text() const {
  const std::string& name = source ? *source : std::string();
  return line == 0 ? name : fmt::format("{}:{}:{}", name, line, column);
}

const YamlEntry* YamlNode::find(std::string_view key) const {
  const auto found = std::find_if(entries.begin(), entries.end(), [&](const YamlEntry& e) { return e.key == key; });
  return found == entries.end() ? nullptr : &*found;
}

YamlEntry* YamlNode::find(std::string_view key) {
  const auto found = std::find_if(entries.begin(), entries.end(), [&](const YamlEntry& e) { return e.key == key; });
  return found == entries.end() ? nullptr : &*found;
}

YamlNode parse_yaml(const std::string& text, const std::string& name) {
  const auto source = std::make_shared<const std::string>(name);
  check_text(text, source);
  TreeBuilder builder(source);
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& error) {
    const bool located = !error.mark.is_null();
    const SourceLocation location{source, located ? error.mark.line + 1 : 1, located ? error.mark.column + 1 : 1};
    refuse_config(location, fmt::format("not YAML: {}", error.msg), "check indentation, brackets and quotes there");
  }
  return builder.take();
}

YamlNode read_yaml_file(const std::string& path) {
  return parse_yaml(read_stream(path, max_bytes + 1), path);
}

YamlNode plain_scalar(const std::string& text, const std::string& name) {
  const auto source = std::make_shared<const std::string>(name);
  check_text(text, source);
  YamlNode node;
  node.kind = text.empty() ? YamlNode::Kind::null : YamlNode::Kind::scalar;
  node.location = {source, 1, 1};
  node.text = text;
  return node;
}

}  // namespace nibble
