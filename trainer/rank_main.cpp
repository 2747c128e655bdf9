#include "trainer/rank_main.h"
#include "trainer/compute/run_device.h"

#include <fmt/format.h>

#include <exception>
#include <memory>
#include <optional>

#include "dist/base/log.h"
#include "dist/base/signals.h"
#include "dist/device/thread_pool.h"
#include "quant/isa/instruction_set.h"

namespace nibble {

namespace {

constexpr double start_timeout_s = 600;  // of collectives, until the configuration is known

void start_threads(const Communicator& communicator, const RunConfig& config) {
  const int threads = config.train.threads > 0 ? static_cast<int>(config.train.threads)
                                               : available_threads(communicator.ranks_on_node());
  set_compute_threads(threads, communicator.ranks_on_node());
}

// Ends the run from a rank that threw where the others did not, or that was told of such a rank. Returns the exit code.
int end_alone(Communicator& communicator, const Error& error) {
  Control& control = communicator.control();
  try {
    control.check();
    if (control.raise(error)) control.check();
  } catch (const RaisedError& of_run) {
    communicator.abort(static_cast<int>(of_run.code()));
    return static_cast<int>(of_run.code());
  }
  const bool is_silent = control.was_stopped() && error.code() == ExitCode::peer_lost;
  if (!is_silent) print_error(error, communicator.size() > 1 ? fmt::format("rank {}: ", communicator.rank()) : "");
  communicator.abort(static_cast<int>(error.code()));
  return static_cast<int>(error.code());
}

}  // namespace

int rank_main(const std::function<RunConfig()>& read_config,
              const std::function<ExitCode(Communicator&, const RunConfig&)>& body) {
  install_signal_handlers();
  std::optional<RunConfig> config;
  std::optional<Error> config_error;
  try {
    config = read_config();
  } catch (...) {
    config_error = as_error(std::current_exception());
  }
  const std::unique_ptr<Communicator> communicator =
      make_communicator(config ? config->comm.timeout_s : start_timeout_s);
  set_log_rank(communicator->rank(), communicator->size());
  try {
    run_together(*communicator, [&] {
      if (config_error) throw Error(*config_error);
      instruction_set();  // refuses a NIBBLE_ISA that this machine lacks before the run begins
      start_threads(*communicator, *config);
    });
    use_device(*communicator, *config);
    const ExitCode code = body(*communicator, *config);
    communicator->barrier();
    return static_cast<int>(code);
  } catch (const AgreedError& error) {
    // Every rank gets here with the same error: rank 0 prints it, and all ranks return normally.
    if (communicator->rank() == 0) print_error(error);
    return static_cast<int>(error.code());
  } catch (...) {
    return end_alone(*communicator, as_error(std::current_exception()));
  }
}

}  // namespace nibble
