#include "dist/watch/datagram_socket.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>

namespace nibble {
namespace {

sockaddr_in system_address(const DatagramAddress& address) {
  sockaddr_in result{};
  result.sin_family = AF_INET;
  result.sin_port = address.port;
  result.sin_addr.s_addr = address.host;
  return result;
}

}  // namespace

std::unique_ptr<DatagramSocket> DatagramSocket::open() {
  const int socket = ::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (socket < 0) return nullptr;
  const sockaddr_in any = system_address({.host = htonl(INADDR_ANY), .port = 0});
  sockaddr_in bound{};
  socklen_t length = sizeof(bound);
  const bool is_bound = ::bind(socket, reinterpret_cast<const sockaddr*>(&any), sizeof(any)) == 0 &&
                        ::getsockname(socket, reinterpret_cast<sockaddr*>(&bound), &length) == 0;
  const int event = is_bound ? ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC) : -1;
  if (event < 0) {
    ::close(socket);
    return nullptr;
  }
  return std::unique_ptr<DatagramSocket>(new DatagramSocket(socket, event, bound.sin_port));
}

DatagramSocket::~DatagramSocket() {
  ::close(socket_);
  ::close(event_);
}

DatagramAddress DatagramSocket::local_address() const {
  return {.host = htonl(INADDR_LOOPBACK), .port = port_};
}

std::array<DatagramAddress, DatagramSocket::most_addresses> DatagramSocket::addresses() const {
  std::array<DatagramAddress, most_addresses> result{};
  ifaddrs* interfaces = nullptr;
  if (::getifaddrs(&interfaces) != 0) return result;
  size_t count = 0;
  for (const ifaddrs* each = interfaces; each != nullptr && count < result.size(); each = each->ifa_next) {
    if (each->ifa_addr == nullptr || each->ifa_addr->sa_family != AF_INET) continue;
    if ((each->ifa_flags & IFF_UP) == 0 || (each->ifa_flags & IFF_LOOPBACK) != 0) continue;
    sockaddr_in address{};
    __builtin_memcpy(&address, each->ifa_addr, sizeof(address));
    result[count++] = {.host = address.sin_addr.s_addr, .port = port_};
  }
  ::freeifaddrs(interfaces);
  return result;
}

void DatagramSocket::send(std::span<const std::byte> message, const DatagramAddress& to) const {
  const sockaddr_in address = system_address(to);
  // A message that is lost is sent again by whoever needs it, so the result does not matter.
  static_cast<void>(::sendto(socket_, message.data(), message.size(), MSG_NOSIGNAL,
                             reinterpret_cast<const sockaddr*>(&address), sizeof(address)));
}

std::optional<DatagramSocket::Received> DatagramSocket::receive(std::span<std::byte> memory) const {
  sockaddr_in from{};
  socklen_t length = sizeof(from);
  for (int attempt = 0; attempt < 16; ++attempt) {  // an earlier message that nobody took is reported as an error here
    const ssize_t bytes =
        ::recvfrom(socket_, memory.data(), memory.size(), 0, reinterpret_cast<sockaddr*>(&from), &length);
    if (bytes >= 0) return Received{static_cast<size_t>(bytes), {from.sin_addr.s_addr, from.sin_port}};
    if (errno == EAGAIN || errno == EWOULDBLOCK) break;
  }
  return std::nullopt;
}

void DatagramSocket::wait(int milliseconds) const {
  std::array<pollfd, 2> watched{
      {{.fd = socket_, .events = POLLIN, .revents = 0}, {.fd = event_, .events = POLLIN, .revents = 0}}};
  ::poll(watched.data(), watched.size(), milliseconds);
  uint64_t count = 0;
  if ((watched[1].revents & POLLIN) != 0) static_cast<void>(::read(event_, &count, sizeof(count)) < 0);
}

void DatagramSocket::wake() const {
  const uint64_t one = 1;
  static_cast<void>(::write(event_, &one, sizeof(one)) < 0);
}

}  // namespace nibble
