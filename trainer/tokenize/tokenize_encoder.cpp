#include "trainer/tokenize/tokenize_encoder.h"

#include <fmt/format.h>

#include "dist/base/log.h"

namespace nibble {
namespace {

ShardHeader format_of(const Tokenizer& tokenizer) {
  ShardHeader header;
  header.vocab_size = tokenizer.vocab_size();
  header.eos_id = static_cast<uint32_t>(tokenizer.eos_id());
  header.tokenizer = tokenizer.hash();
  return header;
}

}  // namespace

TokenizeEncoder::TokenizeEncoder(const std::filesystem::path& folder, uint64_t shard_tokens, const Tokenizer& tokenizer,
                                 const DocumentSplit& split)
    : tokenizer_(tokenizer),
      split_(split),
      statistics_(tokenizer.vocab_size()),
      series_{Series{ShardSeries(folder, "train", format_of(tokenizer), shard_tokens)},
              Series{ShardSeries(folder, "validation", format_of(tokenizer), shard_tokens)}} {
  series_[train].adopted =
      series_[train].shards.adopt([&](std::span<const int32_t> tokens) { statistics_.add(tokens); });
  series_[validation].adopted = series_[validation].shards.adopt([](std::span<const int32_t>) {});
  const size_t adopted = series_[train].shards.shards() + series_[validation].shards.shards();
  if (adopted > 0) log_info("encoding goes on after {} whole shards", adopted);
}

void TokenizeEncoder::add_part(Side side, std::string_view text) {
  if (text.empty()) return;
  bytes_ += text.size();
  if (series_[side].seen++ < series_[side].adopted) return;
  pending_.emplace_back(text);
  sides_.push_back(side);
}

void TokenizeEncoder::add(std::span<const Document> documents) {
  for (const Document& document : documents) {
    const std::string_view text = document.text;
    const size_t for_training = split_.training_bytes(document.hash, text);
    add_part(train, text.substr(0, for_training));
    add_part(validation, text.substr(for_training));
  }
  const auto encoded = tokenizer_.encode_all(pending_);
  for (size_t i = 0; i < encoded.size(); ++i) {
    series_[sides_[i]].shards.add_document(encoded[i]);
    if (sides_[i] == validation) continue;
    statistics_.add(encoded[i]);
    statistics_.add(static_cast<uint32_t>(tokenizer_.eos_id()), 1);
  }
  pending_.clear();
  sides_.clear();
}

void TokenizeEncoder::finish() {
  for (Series& series : series_) series.shards.finish();
}

std::string TokenizeEncoder::summary() const {
  const ShardSeries& training = series_[train].shards;
  const ShardSeries& held_out = series_[validation].shards;
  const uint64_t tokens = training.tokens() + held_out.tokens();
  std::string text;
  text += fmt::format("documents         {} ({} train, {} validation)\n", training.documents() + held_out.documents(),
                      training.documents(), held_out.documents());
  text += fmt::format("tokens            {} ({} train, {} validation)\n", tokens, training.tokens(), held_out.tokens());
  text += fmt::format("shards            {} train, {} validation\n", training.shards(), held_out.shards());
  text += fmt::format("vocabulary        {} ({} occur)\n", tokenizer_.vocab_size(), statistics_.used());
  text += fmt::format("bytes per token   {:.3f}\n", static_cast<double>(bytes_) / static_cast<double>(tokens));
  text +=
      fmt::format("unigram entropy   {:.4f} nats = {:.4f} bits a token (the loss of knowing only the frequencies)\n",
                  statistics_.entropy_nats(), statistics_.entropy_bits());
  text += fmt::format("tokenizer hash    {}\n", to_hex(tokenizer_.hash()));
  return text;
}

}  // namespace nibble
