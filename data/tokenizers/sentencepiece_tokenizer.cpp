#include "data/tokenizers/sentencepiece_tokenizer.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>

#include <algorithm>
#include <utility>

#include "data/text/text_cut.h"
#include "dist/base/error.h"
#include "dist/base/utf8.h"
#include "dist/device/thread_pool.h"

namespace nibble {
namespace {

// SentencePiece needs about 100 bytes of memory for each byte of the text that it encodes at once.
constexpr size_t max_encode_bytes = size_t{1} << 16U;
// SentencePiece writes a space as U+2581 and cannot tell the two apart afterwards, so the character U+2581 itself is
// encoded as bytes.
constexpr std::string_view space_mark = "\xE2\x96\x81";

// The text contains what a lossy model gets wrong: spaces at the edges and in rows, line ends, tabs, letters outside
// any vocabulary, compatibility forms, NUL, and SentencePiece's own marks.
constexpr char probe[] =
    " \n  two  spaces \n\t\ttabs\r\n \xEF\xAC\x81 e\xCC\x81 \xE2\x91\xA0 \xF0\x9F\x98\x80 "
    "\xE2\x96\x81\xE2\x96\x85 <s></s><unk><0x41> \xE6\x97\xA5\xE6\x9C\xAC \0 \xEF\xBF\xBF ";
constexpr std::string_view probe_text(probe, sizeof(probe) - 1);

[[noreturn]] void fail_model(const std::string& name, std::string_view reason) {
  throw Error(ExitCode::bad_data, fmt::format("{}: {}", name, reason),
              "use the tokenizer.model that nibble tokenize wrote");
}

}  // namespace

SentencePieceTokenizer::SentencePieceTokenizer(std::string model, const std::string& name)
    : Tokenizer(std::move(model)), processor_(std::make_unique<sentencepiece::SentencePieceProcessor>()) {
  const auto status = processor_->LoadFromSerializedProto(file());
  if (!status.ok()) fail_model(name, "not a SentencePiece model");
  const int pieces = processor_->GetPieceSize();
  if (pieces <= 0 || static_cast<uint32_t>(pieces) > max_vocab_size) fail_model(name, "unusable vocabulary size");
  vocab_size_ = static_cast<uint32_t>(pieces);
  eos_id_ = processor_->eos_id();
  if (eos_id_ < 0) fail_model(name, "the tokenizer has no end-of-document token");
  for (const char* piece : {"<0xE2>", "<0x96>", "<0x81>"}) {
    const int id = processor_->PieceToId(piece);
    if (!processor_->IsByte(id)) fail_model(name, "the tokenizer has no byte tokens");
    space_mark_ids_.push_back(id);
  }
  if (decode(encode(probe_text)) != probe_text) {
    fail_model(name, "the tokenizer does not reproduce every text exactly");
  }
}

SentencePieceTokenizer::~SentencePieceTokenizer() = default;

void SentencePieceTokenizer::append_encoded(std::string_view text, std::vector<int32_t>& ids) const {
  std::vector<int> part;
  while (!text.empty()) {
    const size_t end = std::min(text.find(space_mark), text.size());
    if (end == 0) {
      ids.insert(ids.end(), space_mark_ids_.begin(), space_mark_ids_.end());
      text.remove_prefix(space_mark.size());
      continue;
    }
    const auto status = processor_->Encode(text.substr(0, end), &part);
    NIBBLE_CHECK(status.ok(), status.message());
    ids.insert(ids.end(), part.begin(), part.end());
    text.remove_prefix(end);
  }
}

std::vector<std::vector<int32_t>> SentencePieceTokenizer::encode_all(std::span<const std::string> documents) const {
  std::vector<std::string_view> pieces;
  std::vector<size_t> first_piece;  // first piece of every document
  for (const std::string& document : documents) {
    if (const auto bad = find_invalid_utf8(document)) {
      throw Error(ExitCode::bad_data, fmt::format("byte {} of the text is not UTF-8", *bad),
                  "convert the text to UTF-8");
    }
    first_piece.push_back(pieces.size());
    for (const std::string_view piece : cut_text(document, max_encode_bytes)) pieces.push_back(piece);
  }
  first_piece.push_back(pieces.size());
  std::vector<std::vector<int32_t>> piece_ids(pieces.size());
  parallel_for(pieces.size(), 1, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) append_encoded(pieces[i], piece_ids[i]);
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
  NIBBLE_CHECK(status.ok(), status.message());
  return text;
}

}  // namespace nibble
