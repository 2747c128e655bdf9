#include "trainer/tokenize/tokenize_text.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <system_error>
#include <utility>

#include "data/text/document_stream.h"
#include "dist/base/error.h"
#include "dist/base/file.h"
#include "dist/base/file_descriptor.h"
#include "dist/base/log.h"
#include "dist/base/stopwatch.h"
#include "dist/base/text.h"
#include "dist/device/thread_pool.h"

namespace nibble {
namespace {

constexpr double seconds_between_lines = 10.0;
constexpr size_t lines_for_speed = 7;          // the speed is that of the last minute
constexpr uint64_t most_listed_bad = 100;      // documents
constexpr uint64_t batch_bytes = 4ULL << 20U;  // for each compute thread
constexpr uint64_t largest_batch_bytes = 128ULL << 20U;

double mebibytes(uint64_t bytes) {
  return static_cast<double>(bytes) / 1048576.0;
}

// Says how far a pass over the files is, and how long it will go on.
class PassProgress {
 public:
  PassProgress(std::string_view phase, uint64_t total_bytes) : phase_(phase), total_bytes_(total_bytes) {}

  void update(const StreamProgress& progress) {
    const double now = watch_.seconds();
    if (now - points_.back().seconds < seconds_between_lines) return;
    points_.push_back({now, progress.bytes});
    if (points_.size() > lines_for_speed) points_.pop_front();
    const double seconds = now - points_.front().seconds;
    const double speed = static_cast<double>(progress.bytes - points_.front().bytes) / seconds;
    const uint64_t rest = total_bytes_ - std::min(total_bytes_, progress.bytes);
    log_info("{}: {:.1f} % of {:.1f} MiB, {} documents, {:.1f} MiB/s, {}", phase_,
             total_bytes_ == 0 ? 100.0 : 100.0 * (1 - static_cast<double>(rest) / static_cast<double>(total_bytes_)),
             mebibytes(total_bytes_), progress.documents, speed / 1048576.0,
             speed > 0 ? duration_text(static_cast<double>(rest) / speed) + " left" : "waiting for the files");
  }

  double seconds() const { return watch_.seconds(); }

 private:
  struct Point {
    double seconds;
    uint64_t bytes;
  };
  std::string_view phase_;
  uint64_t total_bytes_;
  Stopwatch watch_;
  std::deque<Point> points_ = {{0, 0}};
};

void list_bad(const Document& document, uint64_t number) {
  if (number <= most_listed_bad) log_warning("left out: {}", document.fault);
  if (number == most_listed_bad) log_warning("from here on, bad documents are only counted");
}

void copy_stream(const TextInput& input, const std::filesystem::path& target) {
  const FileDescriptor source = FileDescriptor::try_open(input.path, O_RDONLY);
  if (!source.is_open()) fail_system_call("open", input.path, errno);
  OutputFile copy(target);
  std::vector<std::byte> buffer(size_t{1} << 20U);
  uint64_t size = 0;
  while (true) {
    const ssize_t count = ::read(source.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_system_call("read", input.path, errno);
    if (count == 0) break;
    copy.write_at(size, std::span(buffer).first(static_cast<size_t>(count)));
    size += static_cast<uint64_t>(count);
  }
  copy.publish();
  log_info("{}: {:.1f} MiB, kept until the end, since the text is read twice", input.name, mebibytes(size));
}

}  // namespace

TextTotals read_text(const TextJob& job, std::string_view phase, BadDocuments bad,
                     const std::function<void(std::span<const Document>)>& visit) {
  uint64_t total_bytes = 0;
  for (const TextInput& input : job.inputs) total_bytes += input.bytes;
  PassProgress progress(phase, total_bytes);
  uint64_t listed = 0;
  StreamOptions options = {.text = job.options, .most_bad = job.most_bad};
  options.batch_bytes = std::min(batch_bytes * static_cast<uint64_t>(compute_threads()), largest_batch_bytes);
  if (bad == BadDocuments::listed) {
    options.report_bad = [&](const Document& document) { list_bad(document, ++listed); };
  }
  DocumentStream stream(job.inputs, std::move(options));
  for (std::vector<Document> documents; stream.next(documents);) {
    visit(documents);
    progress.update(stream.progress());
  }
  const StreamProgress& done = stream.progress();
  log_info("{}: {:.1f} MiB of text, {} documents, done in {}", phase, mebibytes(done.text_bytes), done.documents,
           duration_text(progress.seconds()));
  if (bad == BadDocuments::listed) {
    if (done.replaced_bytes > 0) log_warning("{} bytes were not UTF-8 and became U+FFFD", done.replaced_bytes);
    if (done.bad > 0) log_warning("{} bad documents are left out (--skip-bad)", done.bad);
  }
  return {.documents = done.documents, .bytes = done.text_bytes, .bad = done.bad};
}

bool has_streams(const std::vector<TextInput>& inputs) {
  return std::any_of(inputs.begin(), inputs.end(), [](const TextInput& input) { return input.is_stream; });
}

void store_streams(std::vector<TextInput>& inputs, const std::filesystem::path& folder) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    TextInput& input = inputs[i];
    if (!input.is_stream) continue;
    const std::filesystem::path copy = folder / fmt::format("stream-{}", i);
    copy_stream(input, copy);
    std::error_code error;
    input = {.path = copy, .name = input.name, .bytes = std::filesystem::file_size(copy, error)};
  }
}

std::string identify(const std::vector<TextInput>& inputs) {
  std::string text;
  for (const TextInput& input : inputs) {
    std::error_code error;
    const auto changed = std::filesystem::last_write_time(input.path, error).time_since_epoch().count();
    text += fmt::format("{} {} {}\n", std::filesystem::absolute(input.path, error).string(), input.bytes, changed);
  }
  return text;
}

}  // namespace nibble
