#include "trainer/rank_main.h"
#include "trainer/compute/run_device.h"

#include <fmt/format.h>

#include <cstdio>
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

}  // namespace

void print_error(const Error& error, std::string_view who) {
  fmt::print(stderr, "error[E{}]: {}{}\n", static_cast<int>(error.code()), who, error.what());
  if (!error.remedy().empty()) fmt::print(stderr, "  fix: {}\n", error.remedy());
  std::fflush(stderr);
}

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
    // Perhaps only this rank gets here: the abort keeps the others from waiting for it.
    const Error error = as_error(std::current_exception());
    const std::string who = communicator->size() > 1 ? fmt::format("rank {}: ", communicator->rank()) : "";
    print_error(error, who);
    communicator->abort(static_cast<int>(error.code()));
    return static_cast<int>(error.code());
  }
}

}  // namespace nibble
