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
    : share_(validation_share), held_out_(held_out) {
  if (!(share_ >= 0.0 && share_ < 1.0)) {
    throw Error(ExitCode::usage, fmt::format("a validation share of {} is not in [0, 1)", share_),
                "give the share of documents to hold out, for example 0.005");
  }
  // The product is exact: a double below 1 times 2^64 is below 2^64.
  limit_ = static_cast<uint64_t>(std::ldexp(share_, 64));
}

void DocumentSplit::add(uint64_t hash, uint64_t bytes) {
  ++documents_;
  bytes_ += bytes;
  if (hash < limit_) held_out_bytes_ += bytes;
  if (hash < lowest_.hash || documents_ == 1) lowest_ = {hash, 0};
  if (hash > highest_.hash || documents_ == 1) highest_ = {hash, 0};
  if (hash == lowest_.hash) lowest_.bytes += bytes;
  if (hash == highest_.hash) highest_.bytes += bytes;
  if (bytes > longest_.bytes || (bytes == longest_.bytes && hash < longest_.hash)) {
    longest_ = {hash, bytes};
    longest_copies_ = 0;
  }
  if (hash == longest_.hash) ++longest_copies_;
  if (many_) return;
  few_[hash] += bytes;
  if (few_.size() > most_few_documents) {
    many_ = true;
    few_ = {};
  }
}

void DocumentSplit::settle() {
  if (documents_ == 0) {
    throw Error(ExitCode::bad_data, "the input holds no documents", "give files with text in them");
  }
  if (share_ == 0) return;
  held_out_ == HeldOut::tail ? settle_tail() : settle_documents();
}

void DocumentSplit::settle_documents() {
  if (lowest_.hash == highest_.hash) {
    throw Error(
        ExitCode::bad_data,
        fmt::format("{} document(s) with one and the same text cannot be split into training and validation",
                    documents_),
        "hold out the end of the text (--validation-tail), make every line or paragraph a document (--documents "
        "line, --documents paragraph), give more files, or hold nothing out (--validation-share 0)");
  }
  if (lowest_.hash >= limit_) {
    limit_ = lowest_.hash + 1;
    held_out_bytes_ = lowest_.bytes;
  } else if (highest_.hash < limit_) {
    limit_ = highest_.hash;
    held_out_bytes_ = bytes_ - highest_.bytes;
  }
  const double most = (share_ < 0.5 ? std::min(2 * share_, 0.5) : 1.0) * static_cast<double>(bytes_);
  if (static_cast<double>(held_out_bytes_) > most && !many_) choose_few(most);
}

void DocumentSplit::choose_few(double most_bytes) {
  std::vector<std::pair<uint64_t, uint64_t>> ordered(few_.begin(), few_.end());  // hash, bytes
  std::sort(ordered.begin(), ordered.end());
  held_out_bytes_ = 0;
  for (const auto& [hash, bytes] : ordered) {
    if (static_cast<double>(held_out_bytes_) >= share_ * static_cast<double>(bytes_)) break;
    if (static_cast<double>(held_out_bytes_ + bytes) > most_bytes) continue;
    chosen_.insert(hash);
    held_out_bytes_ += bytes;
  }
  if (!chosen_.empty()) return;
  const auto shortest = std::min_element(ordered.begin(), ordered.end(),
                                         [](const auto& a, const auto& b) { return a.second < b.second; });
  chosen_.insert(shortest->first);
  held_out_bytes_ = shortest->second;
}

void DocumentSplit::settle_tail() {
  if (longest_.bytes < shortest_to_cut) {
    throw Error(ExitCode::bad_data,
                fmt::format("the longest document has {} bytes: too few to hold out its end", longest_.bytes),
                "leave --validation-tail out, or give longer documents");
  }
  const double wanted = std::ceil(share_ * static_cast<double>(bytes_));
  const uint64_t half = longest_.bytes / 2;
  tail_bytes_ = wanted < static_cast<double>(half) ? static_cast<uint64_t>(wanted) : half;
  held_out_bytes_ = tail_bytes_ * longest_copies_;
}

size_t DocumentSplit::training_bytes(uint64_t hash, std::string_view text) const {
  if (held_out_ == HeldOut::documents) return is_chosen(hash) ? 0 : text.size();
  if (tail_bytes_ == 0 || hash != longest_.hash) return text.size();
  return cut_near(text, text.size() - tail_bytes_, cut_distance(tail_bytes_));
}

bool DocumentSplit::is_training(uint64_t hash, uint64_t end) const {
  if (held_out_ == HeldOut::documents) return !is_chosen(hash);
  if (tail_bytes_ == 0 || hash != longest_.hash) return true;
  return end + tail_bytes_ + cut_distance(tail_bytes_) <= longest_.bytes;
}

double DocumentSplit::held_out_share() const {
  return bytes_ == 0 ? 0.0 : static_cast<double>(held_out_bytes_) / static_cast<double>(bytes_);
}

}  // namespace nibble
