// Small messages between the processes of a run, which may get lost: UDP over IPv4. Nothing here waits for a peer.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

namespace nibble {

// An IPv4 address and a port, in the byte order of the network; 0 is no address.
struct DatagramAddress {
  uint32_t host = 0;
  uint16_t port = 0;
  bool is_known() const { return host != 0; }
};

class DatagramSocket {
 public:
  // Returns a socket on a free port of all interfaces; null if this machine does not allow it.
  static std::unique_ptr<DatagramSocket> open();
  ~DatagramSocket();
  DatagramSocket(const DatagramSocket&) = delete;
  DatagramSocket& operator=(const DatagramSocket&) = delete;

  // Where processes of this machine reach the socket.
  DatagramAddress local_address() const;
  // Where processes of other machines may reach it: an address of each interface, unknown ones after the last.
  static constexpr size_t most_addresses = 4;
  std::array<DatagramAddress, most_addresses> addresses() const;

  void send(std::span<const std::byte> message, const DatagramAddress& to) const;
  struct Received {
    size_t bytes = 0;
    DatagramAddress from;
  };
  // Returns the next message that has arrived, cut off at the end of `memory`; nullopt if there is none.
  std::optional<Received> receive(std::span<std::byte> memory) const;
  // Waits for a message, for wake() or for this time.
  void wait(int milliseconds) const;
  // Ends wait(); any thread may call it.
  void wake() const;

 private:
  DatagramSocket(int socket, int event, uint16_t port) : socket_(socket), event_(event), port_(port) {}

  int socket_;
  int event_;
  uint16_t port_;
};

}  // namespace nibble
