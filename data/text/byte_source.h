// Streams of bytes: files and pipes, and what is decompressed from them, in bounded memory. The sources are
// byte_source.cpp and compressed_source.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "dist/base/file.h"

namespace nibble {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Returns the number of bytes put into `data`, 0 only at the end. Throws ExitCode::bad_data for a damaged or
  // truncated stream.
  virtual size_t read(std::span<std::byte> data) = 0;
};

// The bytes of a regular file.
class FileSource : public ByteSource {
 public:
  // Throws what InputFile throws.
  explicit FileSource(const std::filesystem::path& path) : file_(path) {}
  size_t read(std::span<std::byte> data) override;
  uint64_t position() const { return offset_; }  // bytes read so far
  uint64_t size() const { return file_.size(); }

 private:
  InputFile file_;
  uint64_t offset_ = 0;
};

// Another source, of which the next bytes can be looked at before they are read.
class PeekableSource : public ByteSource {
 public:
  explicit PeekableSource(std::unique_ptr<ByteSource> source) : source_(std::move(source)) {}
  // Returns the next `count` bytes, or what there is before the end.
  std::span<const std::byte> peek(size_t count);
  size_t read(std::span<std::byte> data) override;

 private:
  std::unique_ptr<ByteSource> source_;
  std::vector<std::byte> ahead_;
  size_t begin_ = 0;  // of what has not been read of it
};

// The largest zstd window that is taken: 2 GiB, which is what zstd --long=31 makes.
constexpr int largest_zstd_window_log = 31;

// Decompresses a stream as often as its first bytes say that it is compressed: gzip, zstd, xz, bzip2, lz4. Concatenated
// members are one stream. `name` is for errors.
std::unique_ptr<PeekableSource> decompress(std::unique_ptr<ByteSource> source, const std::string& name);

// The regular files of a tar archive in their order. Links, directories and devices are left out.
class TarReader {
 public:
  TarReader(std::unique_ptr<ByteSource> source, std::string name);
  ~TarReader();
  TarReader(const TarReader&) = delete;
  TarReader& operator=(const TarReader&) = delete;

  // Goes on to the next file; returns false at the end. Throws ExitCode::bad_data for a damaged or truncated archive.
  bool next();
  std::string member() const;  // its path in the archive
  // Returns the bytes of the present file. The source must not be used after the next call of next().
  std::unique_ptr<ByteSource> content();

 private:
  class Archive;
  class Content;
  std::unique_ptr<Archive> archive_;
};

}  // namespace nibble
