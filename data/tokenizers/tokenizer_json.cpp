#include "data/tokenizers/tokenizer_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <optional>
#include <utility>

#include "data/patterns/code_point.h"
#include "data/patterns/code_point_set.h"
#include "dist/base/log.h"
#include "dist/base/utf8.h"

namespace nibble {
namespace {

constexpr size_t longest_added_token = 1024;  // bytes
constexpr char supported_decoders[] =
    "ByteLevel with the pre-tokenizer ByteLevel; otherwise Metaspace, Replace, ByteFallback, Fuse, Strip and a "
    "Sequence "
    "of these";

// GPT-2's characters for bytes: the printable ones of Latin-1 for themselves, the others from U+0100 on.
const std::array<uint32_t, 256>& characters_of_bytes() {
  static const std::array<uint32_t, 256> characters = [] {
    std::array<uint32_t, 256> result{};
    uint32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const bool is_printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
      result[byte] = is_printable ? byte : next++;
    }
    return result;
  }();
  return characters;
}

std::optional<unsigned char> byte_of_character(uint32_t code) {
  static const std::map<uint32_t, unsigned char> bytes = [] {
    std::map<uint32_t, unsigned char> result;
    for (size_t byte = 0; byte < 256; ++byte) result[characters_of_bytes()[byte]] = static_cast<unsigned char>(byte);
    return result;
  }();
  const auto found = bytes.find(code);
  if (found == bytes.end()) return std::nullopt;
  return found->second;
}

// Returns the bytes that a token of a byte-level vocabulary stands for; nothing if it has other characters.
std::optional<std::string> bytes_of_token(std::string_view token) {
  std::string bytes;
  for (size_t at = 0; at < token.size();) {
    const auto [code, size] = code_point_at(token, at);
    const auto byte = byte_of_character(code);
    if (!byte) return std::nullopt;
    bytes += static_cast<char>(*byte);
    at += size;
  }
  return bytes;
}

struct Vocabulary {
  TokenIds ids;  // of the tokens as they are written in the file
  int32_t largest = -1;
};

int32_t read_id(const JsonElement& file, const std::string& token, const nlohmann::json& value) {
  if (!value.is_number_integer() || value < 0 || value >= Tokenizer::max_vocab_size) {
    file.fail_damaged(fmt::format("has a token \"{}\" whose id is not in [0, {})", token, Tokenizer::max_vocab_size));
  }
  return value.get<int32_t>();
}

Vocabulary read_vocabulary(const JsonElement& model) {
  const JsonElement element = model.at("vocab");
  if (!element.value().is_object()) element.fail_damaged("is no object");
  Vocabulary vocabulary;
  std::vector<bool> taken;
  for (const auto& [token, value] : element.value().items()) {
    if (!is_utf8(token)) element.fail_damaged("has a token that is not UTF-8");
    const int32_t id = read_id(element, token, value);
    if (taken.size() <= static_cast<size_t>(id)) taken.resize(static_cast<size_t>(id) + 1);
    if (taken[static_cast<size_t>(id)]) element.fail_damaged(fmt::format("gives the id {} twice", id));
    taken[static_cast<size_t>(id)] = true;
    vocabulary.ids.emplace(token, id);
    vocabulary.largest = std::max(vocabulary.largest, id);
  }
  return vocabulary;
}

struct MergePair {
  std::string left, right;
};

MergePair read_merge(const JsonElement& merges, size_t index) {
  const nlohmann::json& value = merges.value()[index];
  if (value.is_array() && value.size() == 2 && value[0].is_string() && value[1].is_string()) {
    return {value[0].get<std::string>(), value[1].get<std::string>()};
  }
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  }
  merges.fail_damaged(fmt::format("has an item {} that is not a pair of tokens", index));
}

// Reads the merges, and adds to `junctions` what each joins.
MergeTable read_merges(const JsonElement& model, const Vocabulary& vocabulary, Junctions* junctions) {
  const JsonElement element = model.at("merges");
  const size_t count = element.size_of_array();
  MergeTable merges(count);
  uint32_t rank = 0;
  for (size_t i = 0; i < count; ++i) {
    const nlohmann::json& value = element.value()[i];
    if (value.is_string() && value.get_ref<const std::string&>().starts_with("#version")) continue;
    const auto [left, right] = read_merge(element, i);
    const auto id = [&](const std::string& token) {
      const auto found = vocabulary.ids.find(token);
      if (found == vocabulary.ids.end()) {
        element.fail_damaged(fmt::format("has an item {} with \"{}\", which is not in the vocabulary", i, token));
      }
      return found->second;
    };
    if (left.empty() || right.empty()) element.fail_damaged(fmt::format("has an item {} with an empty token", i));
    merges.insert(id(left), id(right), {rank++, id(left + right)});
    if (junctions != nullptr) junctions->add(code_point_before(left, left.size()).code, code_point_at(right, 0).code);
  }
  return merges;
}

void check_model(const JsonElement& model) {
  if (model.has("type") && model.type() != "BPE") {
    model.fail_unsupported("is a " + model.type(), "BPE; a SentencePiece model file (tokenizer.model) of any kind");
  }
  if (model.has("dropout") && model.at("dropout").value() != 0) {
    model.at("dropout").fail_unsupported("is set", "null");
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (model.has(key) && !model.at(key).text().empty()) model.at(key).fail_unsupported("is set", "null");
  }
}

// Hugging Face's library gives ids of its own to tokens that are not in the vocabulary; the file must agree with it.
std::vector<AddedToken> read_added_tokens(const JsonElement& root, const Vocabulary& vocabulary) {
  std::vector<AddedToken> tokens;
  if (!root.has("added_tokens")) return tokens;
  const JsonElement list = root.at("added_tokens");
  TokenIds known;
  std::vector<bool> taken(static_cast<size_t>(vocabulary.largest + 1));
  for (const auto& [token, id] : vocabulary.ids) taken[static_cast<size_t>(id)] = true;
  int32_t largest = -1;
  for (size_t i = 0; i < list.size_of_array(); ++i) {
    const JsonElement element = list.item(i);
    AddedToken token;
    token.content = element.at("content").text();
    if (token.content.empty() || token.content.size() > longest_added_token || !is_utf8(token.content)) {
      element.at("content").fail_unsupported("has not 1 to 1024 bytes of UTF-8", "such tokens");
    }
    token.id = read_id(element, token.content, element.at("id").value());
    token.is_special = element.flag("special", false);
    token.single_word = element.flag("single_word", false);
    token.strips_left = element.flag("lstrip", false);
    token.strips_right = element.flag("rstrip", false);
    token.is_normalized = element.flag("normalized", !token.is_special);
    const auto in_vocabulary = vocabulary.ids.find(token.content);
    const auto before = known.find(token.content);
    const auto size = static_cast<int32_t>(vocabulary.ids.size());
    const int32_t expected = in_vocabulary != vocabulary.ids.end() ? in_vocabulary->second
                             : before != known.end()               ? before->second
                                                                   : std::max(largest + 1, size);
    if (token.id != expected) {
      element.at("id").fail(
          fmt::format("is {}, but Hugging Face's library gives \"{}\" the id {}", token.id, token.content, expected),
          "save the tokenizer with that library again");
    }
    if (in_vocabulary == vocabulary.ids.end() && static_cast<size_t>(token.id) < taken.size() &&
        taken[static_cast<size_t>(token.id)]) {
      element.at("id").fail_damaged("is that of another token");
    }
    largest = std::max(largest, token.id);
    known[token.content] = token.id;
    tokens.push_back(std::move(token));
  }
  return tokens;
}

int32_t find_end_of_document(const std::string& name, const Vocabulary& vocabulary,
                             const std::vector<AddedToken>& added, TokenizerOptions& options) {
  const auto find = [&](std::string_view content) -> int32_t {
    for (const AddedToken& token : added) {
      if (token.content == content) return token.id;
    }
    const auto found = vocabulary.ids.find(content);
    return found == vocabulary.ids.end() ? -1 : found->second;
  };
  const std::string given = options.end_of_document;
  int32_t own = -1;
  for (const std::string_view content : end_of_document_names) {
    if (own < 0) own = find(content);
  }
  if (!given.empty()) {
    const int32_t id = find(given);
    if (id < 0) {
      throw Error(ExitCode::usage, fmt::format("{} has no token \"{}\" (--end-of-document)", name, given),
                  "name one of its tokens");
    }
    if (id == own) options.end_of_document.clear();
    return id;
  }
  if (own < 0) {
    throw Error(ExitCode::usage,
                fmt::format("{} has none of {}, so it is not known which token ends a document", name,
                            fmt::join(end_of_document_names, ", ")),
                "name it with --end-of-document TOKEN");
  }
  return own;
}

// How tokens become text.
struct Decoding {
  std::vector<std::pair<std::string, std::string>> replacements;
  bool has_bytes = false;  // <0x00> ... stand for bytes
  std::string first_text;  // taken away from the beginning
};

void add_decoder(const JsonElement& element, bool is_byte_level, int depth, Decoding& decoding) {
  const std::string& type = element.type();
  if (depth > 8) element.fail_unsupported("is nested so deeply", supported_decoders);
  if (type == "Sequence") {
    const JsonElement list = element.at("decoders");
    for (size_t i = 0; i < list.size_of_array(); ++i) add_decoder(list.item(i), is_byte_level, depth + 1, decoding);
  } else if (is_byte_level != (type == "ByteLevel")) {
    element.fail_unsupported("is a " + type, supported_decoders);
  } else if (type == "Replace" && element.at("pattern").has("String")) {
    decoding.replacements.emplace_back(element.at("pattern").at("String").text(), element.at("content").text());
    if (decoding.replacements.back().first.empty()) element.fail_unsupported("replaces nothing", supported_decoders);
  } else if (type == "ByteFallback") {
    decoding.has_bytes = true;
  } else if (type == "Strip") {
    const bool is_simple = element.at("start").value() == 1 && element.at("stop").value() == 0;
    if (!is_simple) element.fail_unsupported("strips more than one character", "start 1 and stop 0");
    decoding.first_text = element.at("content").text();
  } else if (type == "Metaspace") {
    decoding.replacements.emplace_back(visible_space, " ");
    const bool is_never = element.has("prepend_scheme") ? element.at("prepend_scheme").text() == "never"
                                                        : !element.flag("add_prefix_space", true);
    if (!is_never) decoding.first_text = " ";
  } else if (type != "Fuse" && !is_byte_level) {
    element.fail_unsupported("is a " + type, supported_decoders);
  }
}

std::string text_of_character_token(std::string_view token, const Decoding& decoding) {
  if (decoding.has_bytes && token.size() == 6 && token.starts_with("<0x") && token.ends_with('>')) {
    unsigned value = 0;
    const auto [end, error] = std::from_chars(token.data() + 3, token.data() + 5, value, 16);
    if (error == std::errc() && end == token.data() + 5) return std::string(1, static_cast<char>(value));
  }
  std::string text(token);
  for (const auto& [from, to] : decoding.replacements) {
    for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
      text.replace(at, from.size(), to);
    }
  }
  return text;
}

// Fills in what ids mean, and what the model is.
void set_model(const JsonElement& model, const Vocabulary& vocabulary, const PreTokenizerStages& stages,
               PreTokenizer& pre_tokenizer, const Decoding& decoding, BpeParts& parts) {
  BpeModel::Options options;
  options.symbols = stages.is_byte_level ? BpeModel::Symbols::bytes : BpeModel::Symbols::characters;
  options.whole_words = model.flag("ignore_merges", false);
  options.byte_fallback = model.flag("byte_fallback", false);
  options.fuse_unknown = model.flag("fuse_unk", false);
  if (model.has("unk_token")) {
    const auto found = vocabulary.ids.find(model.at("unk_token").text());
    if (found == vocabulary.ids.end()) model.at("unk_token").fail_damaged("is not in the vocabulary");
    options.unknown_id = found->second;
  }
  Junctions junctions;
  MergeTable merges = read_merges(model, vocabulary, stages.is_byte_level ? nullptr : &junctions);
  TokenIds ids;
  for (const auto& [token, id] : vocabulary.ids) {
    if (stages.is_byte_level) {
      const auto bytes = bytes_of_token(token);
      parts.text[static_cast<size_t>(id)] = bytes ? *bytes : token;
      if (bytes) ids.emplace(*bytes, id);
    } else {
      parts.text[static_cast<size_t>(id)] = text_of_character_token(token, decoding);
      ids.emplace(token, id);
    }
  }
  const auto bpe = std::make_shared<BpeModel>(std::move(ids), std::move(merges), options);
  parts.model = bpe;
  if (!bpe->covers_every_text()) {
    if (stages.is_byte_level && options.byte_fallback) {
      model.at("byte_fallback").fail_unsupported("is set where bytes are missing in the vocabulary", "false");
    }
    parts.losses.emplace_back(options.unknown_id < 0 ? "it leaves out characters that its vocabulary does not have"
                                                     : "characters outside its vocabulary become its unknown token");
    parts.counts_bytes = false;
  }
  if (stages.is_byte_level) {
    auto last = pre_tokenizer.take_last_split();
    if (!last.empty()) parts.words = std::make_unique<PatternCutter>(std::move(last.front()));
  } else if (!options.whole_words) {
    std::vector<bool> known(CodePointSet::last_code_point + 1);
    for (const auto& [token, id] : vocabulary.ids) {
      if (!token.empty() && code_point_size(token.front()) == token.size()) known[code_point_at(token, 0).code] = true;
    }
    parts.words = std::make_unique<JunctionCutter>(std::move(junctions), std::move(known), !bpe->covers_every_text());
  }
}

void set_added_tokens(const std::vector<AddedToken>& added, const Normalizer& normalizer, BpeParts& parts) {
  std::vector<AddedToken> raw, normalized;
  bool strips = false;
  for (AddedToken token : added) {
    parts.text[static_cast<size_t>(token.id)] = token.is_special ? std::string() : token.content;
    strips = strips || (!token.is_special && (token.strips_left || token.strips_right));
    if (token.is_normalized) {
      std::string buffer;
      token.content = normalizer.apply(token.content, buffer);
      normalized.push_back(std::move(token));
    } else {
      raw.push_back(std::move(token));
    }
  }
  if (strips) {
    parts.losses.emplace_back("white space beside some of its added tokens is left out");
    parts.counts_bytes = false;
  }
  parts.raw_tokens = AddedTokenFinder(std::move(raw));
  parts.normalized_tokens = AddedTokenFinder(std::move(normalized));
}

}  // namespace

std::string byte_level_text(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) append_code_point(text, characters_of_bytes()[static_cast<unsigned char>(byte)]);
  return text;
}

std::unique_ptr<Tokenizer> load_tokenizer_json(std::string file, const std::string& name,
                                               const TokenizerOptions& options) {
  nlohmann::json document;
  try {
    document = nlohmann::json::parse(file);
  } catch (const nlohmann::json::exception&) {
    throw Error(ExitCode::bad_data, fmt::format("{}: it begins like a tokenizer.json, but is no JSON", name),
                "restore the file from a copy");
  }
  const JsonElement root(name, document);
  if (!root.has("model")) root.fail_damaged("has no model: it is no tokenizer.json");
  const JsonElement model = root.at("model");
  check_model(model);
  const Vocabulary vocabulary = read_vocabulary(model);
  const std::vector<AddedToken> added = read_added_tokens(root, vocabulary);
  TokenizerOptions needed = options;
  BpeParts parts;
  parts.eos_id = find_end_of_document(name, vocabulary, added, needed);
  int32_t largest = vocabulary.largest;
  for (const AddedToken& token : added) largest = std::max(largest, token.id);
  parts.text.resize(static_cast<size_t>(largest) + 1);

  const nlohmann::json none;
  const auto component = [&](const char* key) { return root.has(key) ? root.at(key) : JsonElement(name, none); };
  NormalizerStages normalizer = read_normalizer(component("normalizer"));
  PreTokenizerStages stages = read_pre_tokenizer(component("pre_tokenizer"));
  Decoding decoding;
  if (root.has("decoder")) {
    add_decoder(root.at("decoder"), stages.is_byte_level, 0, decoding);
  } else if (!stages.is_byte_level) {
    root.fail_unsupported("has no decoder", supported_decoders);
  }
  for (const char* key : {"truncation", "padding"}) {
    if (root.has(key)) log_warning("{}: its {} is not applied", name, key);
  }
  parts.first_text = decoding.first_text;
  parts.losses = normalizer.losses;
  for (const std::string& loss : stages.losses) {
    if (std::find(parts.losses.begin(), parts.losses.end(), loss) == parts.losses.end()) parts.losses.push_back(loss);
  }
  parts.counts_bytes = !normalizer.adds_text && !stages.adds_text && !stages.drops_text && decoding.first_text.empty();
  parts.normalizer = Normalizer(std::move(normalizer.steps));
  parts.pre_tokenizer = PreTokenizer(std::move(stages.stages));
  set_model(model, vocabulary, stages, parts.pre_tokenizer, decoding, parts);
  set_added_tokens(added, parts.normalizer, parts);
  parts.text[static_cast<size_t>(parts.eos_id)].clear();
  parts.file_name = "tokenizer.json";
  return std::make_unique<BpeTokenizer>(std::move(file), needed, name, std::move(parts));
}

}  // namespace nibble
