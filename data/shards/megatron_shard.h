// Megatron's pairs of files: PREFIX.bin holds the ids of all sequences, one after the other, and PREFIX.idx says where
// each sequence lies and which of them make a document. Numbers are little-endian.
//
//   "MMIDIDX\0\0" | u64 version, 1 | u8 type of an id | u64 sequences S | u64 document marks D |
//   i32 tokens of each sequence [S] | i64 its first byte in PREFIX.bin [S] | i64 document marks [D] |
//   i8 modes [S], in some files
//
// Types are 1 u8, 2 i8, 3 i16, 4 i32, 5 i64, 8 u16; 6 f64 and 7 f32 hold no ids. A document begins with the sequence of
// each mark; the first mark is 0 and the last one is usually S.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/shards/flat_shard.h"

namespace nibble {

// Returns PREFIX.bin if `path` is PREFIX.bin, PREFIX.idx, or PREFIX where there is no such file, and PREFIX.idx begins
// as Megatron's do.
std::optional<std::filesystem::path> megatron_pair(const std::filesystem::path& path);

class MegatronShard : public FlatShard {
 public:
  // `path` is PREFIX.bin. Reads the whole index and checks that it describes PREFIX.bin; every failure names the file.
  static std::unique_ptr<MegatronShard> open(const std::filesystem::path& path, const ShardOptions& options);

  std::optional<uint64_t> documents() const override { return documents_; }
  bool knows_documents() const override { return true; }
  void find_document_starts(uint64_t first, std::span<const int32_t> ids, std::span<int32_t> document_starts) override;

 private:
  struct Index;
  MegatronShard(std::unique_ptr<ShardFile> file, IdArray ids, const Index& index);
  static Index read_index(const std::filesystem::path& path);

  uint64_t documents_ = 0;
  uint64_t index_hash_ = 0;
  std::vector<uint64_t> document_ends_;  // empty until it is needed: it may be large
};

}  // namespace nibble
