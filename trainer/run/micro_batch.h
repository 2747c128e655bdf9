// The tokens and targets of one micro-batch, and the documents that the tokens belong to.
#pragma once

#include <cstdint>
#include <vector>

#include "data/loader.h"
#include "quant/tensor/tensor.h"

namespace nibble {

class MicroBatch {
 public:
  // document_mask: whether attention is to stay inside documents (data.document_mask).
  MicroBatch(int64_t sequences, int64_t sequence_length, bool document_mask);

  // Samples first .. first+count-1 of the loader; count is at most the `sequences` of the constructor.
  void load(Loader& loader, uint64_t first, int64_t count);

  Tensor tokens() { return view(tokens_); }    // i32 [count, sequence_length]
  Tensor targets() { return view(targets_); }  // the same, one token later
  // i32 [count, sequence_length]: where in its sequence each token's document begins; empty without document_mask.
  Tensor documents() { return documents_.empty() ? Tensor() : view(documents_); }

 private:
  Tensor view(std::vector<int32_t>& values) { return {values.data(), DType::i32, {count_, sequence_length_}}; }
  int64_t sequence_length_;
  int64_t count_ = 0;
  std::vector<int32_t> tokens_;
  std::vector<int32_t> targets_;
  std::vector<int32_t> documents_;
};

}  // namespace nibble
