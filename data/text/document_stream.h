// The documents of many files, in order, in batches: one thread reads ahead, and the compute threads check.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <span>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "data/text/text_inputs.h"
#include "data/text/text_reader.h"

namespace nibble {

struct StreamOptions {
  TextOptions text;
  uint64_t most_bad = 0;                                 // so many bad documents are left out; one more is an error
  uint64_t batch_bytes = 8ULL << 20U;                    // of text and of its description, at least
  std::function<void(const Document&)> report_bad = {};  // called for each that is left out
};

struct StreamProgress {
  uint64_t bytes = 0;       // of the files, as they are on the disk
  uint64_t text_bytes = 0;  // of the documents
  uint64_t documents = 0;
  uint64_t bad = 0;  // documents left out
  uint64_t replaced_bytes = 0;
};

class DocumentStream {
 public:
  DocumentStream(std::vector<TextInput> inputs, StreamOptions options);
  ~DocumentStream();
  DocumentStream(const DocumentStream&) = delete;
  DocumentStream& operator=(const DocumentStream&) = delete;

  // Fills `batch` with the next documents; returns false, with none, at the end. Throws what TextReader throws, and
  // ExitCode::bad_data for a bad document, once all documents before it have been returned or, in its batch, checked.
  bool next(std::vector<Document>& batch);
  const StreamProgress& progress() const { return progress_; }  // of the batches that next() has returned

 private:
  struct Batch {
    std::vector<RawDocument> documents;
    uint64_t position = 0;     // bytes of all files read up to its end
    std::exception_ptr error;  // what ended the reading after these documents
  };
  void read_all(const std::stop_token& stop);
  bool push(Batch batch, const std::stop_token& stop);

  std::vector<TextInput> inputs_;
  StreamOptions options_;
  StreamProgress progress_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Batch> ready_;
  bool is_read_ = false;      // nothing more comes into ready_
  std::exception_ptr error_;  // to be thrown by the next call of next()
  std::jthread reader_;
};

}  // namespace nibble
