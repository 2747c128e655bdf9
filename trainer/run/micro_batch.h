// The tokens and targets of micro-batches, and the documents that the tokens belong to.
#pragma once

#include <cstdint>
#include <future>
#include <memory>
#include <optional>
#include <span>

#include "data/loader.h"
#include "dist/device/pinned_memory.h"
#include "quant/tensor/tensor.h"
#include "trainer/config/run_config.h"

namespace nibble {

struct MicroBatchShape {
  int64_t sequences = 1;  // at most
  int64_t sequence_length = 0;
  bool document_mask = false;  // whether attention stays inside documents (data.document_mask)
};

MicroBatchShape micro_batch_shape(const RunConfig& config);

class MicroBatch {
 public:
  // The memory is the CPU's, and `device` can copy from it while the CPU goes on.
  explicit MicroBatch(const MicroBatchShape& shape, DeviceKind device = DeviceKind::cpu);

  // Loads these samples, at most shape.sequences.
  void load(SampleSource& source, std::span<const uint64_t> samples);
  // Loads the samples first .. first + sequences - 1.
  void load(SampleSource& source, uint64_t first, int64_t sequences);

  Tensor tokens() const { return part(0); }   // i32 [sequences, sequence_length]
  Tensor targets() const { return part(1); }  // i32 [sequences, sequence_length]: for each token the one after it
  // i32 [sequences, sequence_length]: for each token the position in its sequence at which its document begins. Empty
  // without document_mask.
  Tensor document_starts() const { return shape_.document_mask ? part(2) : Tensor(); }

  // What the device is given before set_copied() copies from the memory. wait_until_copied() returns when it has.
  void set_copied() { memory_.mark(); }
  void wait_until_copied() { memory_.wait(); }

 private:
  std::span<int32_t> sequence(int64_t part, int64_t index) const;
  Tensor part(int64_t index) const;

  MicroBatchShape shape_;
  PinnedMemory memory_;  // i32 [2, or 3 with document_mask][shape.sequences, shape.sequence_length]
  int64_t sequences_ = 0;
};

// The micro-batches that a rank trains on, one after the other.
class MicroBatchQueue {
 public:
  // With `ahead`, a thread loads the next micro-batch while the caller works with one: for GPUs, since on a CPU the
  // caller leaves no core idle. The source must outlive the queue and is not used by others meanwhile.
  MicroBatchQueue(SampleSource& source, const MicroBatchShape& shape, DeviceKind device, bool ahead);

  // Returns the micro-batch of samples first .. first + shape.sequences - 1, which is valid until the next call.
  // `next` is the first sample of the micro-batch that the next call will ask for; nothing if there is none. An error
  // in loading a micro-batch is thrown by the call that asks for it.
  MicroBatch& get(uint64_t first, std::optional<uint64_t> next);

 private:
  void load_ahead(uint64_t first);

  SampleSource& source_;
  int64_t sequences_;
  std::unique_ptr<MicroBatch> current_;
  std::unique_ptr<MicroBatch> next_;  // null if nothing is loaded ahead
  uint64_t first_of_next_ = 0;
  std::future<void> loading_;  // of next_; invalid if nothing is being loaded. Its destructor waits for the thread
};

}  // namespace nibble
