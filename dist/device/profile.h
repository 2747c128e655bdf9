// Measures where the time of a step goes, by family of operators. An operator's dispatching function opens a scope:
//   ProfileScope scope(OperatorFamily::attention, "attention_forward");
// While no recorder runs, a scope costs one relaxed load. Scopes nest: time counts for the innermost scope, except that
// all scopes inside a scope of the head count as head, because its GEMMs and its loss are one thing to a reader.
// Only the recording thread is measured: operators are called from one thread, and nothing inside a parallel region
// opens a scope.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "dist/base/enum_names.h"
#include "dist/device/device_kind.h"

namespace nibble {

enum class OperatorFamily : uint8_t {
  quantize,
  gemm_nvfp4,
  gemm_bf16,
  gemm_other,  // MX, FP8, FP32 and mixed pairs
  attention,   // with its rotary embedding
  norm,        // with the residual sums
  activation,
  head,  // the head's operands and GEMMs, and the loss
  embedding,
  optimizer,  // gradient norm and update
  reduction,  // gradient buffers and sums, exchange of gradients and weights, waiting for other ranks
  data,
  other
};
// These names appear in reports.
constexpr auto enum_names(OperatorFamily) {
  return std::to_array<EnumName<OperatorFamily>>({{OperatorFamily::quantize, "quantise"},
                                                  {OperatorFamily::gemm_nvfp4, "gemm nvfp4"},
                                                  {OperatorFamily::gemm_bf16, "gemm bf16"},
                                                  {OperatorFamily::gemm_other, "gemm other"},
                                                  {OperatorFamily::attention, "attention"},
                                                  {OperatorFamily::norm, "norm"},
                                                  {OperatorFamily::activation, "activation"},
                                                  {OperatorFamily::head, "head+loss"},
                                                  {OperatorFamily::embedding, "embedding"},
                                                  {OperatorFamily::optimizer, "optimizer"},
                                                  {OperatorFamily::reduction, "reduction"},
                                                  {OperatorFamily::data, "data"},
                                                  {OperatorFamily::other, "other"}});
}
constexpr size_t operator_families = all_names<OperatorFamily>().size();

namespace detail {
extern std::atomic<bool> profiling;
bool enter_profile_scope(OperatorFamily family, const char* name) noexcept;  // false: not the recording thread
void leave_profile_scope() noexcept;
}  // namespace detail

// Returns true while a recorder records.
inline bool profiling() {
  return detail::profiling.load(std::memory_order_relaxed);
}

class ProfileScope {
 public:
  // `name` is the name of the operation, a string literal.
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

// Records what the thread that calls begin() does until end(). Only one recorder of a process may record at a time.
class ProfileRecorder {
 public:
  // Memory for `event_capacity` events is taken here and none later. On a GPU every scope waits for the device at its
  // begin and end, so that time counts for the operator that used it; a profiled step is slower there.
  explicit ProfileRecorder(size_t event_capacity, DeviceKind device = DeviceKind::cpu);
  ~ProfileRecorder();
  ProfileRecorder(const ProfileRecorder&) = delete;
  ProfileRecorder& operator=(const ProfileRecorder&) = delete;

  // Begins an interval, which is an event itself; time outside all scopes counts as other. With keep_events the events
  // inside the interval are kept; if memory does not suffice for all of them, none is.
  void begin(const char* name, bool keep_events);
  // Ends the interval. Returns false if its events should have been kept but did not fit.
  bool end();

  // Times of all intervals so far. They add up to the intervals' lengths exactly.
  const ProfileTotals& totals() const { return totals_; }
  // Events of the kept intervals, ordered by begin. Of two events, one lies inside the other or they do not overlap.
  std::span<const ProfileEvent> events() const { return events_; }

 private:
  friend bool detail::enter_profile_scope(OperatorFamily family, const char* name) noexcept;
  friend void detail::leave_profile_scope() noexcept;
  static constexpr size_t deepest = 32;
  static constexpr size_t no_event = ~size_t{0};
  struct Frame {
    OperatorFamily family;  // the family that the frame's own time counts for
    size_t event;
  };

  int64_t now() const noexcept;
  void enter(OperatorFamily family, const char* name) noexcept;
  void leave() noexcept;
  void count_for_innermost(int64_t time) noexcept;

  DeviceKind device_;
  int64_t origin_ = 0;
  int64_t last_ = 0;  // time up to here has been counted
  ProfileTotals totals_;
  std::vector<ProfileEvent> events_;
  size_t first_of_interval_ = 0;
  bool keeps_ = false;
  bool overflowed_ = false;
  std::array<Frame, deepest> frames_{};
  size_t depth_ = 0;  // may exceed `deepest`; deeper frames share the last entry
};

}  // namespace nibble
