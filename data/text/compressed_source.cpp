// Decompression and archives: zstd with its own library, which takes large windows, and all else with libarchive.
#include <archive.h>
#include <archive_entry.h>
#include <fmt/format.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <exception>
#include <string_view>
#include <utility>
#include <vector>

#include "data/file_kind.h"
#include "data/text/byte_source.h"
#include "dist/base/error.h"

namespace nibble {
namespace {

constexpr size_t archive_buffer_bytes = size_t{1} << 18U;
// A file is hardly ever compressed twice; more often than this is an attack.
constexpr int most_compressions = 4;

class ZstdSource : public ByteSource {
 public:
  ZstdSource(std::unique_ptr<ByteSource> source, std::string name)
      : source_(std::move(source)),
        name_(std::move(name)),
        context_(ZSTD_createDCtx(), ZSTD_freeDCtx),
        input_(ZSTD_DStreamInSize()) {
    if (context_ == nullptr) throw Error(ExitCode::out_of_memory, "no memory to decompress " + name_);
    ZSTD_DCtx_setParameter(context_.get(), ZSTD_d_windowLogMax, largest_zstd_window_log);
  }

  size_t read(std::span<std::byte> data) override {
    ZSTD_outBuffer output = {data.data(), data.size(), 0};
    while (output.pos == 0 && output.size > 0) {
      if (pending_.pos == pending_.size && !flushing_ && !refill()) break;
      const size_t before = pending_.pos;
      const size_t status = ZSTD_decompressStream(context_.get(), &output, &pending_);
      if (ZSTD_isError(status) != 0) fail(status);
      inside_frame_ = status != 0;
      // A full output buffer may leave decoded bytes inside the context, which need no new input.
      flushing_ = output.pos == output.size && inside_frame_;
      if (pending_.pos == before && output.pos == 0) flushing_ = false;
    }
    return output.pos;
  }

 private:
  bool refill() {
    const size_t count = source_->read(input_);
    if (count == 0) {
      if (inside_frame_) fail("the last frame is incomplete", "copy or compress the file again");
      return false;
    }
    offset_ += count;
    pending_ = {input_.data(), count, 0};
    return true;
  }

  [[noreturn]] void fail(size_t status) const {
    switch (ZSTD_getErrorCode(status)) {
      case ZSTD_error_memory_allocation:
        throw Error(ExitCode::out_of_memory, fmt::format("{}: no memory for the window of this zstd frame", name_),
                    "free memory, or compress the file again without --long");
      case ZSTD_error_frameParameter_windowTooLarge:
        fail(fmt::format("its window is above 2^{} bytes", largest_zstd_window_log),
             fmt::format("compress it again with --long={} or less", largest_zstd_window_log));
      case ZSTD_error_prefix_unknown:
        fail("what follows the last frame is not zstd", "remove it, or compress the file again");
      case ZSTD_error_dictionary_wrong:
        fail("it needs a dictionary", "decompress it with its dictionary: zstd -d -D DICTIONARY");
      default: fail(ZSTD_getErrorName(status), "copy or compress the file again");
    }
  }
  [[noreturn]] void fail(std::string_view reason, std::string remedy) const {
    throw Error(ExitCode::bad_data,
                fmt::format("{}: zstd data that cannot be read, near byte {}: {}", name_, offset_, reason),
                std::move(remedy));
  }

  std::unique_ptr<ByteSource> source_;
  std::string name_;
  std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context_;
  std::vector<std::byte> input_;
  ZSTD_inBuffer pending_ = {nullptr, 0, 0};
  uint64_t offset_ = 0;
  bool inside_frame_ = false;
  bool flushing_ = false;
};

// libarchive on a ByteSource. An exception of the source goes around the C code.
class ArchiveHandle {
 public:
  ArchiveHandle(std::unique_ptr<ByteSource> source, std::string name, std::string_view kind)
      : source_(std::move(source)),
        name_(std::move(name)),
        kind_(kind),
        archive_(archive_read_new(), archive_read_free),
        buffer_(archive_buffer_bytes) {
    if (archive_ == nullptr) throw Error(ExitCode::out_of_memory, "no memory to read " + name_);
  }

  archive* get() const { return archive_.get(); }
  const std::string& name() const { return name_; }

  void open() { check(archive_read_open(get(), this, nullptr, read_more, nullptr)); }

  // Returns false at the end of the archive.
  bool next_entry(archive_entry*& entry) {
    const int status = archive_read_next_header(get(), &entry);
    check(status);
    return status != ARCHIVE_EOF;
  }

  size_t read_data(std::span<std::byte> data) {
    const la_ssize_t count = archive_read_data(get(), data.data(), data.size());
    if (count < 0) check(static_cast<int>(count));
    return count < 0 ? 0 : static_cast<size_t>(count);
  }

 private:
  static la_ssize_t read_more(archive* archive, void* self, const void** data) {
    auto& handle = *static_cast<ArchiveHandle*>(self);
    try {
      const size_t count = handle.source_->read(handle.buffer_);
      *data = handle.buffer_.data();
      return static_cast<la_ssize_t>(count);
    } catch (...) {
      handle.failure_ = std::current_exception();
      archive_set_error(archive, EIO, "the source failed");
      return -1;
    }
  }

  // A warning, for instance of a name that the locale cannot show, is no error.
  void check(int status) {
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
    if (status == ARCHIVE_OK || status == ARCHIVE_EOF || status == ARCHIVE_WARN) return;
    const char* reason = archive_error_string(get());
    throw Error(ExitCode::bad_data,
                fmt::format("{}: {} that cannot be read: {}", name_, kind_, reason != nullptr ? reason : "damaged"),
                "copy the file again, or make it again");
  }

  std::unique_ptr<ByteSource> source_;
  std::string name_;
  std::string kind_;
  std::unique_ptr<archive, int (*)(archive*)> archive_;
  std::vector<std::byte> buffer_;
  std::exception_ptr failure_;
};

// gzip, xz, bzip2 or lz4.
class FilteredSource : public ByteSource {
 public:
  FilteredSource(std::unique_ptr<ByteSource> source, const std::string& name, std::string_view kind)
      : handle_(std::move(source), name, kind) {
    archive* archive = handle_.get();
    archive_read_support_filter_gzip(archive);
    archive_read_support_filter_xz(archive);
    archive_read_support_filter_bzip2(archive);
    archive_read_support_filter_lz4(archive);
    archive_read_support_format_raw(archive);
    archive_read_support_format_empty(archive);
    handle_.open();
    archive_entry* entry = nullptr;
    at_end_ = !handle_.next_entry(entry);
  }

  size_t read(std::span<std::byte> data) override { return at_end_ ? 0 : handle_.read_data(data); }

 private:
  ArchiveHandle handle_;
  bool at_end_ = false;
};

}  // namespace

std::unique_ptr<PeekableSource> decompress(std::unique_ptr<ByteSource> source, const std::string& name) {
  auto peekable = std::make_unique<PeekableSource>(std::move(source));
  for (int i = 0;; ++i) {
    const FileKind& kind = file_kind(peekable->peek(file_kind_bytes));
    if (kind.use != FileUse::compressed) return peekable;
    if (i == most_compressions) {
      throw Error(ExitCode::bad_data, fmt::format("{}: compressed more than {} times", name, most_compressions),
                  "decompress it by hand");
    }
    std::unique_ptr<ByteSource> inner;
    if (kind.name == zstd_name) {
      inner = std::make_unique<ZstdSource>(std::move(peekable), name);
    } else {
      inner = std::make_unique<FilteredSource>(std::move(peekable), name, kind.name);
    }
    peekable = std::make_unique<PeekableSource>(std::move(inner));
  }
}

class TarReader::Archive {
 public:
  Archive(std::unique_ptr<ByteSource> source, std::string name)
      : handle_(std::move(source), std::move(name), "a tar archive") {
    archive_read_support_format_tar(handle_.get());
    handle_.open();
  }

  bool next() {
    while (handle_.next_entry(entry_)) {
      ++number_;
      if (archive_entry_filetype(entry_) == AE_IFREG && archive_entry_hardlink(entry_) == nullptr) return true;
    }
    return false;
  }

  std::string member() const {
    const char* path = archive_entry_pathname_utf8(entry_);
    if (path == nullptr) path = archive_entry_pathname(entry_);
    return path != nullptr ? path : fmt::format("member {}", number_);
  }

  size_t read(std::span<std::byte> data) { return handle_.read_data(data); }

 private:
  ArchiveHandle handle_;
  archive_entry* entry_ = nullptr;
  uint64_t number_ = 0;
};

class TarReader::Content : public ByteSource {
 public:
  explicit Content(Archive& archive) : archive_(archive) {}
  size_t read(std::span<std::byte> data) override { return archive_.read(data); }

 private:
  Archive& archive_;
};

TarReader::TarReader(std::unique_ptr<ByteSource> source, std::string name)
    : archive_(std::make_unique<Archive>(std::move(source), std::move(name))) {}
TarReader::~TarReader() = default;

bool TarReader::next() {
  return archive_->next();
}

std::string TarReader::member() const {
  return archive_->member();
}

std::unique_ptr<ByteSource> TarReader::content() {
  return std::make_unique<Content>(*archive_);
}

}  // namespace nibble
