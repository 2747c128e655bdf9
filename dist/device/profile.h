// Where the time of a step goes, by family of operators. An operator's dispatching function opens a scope:
//   ProfileScope scope(OperatorFamily::attention, "attention_forward");
// While nobody records, that is one relaxed load. Scopes nest: time counts for the innermost one, but for those inside
// a scope of the head, which all count as head (its products and its loss are one thing to a reader). Only the thread
// that records is seen: operators are called from one thread, and nothing inside a parallel region opens a scope.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "dist/device/dispatch.h"

namespace nibble {

enum class OperatorFamily : uint8_t {
  quantize,
  gemm_nvfp4,
  gemm_bf16,
  gemm_other,  // MX, FP8, FP32 and mixed pairs
  attention,   // and its rotary embedding
  norm,        // and the residual sums
  activation,
  head,  // the head's operands and products, and the loss
  embedding,
  optimizer,  // gradient norm and update
  reduction,  // gradient buffers and sums, exchange of gradients and weights, waiting for other ranks
  data,
  other
};
constexpr size_t operator_families = 13;

// "gemm nvfp4", "head+loss".
std::string_view name_of(OperatorFamily family);

namespace detail {
extern std::atomic<bool> profiling;
bool enter_profile_scope(OperatorFamily family, const char* name) noexcept;  // false: not the recording thread
void leave_profile_scope() noexcept;
}  // namespace detail

// Whether somebody records.
inline bool profiling() {
  return detail::profiling.load(std::memory_order_relaxed);
}

class ProfileScope {
 public:
  // name: of the operation, a string literal.
  ProfileScope(OperatorFamily family, const char* name) noexcept
      : entered_(profiling() && detail::enter_profile_scope(family, name)) {}
  ~ProfileScope() {
    if (entered_) detail::leave_profile_scope();
  }
  ProfileScope(const ProfileScope&) = delete;
  ProfileScope& operator=(const ProfileScope&) = delete;

 private:
  bool entered_;
};

struct ProfileEvent {
  const char* name = nullptr;
  OperatorFamily family = OperatorFamily::other;
  int64_t begin = 0, end = 0;  // nanoseconds since the recorder was made
};

// Nanoseconds that count for each family.
struct ProfileTotals {
  std::array<int64_t, operator_families> nanoseconds{};
  int64_t& operator[](OperatorFamily family) { return nanoseconds[static_cast<size_t>(family)]; }
  int64_t operator[](OperatorFamily family) const { return nanoseconds[static_cast<size_t>(family)]; }
  int64_t sum() const;
};

// Records what the thread that calls begin() does until end(). One at a time in a process.
class ProfileRecorder {
 public:
  // Memory for this many events is taken here, none later.
  // On a GPU every scope waits for the device at its begin and end, so that time counts for who used it; a profiled
  // step is slower there.
  explicit ProfileRecorder(size_t event_capacity, DeviceKind device = DeviceKind::cpu);
  ~ProfileRecorder();
  ProfileRecorder(const ProfileRecorder&) = delete;
  ProfileRecorder& operator=(const ProfileRecorder&) = delete;

  // One interval, itself an event; time that is in no scope counts as other. keep_events: with the events inside it;
  // they are kept whole or, where memory does not suffice, not at all.
  void begin(const char* name, bool keep_events);
  // Returns false if the interval's events should have been kept, but did not fit.
  bool end();

  // Of all intervals so far. They add up to the intervals' lengths exactly.
  const ProfileTotals& totals() const { return totals_; }
  // Of the kept intervals, by begin; an event lies either inside another one or beside it.
  std::span<const ProfileEvent> events() const { return events_; }

 private:
  friend bool detail::enter_profile_scope(OperatorFamily family, const char* name) noexcept;
  friend void detail::leave_profile_scope() noexcept;
  static constexpr size_t deepest = 32;
  static constexpr size_t no_event = ~size_t{0};
  struct Frame {
    OperatorFamily family;  // that its own time counts for
    size_t event;
  };

  int64_t now() const noexcept;
  void enter(OperatorFamily family, const char* name) noexcept;
  void leave() noexcept;
  void count_for_innermost(int64_t time) noexcept;

  DeviceKind device_;
  int64_t origin_ = 0;
  int64_t last_ = 0;  // until when time has been counted
  ProfileTotals totals_;
  std::vector<ProfileEvent> events_;
  size_t first_of_interval_ = 0;
  bool keeps_ = false;
  bool overflowed_ = false;
  std::array<Frame, deepest> frames_{};
  size_t depth_ = 0;  // may exceed `deepest`: frames beyond are not told apart
};

}  // namespace nibble
