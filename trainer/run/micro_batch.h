// The tokens and targets of one micro-batch, and the documents that the tokens belong to.
#pragma once

#include <cstdint>
#include <vector>

#include "data/loader.h"
#include "quant/tensor/tensor.h"

namespace nibble {

class MicroBatch {
 public:
  // `document_mask` says whether attention stays inside documents (data.document_mask).
  MicroBatch(int64_t micro_batch_sequences, int64_t sequence_length, bool document_mask);

  // Loads the samples first .. first + sequences - 1 of the loader; `sequences` is at most micro_batch_sequences.
  void load(Loader& loader, uint64_t first, int64_t sequences);

  Tensor tokens() { return view(tokens_); }    // i32 [sequences, sequence_length]
  Tensor targets() { return view(targets_); }  // i32 [sequences, sequence_length]: for each token the one after it
  // i32 [sequences, sequence_length]: for each token the position in its sequence at which its document begins. Empty
  // without document_mask.
  Tensor document_starts() { return document_starts_.empty() ? Tensor() : view(document_starts_); }

 private:
  Tensor view(std::vector<int32_t>& values) { return {values.data(), DType::i32, {sequences_, sequence_length_}}; }
  int64_t sequence_length_;
  int64_t sequences_ = 0;
  std::vector<int32_t> tokens_;
  std::vector<int32_t> targets_;
  std::vector<int32_t> document_starts_;
};

}  // namespace nibble
