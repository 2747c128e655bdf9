#include "data/text/byte_source.h"

#include <fmt/format.h>
#include <zstd.h>

#include <vector>

#include "dist/base/error.h"
#include "dist/base/file.h"

namespace nibble {
namespace {

class PlainSource : public ByteSource {
 public:
  explicit PlainSource(const std::filesystem::path& path) : file_(path) {}
  size_t read(std::span<std::byte> data) override {
    const size_t count = file_.read_some(offset_, data);
    offset_ += count;
    return count;
  }

 private:
  InputFile file_;
  uint64_t offset_ = 0;
};

class ZstdSource : public ByteSource {
 public:
  explicit ZstdSource(const std::filesystem::path& path)
      : file_(path), context_(ZSTD_createDCtx(), ZSTD_freeDCtx), input_(ZSTD_DStreamInSize()) {
    if (context_ == nullptr) throw Error(ExitCode::out_of_memory, "no memory to decompress " + file_.name());
  }

  size_t read(std::span<std::byte> data) override {
    ZSTD_outBuffer output = {data.data(), data.size(), 0};
    while (output.pos == 0 && output.size > 0) {
      if (pending_.pos == pending_.size && !flushing_ && !refill()) break;
      const size_t before = pending_.pos;
      const size_t status = ZSTD_decompressStream(context_.get(), &output, &pending_);
      if (ZSTD_isError(status) != 0) fail(ZSTD_getErrorName(status));
      inside_frame_ = status != 0;
      // A full output buffer may leave decoded bytes inside the context, which need no new input.
      flushing_ = output.pos == output.size && inside_frame_;
      if (pending_.pos == before && output.pos == 0) flushing_ = false;
    }
    return output.pos;
  }

 private:
  bool refill() {
    const size_t count = file_.read_some(offset_, input_);
    if (count == 0) {
      if (inside_frame_ || offset_ == 0) fail("the last frame is incomplete");
      return false;
    }
    offset_ += count;
    pending_ = {input_.data(), count, 0};
    return true;
  }

  [[noreturn]] void fail(std::string_view reason) const {
    throw Error(ExitCode::bad_data,
                fmt::format("{}: not a whole zstd file, near byte {}: {}", file_.name(), offset_, reason),
                "copy or compress the file again");
  }

  InputFile file_;
  std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context_;
  std::vector<std::byte> input_;
  ZSTD_inBuffer pending_ = {nullptr, 0, 0};
  uint64_t offset_ = 0;
  bool inside_frame_ = false;
  bool flushing_ = false;
};

}  // namespace

std::unique_ptr<ByteSource> open_byte_source(const std::filesystem::path& path) {
  if (path.extension() == ".zst") return std::make_unique<ZstdSource>(path);
  return std::make_unique<PlainSource>(path);
}

}  // namespace nibble
