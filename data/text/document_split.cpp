#include "data/text/document_split.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "dist/base/error.h"
#include "dist/base/hash.h"

namespace nibble {

uint64_t document_hash(std::string_view text) {
  return hash64(text);
}

DocumentSplit::DocumentSplit(double validation_share) {
  if (!(validation_share >= 0.0 && validation_share < 1.0)) {
    throw Error(ExitCode::usage, fmt::format("a validation share of {} is not in [0, 1)", validation_share),
                "give the share of documents to hold out, for example 0.005");
  }
  // The product is exact: a double below 1 times 2^64 is below 2^64.
  limit_ = static_cast<uint64_t>(std::ldexp(validation_share, 64));
}

void DocumentSplit::add(uint64_t hash) {
  lowest_ = std::min(lowest_, hash);
  highest_ = std::max(highest_, hash);
  ++documents_;
}

void DocumentSplit::settle() {
  if (documents_ == 0) {
    throw Error(ExitCode::bad_data, "the input holds no documents", "give files with text in them");
  }
  if (limit_ == 0) return;
  if (lowest_ == highest_) {
    throw Error(ExitCode::bad_data,
                fmt::format("{} document(s) with one and the same text cannot be split into training and validation",
                            documents_),
                "make every line or paragraph a document (--documents line, --documents paragraph), give more files, "
                "or hold nothing out (--validation-share 0)");
  }
  if (lowest_ >= limit_) limit_ = lowest_ + 1;
  if (highest_ < limit_) limit_ = highest_;
}

}  // namespace nibble
