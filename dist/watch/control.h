// What holds the ranks of a run together beside the collectives: a thread on every rank that uses neither MPI nor NCCL,
// so that it works while these are stuck. Ranks tell it where they stand (dist/watch/position.h), ten times a second it
// tells the lowest ranks, and the lowest rank that lives is the judge:
//
//   * An error that one rank raises reaches all ranks. The first one that the judge hears of is the run's: the judge
//     prints it, and every rank ends with its code. They do not meet again.
//   * When a rank has waited in a collective for longer than the deadline, the judge names the culprit: of the ranks
//     that give no sign of life, or else of all ranks, the one with the smallest event. The run ends with
//     ExitCode::peer_lost.
//
// A rank whose own thread did not run for a while was stopped itself. It judges nobody for as long as that thread needs
// to hear from the others again, and time for which it was stopped is no time that it waited.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "dist/base/error.h"
#include "dist/watch/datagram_socket.h"
#include "dist/watch/position.h"

namespace nibble {

// The error with which a run ends, as every rank gets it from check(). It has been printed: whoever catches it ends the
// process with its code.
class RaisedError : public Error {
 public:
  using Error::Error;
};

// How a rank is reached, in a form that can be sent as it is.
struct ControlEndpoint {
  DatagramAddress local;  // from the same machine; unknown if the rank has no socket
  std::array<DatagramAddress, DatagramSocket::most_addresses> remote{};
  ShortText host;
};

class Control {
 public:
  struct Options {
    int rank = 0;
    double timeout_s = 0;                         // of a collective; 0: no bound
    std::vector<ControlEndpoint> endpoints = {};  // [ranks]
    std::array<uint64_t, 2> secret{};             // of the run: messages without it are ignored
  };

  // The control of one rank: it hears nobody, and has no thread.
  Control();
  Control(Options options, std::unique_ptr<DatagramSocket> socket);
  ~Control();
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

  bool is_alone() const { return state_ == nullptr; }
  // Returns whether the judges hear this rank and it hears them; waits for at most this time until it is so.
  bool wait_until_heard(double seconds);

  // For the walking thread; each call is an event, and cheap. begin() starts a phase. at() is inside a pass.
  void begin(Phase phase, uint64_t step);
  void at(std::string_view operation);
  void enter_collective(std::string_view name, uint64_t number);
  void leave_collective();
  // Any thread may say that a collective which a device carries out has taken longer than the deadline.
  void set_overdue(std::string_view name, uint64_t number);

  // Throws the run's error once there is one, at every event and in every loop that waits.
  void check() const;
  // Says that this rank fails. Returns true once the run's error is known, which is then to be had from check(); false
  // if nobody judges within a second, or if there are no others.
  bool raise(const Error& error);
  // Returns true if this process was stopped a short time ago, so that what it sees of others is no fault of theirs.
  bool was_stopped() const;

 private:
  struct State;
  std::unique_ptr<State> state_;  // null if alone
};

}  // namespace nibble
