#include "dist/device/profile.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "dist/base/error.h"
#include "dist/device/device_memory.h"

namespace nibble {
namespace {

thread_local ProfileRecorder* recorder = nullptr;  // between begin() and end()

}  // namespace

namespace detail {

std::atomic<bool> profiling{false};

bool enter_profile_scope(OperatorFamily family, const char* name) noexcept {
  if (recorder == nullptr) return false;
  recorder->enter(family, name);
  return true;
}

void leave_profile_scope() noexcept {
  if (recorder != nullptr) recorder->leave();
}

}  // namespace detail

int64_t ProfileTotals::sum() const {
  return std::accumulate(nanoseconds.begin(), nanoseconds.end(), int64_t{0});
}

ProfileRecorder::ProfileRecorder(size_t event_capacity, DeviceKind device) : device_(device) {
  events_.reserve(event_capacity);
  origin_ = now();
}

ProfileRecorder::~ProfileRecorder() {
  if (recorder != this) return;
  recorder = nullptr;
  detail::profiling = false;
}

int64_t ProfileRecorder::now() const noexcept {
  if (device_ != DeviceKind::cpu) wait_for_device(device_);
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count() - origin_;
}

void ProfileRecorder::count_for_innermost(int64_t time) noexcept {
  totals_[frames_[std::min(depth_, deepest) - 1].family] += time - last_;
  last_ = time;
}

void ProfileRecorder::enter(OperatorFamily family, const char* name) noexcept {
  const int64_t time = now();
  if (depth_ > 0) {
    count_for_innermost(time);
    if (frames_[std::min(depth_, deepest) - 1].family == OperatorFamily::head) family = OperatorFamily::head;
  }
  last_ = time;
  size_t event = no_event;
  if (keeps_ && !overflowed_) {
    overflowed_ = events_.size() == events_.capacity();
    if (!overflowed_) {
      event = events_.size();
      events_.push_back({.name = name, .family = family, .begin = time, .end = time});
    }
  }
  if (depth_ < deepest) frames_[depth_] = {family, event};
  ++depth_;
}

void ProfileRecorder::leave() noexcept {
  const int64_t time = now();
  count_for_innermost(time);
  --depth_;
  if (depth_ < deepest && frames_[depth_].event != no_event) events_[frames_[depth_].event].end = time;
}

void ProfileRecorder::begin(const char* name, bool keep_events) {
  NIBBLE_CHECK(!detail::profiling && depth_ == 0, "one profile at a time");
  keeps_ = keep_events;
  overflowed_ = false;
  first_of_interval_ = events_.size();
  recorder = this;
  detail::profiling = true;
  enter(OperatorFamily::other, name);
}

bool ProfileRecorder::end() {
  NIBBLE_CHECK(recorder == this && depth_ == 1, "a profile's interval ends where it began");
  leave();
  recorder = nullptr;
  detail::profiling = false;
  if (overflowed_) events_.resize(first_of_interval_);
  return !overflowed_;
}

}  // namespace nibble
