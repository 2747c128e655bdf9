// What is asked of a run from outside while it trains: by requests in its directory (trainer/directory/run_control.h)
// and by SIGUSR2. All ranks agree on it after every step.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "dist/ranks/communicator.h"
#include "trainer/directory/run_directory.h"
#include "trainer/record/run_recorder.h"
#include "trainer/run/training_session.h"

namespace nibble {

// What a step's end brings beyond what the configuration says; the same on all ranks.
struct Wishes {
  bool checkpoint = false;
  bool stop = false;
};

class Steering {
 public:
  Steering(Communicator& communicator, TrainingSession& session, const RunDirectory& directory)
      : communicator_(communicator), session_(session), directory_(directory) {}

  // Collective. `wants_to_stop` says that this rank has been told to stop in another way. Changes of the learning rate
  // are made here, and the journal keeps everything that was asked.
  Wishes after_step(uint64_t step, bool wants_to_stop, RunRecorder& recorder);
  // Removes the requests of the last step, which are done.
  void finish();
  // Returns whether a request has asked for the stop.
  bool stop_asked() const { return stop_asked_; }

 private:
  void change_rate(uint64_t step, double peak, RunRecorder& recorder);

  Communicator& communicator_;
  TrainingSession& session_;
  const RunDirectory& directory_;
  bool stop_asked_ = false;
  std::vector<std::filesystem::path> requests_;  // on rank 0
};

}  // namespace nibble
