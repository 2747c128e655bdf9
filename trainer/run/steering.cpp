#include "trainer/run/steering.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "dist/base/log.h"
#include "dist/base/signals.h"
#include "trainer/directory/journal.h"
#include "trainer/directory/run_control.h"

namespace nibble {

// Nobody is heard who asks while a stop is on its way: a request stays in its file, and the resumed run takes it.
Wishes Steering::after_step(uint64_t step, bool wants_to_stop, RunRecorder& recorder) {
  enum Wish : int64_t { nothing, request, stop };
  const CheckpointRequest signal = take_checkpoint_request();
  Wish wish =
      signal != CheckpointRequest::none || (communicator_.rank() == 0 && has_control_requests(directory_.path()))
          ? request
          : nothing;
  if (wants_to_stop) wish = stop;
  const int64_t agreed = communicator_.all_reduce_max(wish);
  if (agreed == stop) return {.checkpoint = false, .stop = true};
  if (agreed == nothing) return {};
  TakenRequests taken;
  on_leader(communicator_, [&] {
    taken = take_control_requests(directory_.path());
    for (const std::string& text : taken.refused) log_warning("not a request: {}", text);
    requests_ = taken.files;
  });
  const auto signalled = static_cast<CheckpointRequest>(communicator_.all_reduce_max(static_cast<int64_t>(signal)));
  const ControlRequest wanted = parse_control_request(broadcast_string(communicator_, to_text(taken.request), 0));
  stop_asked_ = wanted.stop;
  if (wanted.learning_rate) change_rate(step, *wanted.learning_rate, recorder);
  on_leader(communicator_, [&] {
    if (!wanted.checkpoint && signalled == CheckpointRequest::none) return;
    const char* by = signalled == CheckpointRequest::mpirun   ? "mpirun, which ends"
                     : signalled == CheckpointRequest::signal ? "SIGUSR2"
                                                              : "nibble control";
    record_control(directory_.path(), step, {{"checkpoint", true}, {"by", by}});
  });
  return {.checkpoint = wanted.checkpoint || signalled != CheckpointRequest::none, .stop = wanted.stop};
}

// The configuration is written before the change counts, so that a run that is killed now goes on with it.
void Steering::change_rate(uint64_t step, double peak, RunRecorder& recorder) {
  const RunConfig& config = session_.config();
  const double before = peak_at(schedule_config(config), step);
  session_.set_peak(step, peak);
  on_leader(communicator_, [&] {
    directory_.write_config(resolved_yaml(config));
    const nlohmann::json change = {{"key", "schedule.peaks"}, {"from", before}, {"to", peak}};
    record_control(directory_.path(), step, change);
    recorder.event({{"event", "control"}, {"step", step}, {"learning_rate", peak}});
    recorder.line(
        fmt::format("the peak of the learning rate is {} from step {} on; it was {}", peak, step + 1, before));
  });
}

void Steering::finish() {
  for (const std::filesystem::path& file : requests_) {
    std::error_code ignored;
    std::filesystem::remove(file, ignored);
  }
  requests_.clear();
}

}  // namespace nibble
