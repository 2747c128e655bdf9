#include "dist/ranks/mpi_control.h"

#include <algorithm>
#include <random>
#include <utility>

#include "dist/base/log.h"
#include "dist/ranks/mpi_job.h"
#include "dist/watch/heartbeat.h"

namespace nibble {
namespace {

constexpr double heard_within_s = 3;
constexpr const char* set_up = "set-up of the control";

std::array<uint64_t, 2> shared_secret(MPI_Comm ranks, int rank) {
  std::array<uint64_t, 2> secret{};
  if (rank == 0) {
    std::random_device random;
    for (uint64_t& word : secret) word = (uint64_t{random()} << 32U) | random();
  }
  check_mpi(MPI_Bcast(secret.data(), sizeof(secret), MPI_BYTE, 0, ranks), set_up);
  return secret;
}

std::vector<ControlEndpoint> all_endpoints(MPI_Comm ranks, int size, const DatagramSocket* socket) {
  ControlEndpoint own;
  own.host = ShortText(host_name());
  if (socket != nullptr) own.local = socket->local_address();
  if (socket != nullptr) own.remote = socket->addresses();
  std::vector<ControlEndpoint> endpoints(static_cast<size_t>(size));
  check_mpi(MPI_Allgather(&own, sizeof(own), MPI_BYTE, endpoints.data(), sizeof(own), MPI_BYTE, ranks), set_up);
  return endpoints;
}

}  // namespace

std::unique_ptr<Control> make_mpi_control(MPI_Comm ranks, const MpiOptions& options) {
  int rank = 0;
  int size = 1;
  MPI_Comm_rank(ranks, &rank);
  MPI_Comm_size(ranks, &size);
  if (size == 1) return std::make_unique<Control>();
  std::unique_ptr<DatagramSocket> socket = options.control ? DatagramSocket::open() : nullptr;
  std::vector<ControlEndpoint> endpoints = all_endpoints(ranks, size, socket.get());
  const std::array<uint64_t, 2> secret = shared_secret(ranks, rank);
  std::unique_ptr<Control> control;
  if (std::ranges::all_of(endpoints, [](const ControlEndpoint& each) { return each.local.is_known(); })) {
    control = std::make_unique<Control>(
        Control::Options{
            .rank = rank, .timeout_s = options.timeout_s, .endpoints = std::move(endpoints), .secret = secret},
        std::move(socket));
  }
  const int heard = control && control->wait_until_heard(heard_within_s) ? 1 : 0;
  int all_heard = 0;
  check_mpi(MPI_Allreduce(&heard, &all_heard, 1, MPI_INT, MPI_MIN, ranks), set_up);
  if (all_heard != 0) return control;
  if (rank == 0 && options.control) {
    log_warning(
        "messages (UDP) do not pass between all ranks: an error of one rank ends the others only when they wait for "
        "it, "
        "and a rank that does not go on may be named wrongly; let UDP through between the machines");
  }
  return std::make_unique<Control>();
}

}  // namespace nibble
