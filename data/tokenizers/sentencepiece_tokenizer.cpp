#include "data/tokenizers/sentencepiece_tokenizer.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>

#include <algorithm>
#include <utility>

#include "data/patterns/code_point.h"
#include "data/text/text_cut.h"
#include "data/tokenizers/tokenizer_json.h"
#include "data/tokenizers/tokenizer_json_writer.h"
#include "dist/base/error.h"
#include "dist/base/utf8.h"
#include "dist/device/thread_pool.h"

namespace nibble {
namespace {

// SentencePiece needs about 100 bytes of memory for each byte of the text that it encodes at once.
constexpr size_t max_encode_bytes = size_t{1} << 16U;
// SentencePiece writes a space as U+2581 and cannot tell the two apart afterwards, so the character U+2581 itself is
// encoded as bytes.
constexpr std::string_view space_mark = visible_space;

// The text contains what a lossy model gets wrong: spaces at the edges and in rows, line ends, tabs, letters outside
// any vocabulary, compatibility forms, NUL, and SentencePiece's own marks.
constexpr char probe[] =
    " \n  two  spaces \n\t\ttabs\r\n \xEF\xAC\x81 e\xCC\x81 \xE2\x91\xA0 \xF0\x9F\x98\x80 "
    "\xE2\x96\x81\xE2\x96\x85 <s></s><unk><0x41> \xE6\x97\xA5\xE6\x9C\xAC \0 \xEF\xBF\xBF ";
constexpr std::string_view probe_text(probe, sizeof(probe) - 1);

// Texts that models change, what they become, and what that means.
struct Probe {
  std::string_view text, becomes;  // becomes "": anything else
  const char* loss;
};
constexpr Probe probes[] = {
    {" a", "", "it leaves out spaces at the beginning of a document"},
    {"a ", "", "it leaves out spaces at the end of a document"},
    {"a  a", "", "it makes one space of several"},
    {"a\na", "a a", "it turns line feeds into spaces"},
    {"a\ta", "a a", "it turns tabs into spaces"},
    {"\xEF\xAC\x81", "fi", "it changes characters to other forms (U+FB01 to fi)"},
    {"e\xCC\x81", "\xC3\xA9", "it composes characters (e and U+0301 to U+00E9)"},
    {"a\xE2\x96\x81"
     "a",
     "", "the character U+2581 becomes a space"},
    {"\xF4\x8F\xBF\xBD", "", "characters outside its vocabulary become its unknown token"},
    {"a\na", "a \xE2\x81\x87 a", "line feeds are such characters"},
};

[[noreturn]] void fail_model(const std::string& name, std::string_view reason) {
  throw Error(ExitCode::bad_data, fmt::format("{}: {}", name, reason),
              "name a SentencePiece model, a tokenizer.json or a tiktoken file");
}

int32_t find_end_of_document(const sentencepiece::SentencePieceProcessor& processor, const std::string& name,
                             TokenizerOptions& options) {
  const auto find = [&](std::string_view piece) -> int32_t {
    const int id = processor.PieceToId({piece.data(), piece.size()});
    return processor.IsUnknown(id) ? -1 : id;
  };
  int32_t own = processor.eos_id();
  for (const std::string_view piece : end_of_document_names) {
    if (own < 0) own = find(piece);
  }
  if (!options.end_of_document.empty()) {
    const int32_t id = find(options.end_of_document);
    if (id < 0) {
      throw Error(ExitCode::usage,
                  fmt::format("{} has no token \"{}\" (--end-of-document)", name, options.end_of_document),
                  "name one of its tokens");
    }
    if (id == own) options.end_of_document.clear();
    return id;
  }
  if (own < 0) {
    throw Error(ExitCode::usage, fmt::format("{}: it is not known which token ends a document", name),
                "name it with --end-of-document TOKEN");
  }
  return own;
}

TokenizerOptions needed_options(const std::string& model, const std::string& name, TokenizerOptions options) {
  sentencepiece::SentencePieceProcessor processor;
  if (!processor.LoadFromSerializedProto(model).ok()) {
    fail_model(name, "neither a SentencePiece model nor a tokenizer.json nor a tiktoken file");
  }
  find_end_of_document(processor, name, options);
  return options;
}

// Returns the text of a piece, with its marks as spaces.
std::string with_spaces(std::string piece) {
  for (size_t at = piece.find(space_mark); at != std::string::npos; at = piece.find(space_mark, at + 1)) {
    piece.replace(at, space_mark.size(), " ");
  }
  return piece;
}

WrittenToken written_token(const sentencepiece::SentencePieceProcessor& processor, int id) {
  using Kind = WrittenToken::Kind;
  const std::string& piece = processor.IdToPiece(id);
  if (processor.IsUnused(id)) return {};
  if (processor.IsControl(id) || processor.IsUnknown(id)) return {piece, Kind::special};
  if (processor.IsByte(id)) return {piece, Kind::atom};
  return {with_spaces(piece), Kind::merged, -static_cast<double>(processor.GetScore(id))};
}

}  // namespace

SentencePieceTokenizer::SentencePieceTokenizer(std::string model, const std::string& name,
                                               const TokenizerOptions& options)
    : Tokenizer(model, needed_options(model, name, options)),
      name_(name),
      processor_(std::make_unique<sentencepiece::SentencePieceProcessor>()) {
  const auto status = processor_->LoadFromSerializedProto(file());
  NIBBLE_CHECK(status.ok(), status.message());
  const int pieces = processor_->GetPieceSize();
  if (pieces <= 0 || static_cast<uint32_t>(pieces) > max_vocab_size) fail_model(name, "unusable vocabulary size");
  vocab_size_ = static_cast<uint32_t>(pieces);
  TokenizerOptions given = options;
  eos_id_ = find_end_of_document(*processor_, name, given);
  find_cuts();
  for (const char* piece : {"<0xE2>", "<0x96>", "<0x81>"}) {
    const int id = processor_->PieceToId(piece);
    if (processor_->IsByte(id)) space_mark_ids_.push_back(id);
  }
  if (space_mark_ids_.size() == 3 && round_trips(probe_text)) return;
  space_mark_ids_.clear();
  find_losses();
}

SentencePieceTokenizer::~SentencePieceTokenizer() = default;

bool SentencePieceTokenizer::round_trips(std::string_view text) const {
  std::vector<int32_t> ids;
  append_encoded(text, true, ids);
  return decode(ids) == text;
}

void SentencePieceTokenizer::find_losses() {
  std::vector<int32_t> ids;
  append_encoded("a", true, ids);
  const bool adds_space = !ids.empty() && processor_->IdToPiece(ids.front()).starts_with(space_mark);
  if (adds_space) losses_.emplace_back("it puts a space before every document");
  for (const Probe& example : probes) {
    ids.clear();
    append_encoded(example.text, true, ids);
    const std::string text = decode(ids);
    const bool is_lost = text != example.text && (example.becomes.empty() || text == example.becomes);
    if (is_lost) losses_.emplace_back(example.loss);
  }
  if (losses_.empty()) losses_.emplace_back("some texts come back changed");
  const bool joins_spaces = !round_trips("a  a");
  if (cuts_ == Cuts::lines_and_spaces) cuts_ = Cuts::spaces;
  if (adds_space != joins_spaces && joins_spaces) cuts_ = Cuts::nowhere;
  if (!adds_space || joins_spaces) return;
  // The same model with normalizer_spec.add_dummy_prefix off: Protocol Buffers join messages that are written one after
  // the other.
  constexpr std::string_view no_prefix("\x1A\x02\x18\x00", 4);
  without_prefix_ = std::make_unique<sentencepiece::SentencePieceProcessor>();
  const auto status = without_prefix_->LoadFromSerializedProto(file() + std::string(no_prefix));
  if (!status.ok()) fail_model(name_, "a damaged SentencePiece model");
}

// No piece may reach over a cut: one before a space that follows something else, or one after a line feed.
void SentencePieceTokenizer::find_cuts() {
  cuts_ = Cuts::lines_and_spaces;
  for (int id = 0; id < static_cast<int>(vocab_size()); ++id) {
    if (processor_->IsControl(id) || processor_->IsUnknown(id) || processor_->IsByte(id)) continue;
    const std::string& piece = processor_->IdToPiece(id);
    const size_t word = std::min(piece.find_first_not_of(space_mark), piece.size());
    if (piece.find(space_mark, word) != std::string::npos) cuts_ = Cuts::nowhere;
    if (piece.find('\n') != std::string::npos && piece != "\n" && cuts_ != Cuts::nowhere) cuts_ = Cuts::spaces;
  }
}

std::vector<std::string_view> SentencePieceTokenizer::cut(std::string_view document) const {
  if (cuts_ == Cuts::lines_and_spaces) return cut_text(document, max_encode_bytes);
  std::vector<std::string_view> pieces;
  const auto is_plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  while (cuts_ == Cuts::spaces && document.size() > max_encode_bytes) {
    size_t at = document.find(' ', max_encode_bytes);
    while (at + 1 < document.size() && !(is_plain(document[at - 1]) && is_plain(document[at + 1]))) {
      at = document.find(' ', at + 1);
      if (at == std::string_view::npos) break;
    }
    if (at >= document.size() - 1) break;
    pieces.push_back(document.substr(0, at));
    document.remove_prefix(at);
  }
  pieces.push_back(document);
  return pieces;
}

void SentencePieceTokenizer::append_encoded(std::string_view text, bool is_first, std::vector<int32_t>& ids) const {
  if (!space_mark_ids_.empty()) return append_exactly(text, ids);
  std::vector<int> part;
  const auto& processor = is_first || !without_prefix_ ? *processor_ : *without_prefix_;
  const auto status = processor.Encode({text.data(), text.size()}, &part);
  if (!status.ok()) fail_model(name_, fmt::format("SentencePiece cannot encode a text: {}", status.message()));
  ids.insert(ids.end(), part.begin(), part.end());
}

void SentencePieceTokenizer::append_exactly(std::string_view text, std::vector<int32_t>& ids) const {
  std::vector<int> part;
  while (!text.empty()) {
    const size_t end = std::min(text.find(space_mark), text.size());
    if (end == 0) {
      ids.insert(ids.end(), space_mark_ids_.begin(), space_mark_ids_.end());
      text.remove_prefix(space_mark.size());
      continue;
    }
    const auto status = processor_->Encode(text.substr(0, end), &part);
    if (!status.ok()) fail_model(name_, fmt::format("SentencePiece cannot encode a text: {}", status.message()));
    ids.insert(ids.end(), part.begin(), part.end());
    text.remove_prefix(end);
  }
}

std::vector<std::vector<int32_t>> SentencePieceTokenizer::encode_all(std::span<const std::string> documents) const {
  std::vector<std::string_view> pieces;
  std::vector<size_t> first_piece;  // first piece of every document
  std::vector<bool> is_first;
  for (const std::string& document : documents) {
    if (const auto bad = find_invalid_utf8(document)) {
      throw Error(ExitCode::bad_data, fmt::format("byte {} of the text is not UTF-8", *bad),
                  "convert the text to UTF-8");
    }
    first_piece.push_back(pieces.size());
    for (const std::string_view piece : cut(document)) {
      is_first.push_back(pieces.size() == first_piece.back());
      pieces.push_back(piece);
    }
  }
  first_piece.push_back(pieces.size());
  std::vector<std::vector<int32_t>> piece_ids(pieces.size());
  parallel_for(pieces.size(), 1, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) append_encoded(pieces[i], is_first[i], piece_ids[i]);
  });
  std::vector<std::vector<int32_t>> result(documents.size());
  for (size_t document = 0; document < documents.size(); ++document) {
    for (size_t piece = first_piece[document]; piece < first_piece[document + 1]; ++piece) {
      result[document].insert(result[document].end(), piece_ids[piece].begin(), piece_ids[piece].end());
      std::vector<int32_t>().swap(piece_ids[piece]);
    }
  }
  return result;
}

std::vector<uint32_t> SentencePieceTokenizer::token_bytes() const {
  if (!losses_.empty()) return {};
  std::vector<uint32_t> bytes(vocab_size());
  for (size_t id = 0; id < bytes.size(); ++id) {
    const int piece = static_cast<int>(id);
    if (processor_->IsControl(piece) || processor_->IsUnknown(piece)) continue;
    const std::string& text = processor_->IdToPiece(piece);
    size_t size = processor_->IsByte(piece) ? 1 : text.size();
    for (size_t mark = text.find(space_mark); mark != std::string::npos; mark = text.find(space_mark, mark + 1)) {
      size -= space_mark.size() - 1;  // it stands for one space
    }
    bytes[id] = static_cast<uint32_t>(size);
  }
  uint64_t of_probe = 0;
  for (const int32_t id : encode(probe_text)) of_probe += bytes[static_cast<size_t>(id)];
  if (of_probe != probe_text.size()) bytes.clear();
  return bytes;
}

std::string SentencePieceTokenizer::decode(std::span<const int32_t> ids) const {
  for (const int32_t id : ids) {
    NIBBLE_CHECK(id >= 0 && static_cast<uint32_t>(id) < vocab_size(), "token id outside the vocabulary");
  }
  std::string text;
  const auto status = processor_->Decode(std::vector<int>(ids.begin(), ids.end()), &text);
  if (!status.ok()) fail_model(name_, fmt::format("SentencePiece cannot decode a text: {}", status.message()));
  return text;
}

// Written as if the model were one of byte-pair encoding that changes no text but by a space before it. Where that is
// wrong, the ids differ.
std::string SentencePieceTokenizer::as_tokenizer_json() const {
  WrittenTokenizer result;
  for (int id = 0; id < static_cast<int>(vocab_size()); ++id) {
    result.tokens.push_back(written_token(*processor_, id));
    result.byte_fallback = result.byte_fallback || processor_->IsByte(id);
  }
  if (processor_->unk_id() >= 0) result.unknown = processor_->IdToPiece(processor_->unk_id());
  std::vector<int> ids;
  const auto status = processor_->Encode("a", &ids);
  if (status.ok() && !ids.empty() && processor_->IdToPiece(ids.front()).starts_with(space_mark)) result.prefix = " ";
  result.mark_is_space = space_mark_ids_.empty();
  std::string json = write_tokenizer_json(result);
  return is_matched_by(json) ? json : std::string();
}

// Compares the ids of the probes and of the whole vocabulary, in its order and the other way round.
bool SentencePieceTokenizer::is_matched_by(const std::string& tokenizer_json) const {
  std::vector<std::string> texts = {"", " ", std::string(probe_text)};
  for (const Probe& example : probes) texts.emplace_back(example.text);
  const size_t first_piece = texts.size();
  for (int id = 0; id < static_cast<int>(vocab_size()); ++id) {
    if (processor_->IsControl(id) || processor_->IsUnknown(id) || processor_->IsByte(id)) continue;
    texts.push_back(with_spaces(processor_->IdToPiece(id)));
  }
  std::string forwards, backwards;
  for (size_t i = first_piece; i < texts.size(); ++i) forwards += texts[i];
  for (size_t i = texts.size(); i > first_piece; --i) backwards += texts[i - 1];
  texts.push_back(std::move(forwards));
  texts.push_back(std::move(backwards));
  try {
    const auto other =
        load_tokenizer_json(tokenizer_json, name_, {.pattern = {}, .end_of_document = processor_->IdToPiece(eos_id())});
    return other->encode_all(texts) == encode_all(texts);
  } catch (const Error&) {  // Two tokens have one text.
    return false;
  }
}

}  // namespace nibble
