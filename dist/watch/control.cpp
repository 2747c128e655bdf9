#include "dist/watch/control.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "dist/base/log.h"
#include "dist/base/signals.h"
#include "dist/base/stopwatch.h"

namespace nibble {
namespace {

constexpr double tick_s = 0.1;
constexpr size_t judges = 4;        // the ranks that hear the others: one of them lives
constexpr double verdict_s = 1;     // how long a rank that fails waits for the judge
constexpr double farewell_s = 0.6;  // how long the walking thread has to end the process after the verdict
constexpr uint64_t events_of_collective = uint64_t{1} << 20;

enum class Kind : uint32_t { tick, answer, raised, verdict };

// A message. Longer texts are cut off: it has to fit into one packet of the network.
struct Message {
  std::array<uint64_t, 2> secret{};
  Kind kind = Kind::tick;
  int32_t rank = 0;      // the sender
  Position position{};   // tick
  double waiting_s = 0;  // tick: for how long the rank has been in its collective
  int32_t code = 0;      // raised, verdict
  std::array<char, 800> what{};
  std::array<char, 300> remedy{};
};

template <size_t size>
void put(std::array<char, size>& memory, std::string_view text) {
  memory = {};
  std::copy_n(text.begin(), std::min(text.size(), size - 1), memory.begin());
}

Error error_of(const Message& message) {
  return {static_cast<ExitCode>(message.code), message.what.data(), message.remedy.data()};
}

// What a judge knows of a rank.
struct Peer {
  Position position{};
  double waiting_s = 0;
  Stopwatch since_heard;
  bool heard = false;
  DatagramAddress address{};  // from which it was heard
};

}  // namespace

struct Control::State {
  const Options options;
  const std::unique_ptr<DatagramSocket> socket;
  const size_t own;
  const double silent_s;  // without a sign of life for so long, a rank is taken for stopped, dead or unreachable

  std::mutex mutex;  // guards the members up to the next comment
  std::condition_variable changed;
  Position position{};
  uint64_t entered = 0;         // counts collectives
  std::optional<Error> failed;  // this rank's own
  std::optional<Error> verdict;
  std::atomic<bool> has_verdict{false};
  std::atomic<bool> overdue{false};
  std::atomic<bool> heard{false};
  std::atomic<bool> stopped{false};
  std::atomic<bool> ending{false};

  // Only the thread uses these.
  std::vector<Peer> peers;
  uint64_t waits_in = 0;  // number of the collective in which this rank was seen to wait
  Stopwatch since_waiting;
  std::optional<Stopwatch> since_stopped;
  std::optional<Stopwatch> since_verdict;
  std::thread thread;

  State(Options given, std::unique_ptr<DatagramSocket> opened)
      : options(std::move(given)),
        socket(std::move(opened)),
        own(static_cast<size_t>(options.rank)),
        silent_s(options.timeout_s > 0 ? std::clamp(options.timeout_s / 2, 0.5, 5.0) : 5.0),
        peers(options.endpoints.size()) {}

  bool may_judge() const { return own < judges; }

  Message message(Kind kind) const {
    Message result;
    result.secret = options.secret;
    result.kind = kind;
    result.rank = options.rank;
    return result;
  }

  Message message(Kind kind, const Error& error) const {
    Message result = message(kind);
    result.code = static_cast<int32_t>(error.code());
    put(result.what, error.what());
    put(result.remedy, error.remedy());
    return result;
  }

  // Sends to the first `ranks` of the others.
  void send_to_first(size_t ranks, const Message& message) const {
    for (size_t rank = 0; rank < std::min(ranks, peers.size()); ++rank) {
      if (rank != own) send(message, rank);
    }
  }

  // Sends to where the rank was heard from, or else to all of its addresses.
  void send(const Message& message, size_t rank) const {
    const auto bytes = std::as_bytes(std::span(&message, 1));
    const size_t length =
        message.kind == Kind::tick || message.kind == Kind::answer ? offsetof(Message, what) : sizeof(Message);
    if (peers[rank].address.is_known()) return socket->send(bytes.first(length), peers[rank].address);
    const ControlEndpoint& endpoint = options.endpoints[rank];
    socket->send(bytes.first(length), endpoint.local);
    for (const DatagramAddress& address : endpoint.remote) {
      if (address.is_known()) socket->send(bytes.first(length), address);
    }
  }

  void run() {
    std::optional<Stopwatch> since_tick;
    while (!ending) {
      const double left = since_tick ? tick_s - since_tick->seconds() : 0;
      if (left > 0) socket->wait(static_cast<int>(left * 1000) + 1);
      hear();
      const double passed = since_tick ? since_tick->seconds() : tick_s;
      bool hurries = false;
      {
        const std::lock_guard lock(mutex);
        hurries = failed.has_value() && !verdict;
      }
      if (passed < tick_s && !hurries) continue;
      if (passed > silent_s) wake_up();
      since_tick.emplace();
      tick();
    }
  }

  // This process was stopped: what it knows of the others is old, and nobody waited meanwhile.
  void wake_up() {
    since_stopped.emplace();
    stopped = true;
    since_waiting = Stopwatch();
    for (Peer& peer : peers) peer.since_heard = Stopwatch();
  }

  void hear() {
    Message received;
    while (const auto arrived = socket->receive(std::as_writable_bytes(std::span(&received, 1)))) {
      if (arrived->bytes < offsetof(Message, what) || received.secret != options.secret) continue;
      if (received.rank < 0 || static_cast<size_t>(received.rank) >= peers.size()) continue;
      Peer& peer = peers[static_cast<size_t>(received.rank)];
      peer.address = arrived->from;
      peer.heard = true;
      peer.since_heard = Stopwatch();
      received.what.back() = received.remedy.back() = '\0';
      received.position.operation.characters.back() = received.position.collective.characters.back() = '\0';
      const bool whole = arrived->bytes == sizeof(Message);
      if (received.kind == Kind::tick) {
        peer.position = received.position;
        peer.waiting_s = received.waiting_s;
        send(message(Kind::answer), static_cast<size_t>(received.rank));
      } else if (received.kind == Kind::raised && whole) {
        if (judges_now()) decide(error_of(received), fmt::format("rank {}: ", received.rank));
      } else if (received.kind == Kind::verdict && whole) {
        accept(error_of(received));
      }
    }
    if (!heard)
      heard = std::ranges::all_of(std::span(peers).first(std::min(judges, peers.size())),
                                  [this](const Peer& peer) { return peer.heard || &peer == &peers[own]; });
  }

  // The lowest rank that lives judges, unless it was stopped itself a short time ago.
  bool judges_now() const {
    if (!may_judge() || (since_stopped && since_stopped->seconds() < silent_s)) return false;
    return std::all_of(peers.begin(), peers.begin() + static_cast<std::ptrdiff_t>(own),
                       [this](const Peer& peer) { return peer.since_heard.seconds() > silent_s; });
  }

  void tick() {
    if (since_stopped && since_stopped->seconds() > silent_s) {
      since_stopped.reset();
      stopped = false;
    }
    Message now = message(Kind::tick);
    std::optional<Error> own_error;
    {
      const std::lock_guard lock(mutex);
      now.position = position;
      own_error = failed;
    }
    const bool waits = !now.position.collective.view().empty();
    if (!waits || now.position.collective_number != waits_in) since_waiting = Stopwatch();
    waits_in = waits ? now.position.collective_number : 0;
    now.waiting_s = waits ? since_waiting.seconds() : 0;
    if (overdue) now.waiting_s = std::max(now.waiting_s, 2 * options.timeout_s);
    peers[own].position = now.position;
    peers[own].waiting_s = now.waiting_s;
    peers[own].since_heard = Stopwatch();
    send_to_first(judges, now);
    if (since_verdict) return after_verdict();
    if (own_error) {
      const std::string who = fmt::format("rank {}: ", options.rank);
      if (judges_now()) return decide(*own_error, who);
      send_to_first(judges, message(Kind::raised, *own_error));
    } else if (judges_now()) {
      judge();
    }
  }

  bool silent(const Peer& peer) const { return peer.since_heard.seconds() > silent_s; }

  // Looks for a rank that has waited for too long, and names the one that it waits for.
  void judge() {
    if (options.timeout_s <= 0) return;
    const auto longest = std::ranges::max_element(peers, {}, &Peer::waiting_s);
    if (longest->waiting_s <= options.timeout_s) return;
    size_t culprit = 0;
    for (size_t rank = 1; rank < peers.size(); ++rank) {
      const bool better = silent(peers[rank]) != silent(peers[culprit])
                              ? silent(peers[rank])
                              : peers[rank].position.event < peers[culprit].position.event;
      if (better) culprit = rank;
    }
    const std::string waited =
        fmt::format("{} took longer than {} s (comm.timeout_s)", operation_of(longest->position), options.timeout_s);
    const std::string remedy = "resume from the last checkpoint; if the ranks were only slow, raise comm.timeout_s";
    const Peer& peer = peers[culprit];
    const bool waits_itself = !peer.position.collective.view().empty() && !silent(peer);
    if (waits_itself) {
      return decide(
          {ExitCode::peer_lost,
           fmt::format("all ranks are in {} of step {}, but it does not end: the network or a device may have "
                       "failed; {}",
                       operation_of(peer.position), peer.position.step, waited),
           remedy});
    }
    decide({ExitCode::peer_lost,
            fmt::format("rank {} on {}, step {}, {}, heartbeat {:.1f} s ago: it {}; {}", culprit,
                        options.endpoints[culprit].host.view(), peer.position.step, operation_of(peer.position),
                        peer.since_heard.seconds(),
                        silent(peer) ? "is stopped, dead or not reached" : "lives, but does not go on", waited),
            remedy});
  }

  // The judge's: the run ends with this error.
  void decide(const Error& error, const std::string& who = {}) {
    if (since_verdict) return;
    print_error(error, who);
    accept({error.code(), who + error.what(), error.remedy()});
    after_verdict();
  }

  void accept(const Error& error) {
    if (since_verdict) return;
    since_verdict.emplace();
    {
      const std::lock_guard lock(mutex);
      verdict = error;
    }
    has_verdict = true;
    changed.notify_all();
  }

  // Tells it to all ranks, again and again while this process lives. The walking thread may be where it cannot end it.
  void after_verdict() {
    const Error error = *verdict;
    if (since_verdict->seconds() > farewell_s) _exit(static_cast<int>(error.code()));
    if (may_judge()) send_to_first(peers.size(), message(Kind::verdict, error));
  }

  template <class Change>
  void move(const Change& change) {
    const std::lock_guard lock(mutex);
    change();
    ++position.event;
  }
};

Control::Control() = default;

Control::Control(Options options, std::unique_ptr<DatagramSocket> socket)
    : state_(std::make_unique<State>(std::move(options), std::move(socket))) {
  const BlockSignals block;
  state_->thread = std::thread([state = state_.get()] { state->run(); });
}

Control::~Control() {
  if (!state_) return;
  state_->ending = true;
  state_->socket->wake();
  state_->thread.join();
}

bool Control::wait_until_heard(double seconds) {
  const Stopwatch stopwatch;
  while (state_ && !state_->heard && stopwatch.seconds() < seconds) usleep(1000);
  return !state_ || state_->heard;
}

void Control::begin(Phase phase, uint64_t step) {
  if (!state_) return;
  state_->move([&] {
    state_->position.phase = phase;
    state_->position.step = step;
    state_->position.operation = ShortText();
  });
}

void Control::at(std::string_view operation) {
  if (!state_) return;
  state_->move([&] { state_->position.operation = ShortText(operation); });
  check();
}

void Control::enter_collective(std::string_view name, uint64_t number) {
  if (!state_) return;
  const std::lock_guard lock(state_->mutex);
  state_->position.collective = ShortText(name);
  state_->position.collective_number = number;
  state_->position.event = ++state_->entered * events_of_collective;
}

void Control::leave_collective() {
  if (!state_) return;
  state_->move([&] {
    state_->position.collective = ShortText();
    state_->position.operation = ShortText();
  });
}

void Control::set_overdue(std::string_view name, uint64_t number) {
  if (!state_) return;
  {
    const std::lock_guard lock(state_->mutex);
    state_->position.collective = ShortText(name);
    state_->position.collective_number = number;
  }
  state_->overdue = true;
}

void Control::check() const {
  if (!state_ || !state_->has_verdict) return;
  const std::lock_guard lock(state_->mutex);
  throw RaisedError(state_->verdict->code(), state_->verdict->what(), state_->verdict->remedy());
}

bool Control::raise(const Error& error) {
  if (!state_) return false;
  std::unique_lock lock(state_->mutex);
  if (!state_->failed) state_->failed = error;
  state_->socket->wake();
  return state_->changed.wait_for(lock, std::chrono::duration<double>(verdict_s),
                                  [this] { return state_->verdict.has_value(); });
}

bool Control::was_stopped() const {
  return state_ && state_->stopped;
}

}  // namespace nibble
