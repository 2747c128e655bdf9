#include "data/text/document_stream.h"

#include <utility>

#include "dist/base/error.h"
#include "dist/device/thread_pool.h"

namespace nibble {
namespace {

constexpr size_t most_ready_batches = 2;
constexpr size_t documents_at_once = 16;  // that one thread checks before it takes others

}  // namespace

DocumentStream::DocumentStream(std::vector<TextInput> inputs, StreamOptions options)
    : inputs_(std::move(inputs)),
      options_(std::move(options)),
      reader_([this](const std::stop_token& stop) { read_all(stop); }) {}

DocumentStream::~DocumentStream() = default;

// Returns false if nobody wants more.
bool DocumentStream::push(Batch batch, const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, stop, [this] { return ready_.size() < most_ready_batches; });
  if (stop.stop_requested()) return false;
  ready_.push_back(std::move(batch));
  changed_.notify_all();
  return true;
}

void DocumentStream::read_all(const std::stop_token& stop) {
  Batch batch;
  uint64_t batch_bytes = 0;
  uint64_t finished_files = 0;  // bytes
  bool is_wanted = true;
  try {
    for (const TextInput& input : inputs_) {
      TextReader reader(input.path, input.name, options_.text);
      for (RawDocument document; is_wanted && reader.next(document); document = {}) {
        batch_bytes += document.text.size() + sizeof(RawDocument);
        batch.documents.push_back(std::move(document));
        if (batch_bytes < options_.batch_bytes) continue;
        batch.position = finished_files + reader.position();
        is_wanted = push(std::exchange(batch, {}), stop);
        batch_bytes = 0;
      }
      finished_files += reader.position();
      if (!is_wanted || stop.stop_requested()) return;
    }
  } catch (...) {
    batch.error = std::current_exception();
  }
  batch.position = finished_files;
  push(std::move(batch), stop);
  const std::lock_guard lock(mutex_);
  is_read_ = true;
  changed_.notify_all();
}

bool DocumentStream::next(std::vector<Document>& batch) {
  batch.clear();
  while (batch.empty()) {
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    Batch raw;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return !ready_.empty() || is_read_; });
      if (ready_.empty()) return false;
      raw = std::move(ready_.front());
      ready_.pop_front();
      changed_.notify_all();
    }
    std::vector<Document> documents(raw.documents.size());
    parallel_for(documents.size(), documents_at_once, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) {
        documents[i] = parse_document(std::move(raw.documents[i]), options_.text);
      }
    });
    for (Document& document : documents) {
      progress_.replaced_bytes += document.replaced_bytes;
      if (!document.fault.empty()) {
        if (progress_.bad == options_.most_bad) throw Error(ExitCode::bad_data, document.fault, document.remedy);
        ++progress_.bad;
        if (options_.report_bad) options_.report_bad(document);
      } else if (!document.text.empty()) {
        ++progress_.documents;
        progress_.text_bytes += document.text.size();
        batch.push_back(std::move(document));
      }
    }
    if (raw.position > progress_.bytes) progress_.bytes = raw.position;
    error_ = raw.error;
  }
  return true;
}

}  // namespace nibble
