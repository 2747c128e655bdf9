#include "data/text/document_split.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "data/text/text_cut.h"
#include "dist/base/error.h"
#include "dist/base/hash.h"

namespace nibble {
namespace {

constexpr uint64_t shortest_to_cut = 16;  // bytes: its half has several code points

// How far the cut of a tail may lie from the place that the share asks for.
uint64_t cut_distance(uint64_t tail_bytes) {
  return tail_bytes / 4;
}

}  // namespace

uint64_t document_hash(std::string_view text) {
  return hash64(text);
}

DocumentSplit::DocumentSplit(double validation_share, HeldOut held_out)
    : share_(validation_share), decision_({.held_out = held_out}) {
  if (!(share_ >= 0.0 && share_ < 1.0)) {
    throw Error(ExitCode::usage, fmt::format("a validation share of {} is not in [0, 1)", share_),
                "give the share of documents to hold out, for example 0.005");
  }
  // The product is exact: a double below 1 times 2^64 is below 2^64.
  decision_.limit = static_cast<uint64_t>(std::ldexp(share_, 64));
}

void DocumentSplit::add(uint64_t hash, uint64_t bytes) {
  ++decision_.documents;
  decision_.bytes += bytes;
  if (hash < decision_.limit) decision_.held_out_bytes += bytes;
  if (hash < lowest_.hash || decision_.documents == 1) lowest_ = {hash, 0};
  if (hash > highest_.hash || decision_.documents == 1) highest_ = {hash, 0};
  if (hash == lowest_.hash) lowest_.bytes += bytes;
  if (hash == highest_.hash) highest_.bytes += bytes;
  if (bytes > decision_.longest_bytes || (bytes == decision_.longest_bytes && hash < decision_.longest_hash)) {
    decision_.longest_hash = hash;
    decision_.longest_bytes = bytes;
    longest_copies_ = 0;
  }
  if (hash == decision_.longest_hash) ++longest_copies_;
  if (many_) return;
  few_[hash] += bytes;
  if (few_.size() > most_few_documents) {
    many_ = true;
    few_ = {};
  }
}

void DocumentSplit::settle() {
  if (decision_.documents == 0) {
    throw Error(ExitCode::bad_data, "the input holds no documents", "give files with text in them");
  }
  if (share_ == 0) return;
  decision_.held_out == HeldOut::tail ? settle_tail() : settle_documents();
}

void DocumentSplit::settle_documents() {
  if (lowest_.hash == highest_.hash) {
    throw Error(
        ExitCode::bad_data,
        fmt::format("{} document(s) with one and the same text cannot be split into training and validation",
                    decision_.documents),
        "hold out the end of the text (--validation-tail), make every line or paragraph a document (--documents "
        "line, --documents paragraph), give more files, or hold nothing out (--validation-share 0)");
  }
  if (lowest_.hash >= decision_.limit) {
    decision_.limit = lowest_.hash + 1;
    decision_.held_out_bytes = lowest_.bytes;
  } else if (highest_.hash < decision_.limit) {
    decision_.limit = highest_.hash;
    decision_.held_out_bytes = decision_.bytes - highest_.bytes;
  }
  const double most = (share_ < 0.5 ? std::min(2 * share_, 0.5) : 1.0) * static_cast<double>(decision_.bytes);
  if (static_cast<double>(decision_.held_out_bytes) > most && !many_) choose_few(most);
}

void DocumentSplit::choose_few(double most_bytes) {
  std::vector<std::pair<uint64_t, uint64_t>> ordered(few_.begin(), few_.end());  // hash, bytes
  std::sort(ordered.begin(), ordered.end());
  decision_.held_out_bytes = 0;
  for (const auto& [hash, bytes] : ordered) {
    if (static_cast<double>(decision_.held_out_bytes) >= share_ * static_cast<double>(decision_.bytes)) break;
    if (static_cast<double>(decision_.held_out_bytes + bytes) > most_bytes) continue;
    decision_.chosen.push_back(hash);
    decision_.held_out_bytes += bytes;
  }
  if (!decision_.chosen.empty()) return;
  const auto shortest = std::min_element(ordered.begin(), ordered.end(),
                                         [](const auto& a, const auto& b) { return a.second < b.second; });
  decision_.chosen.push_back(shortest->first);
  decision_.held_out_bytes = shortest->second;
}

void DocumentSplit::settle_tail() {
  if (decision_.longest_bytes < shortest_to_cut) {
    throw Error(ExitCode::bad_data,
                fmt::format("the longest document has {} bytes: too few to hold out its end", decision_.longest_bytes),
                "leave --validation-tail out, or give longer documents");
  }
  const double wanted = std::ceil(share_ * static_cast<double>(decision_.bytes));
  const uint64_t half = decision_.longest_bytes / 2;
  decision_.tail_bytes = wanted < static_cast<double>(half) ? static_cast<uint64_t>(wanted) : half;
  decision_.held_out_bytes = decision_.tail_bytes * longest_copies_;
}

bool DocumentSplit::is_chosen(uint64_t hash) const {
  const std::vector<uint64_t>& chosen = decision_.chosen;
  return chosen.empty() ? hash < decision_.limit : std::binary_search(chosen.begin(), chosen.end(), hash);
}

size_t DocumentSplit::training_bytes(uint64_t hash, std::string_view text) const {
  if (decision_.held_out == HeldOut::documents) return is_chosen(hash) ? 0 : text.size();
  if (decision_.tail_bytes == 0 || hash != decision_.longest_hash) return text.size();
  return cut_near(text, text.size() - decision_.tail_bytes, cut_distance(decision_.tail_bytes));
}

bool DocumentSplit::is_training(uint64_t hash, uint64_t end) const {
  if (decision_.held_out == HeldOut::documents) return !is_chosen(hash);
  if (decision_.tail_bytes == 0 || hash != decision_.longest_hash) return true;
  return end + decision_.tail_bytes + cut_distance(decision_.tail_bytes) <= decision_.longest_bytes;
}

double DocumentSplit::held_out_share() const {
  return decision_.bytes == 0 ? 0.0
                              : static_cast<double>(decision_.held_out_bytes) / static_cast<double>(decision_.bytes);
}

}  // namespace nibble
