#include "trainer/page/page_server.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <httplib.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <random>
#include <set>
#include <thread>

#include "dist/base/error.h"
#include "dist/base/hash.h"
#include "trainer/page/live_page.h"
#include "trainer/page/page.h"

namespace nibble {

namespace {

std::string random_nonce() {
  std::random_device source;
  std::string digits;
  for (int i = 0; i < 4; ++i) digits += fmt::format("{:08x}", source());
  return digits;
}

// Compares in a time that does not depend on how much of the text is right.
bool equal_in_constant_time(const std::string& given, const std::string& wanted) {
  unsigned difference = given.size() == wanted.size() ? 0 : 1;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const char other = i < given.size() ? given[i] : '\0';
    difference |= static_cast<unsigned char>(other ^ wanted[i]);
  }
  return difference == 0;
}

// Returns the host of a Host header, without its port and without the brackets of an IPv6 address.
std::string host_of(const std::string& header) {
  if (!header.empty() && header.front() == '[') return header.substr(1, header.find(']') - 1);
  return header.substr(0, header.find(':'));
}

std::string url_of(const ServerOptions& options, int port) {
  const bool version_6 = options.host.find(':') != std::string::npos;
  const std::string token = options.token.empty() ? "" : "?token=" + options.token;
  return fmt::format("http://{}:{}/{}", version_6 ? "[" + options.host + "]" : options.host, port, token);
}

void refuse(httplib::Response& response, int status, const std::string& reason) {
  response.status = status;
  response.set_content(reason + "\n", "text/plain; charset=utf-8");
}

// The library would compress a plain body, in the encoding that takes longest; a provider's it leaves as it is.
void send(httplib::Response& response, std::string body, const char* type) {
  const size_t size = body.size();
  response.set_content_provider(size, type,
                                [body = std::move(body)](size_t offset, size_t length, httplib::DataSink& sink) {
                                  return sink.write(body.data() + offset, length);
                                });
}

bool is_allowed(const httplib::Request& request, const ServerOptions& options, httplib::Response& response) {
  if (request.method != "GET" && request.method != "HEAD") {
    response.set_header("Allow", "GET, HEAD");
    refuse(response, 405, "this server only answers GET and HEAD");
    return false;
  }
  if (is_loopback(options.host) && !is_loopback(host_of(request.get_header_value("Host")))) {
    refuse(response, 403, "the page is for this machine: open it as http://127.0.0.1:PORT/");
    return false;
  }
  if (options.token.empty()) return true;
  constexpr std::string_view bearer = "Bearer ";
  const std::string header = request.get_header_value("Authorization");
  const bool in_header = header.starts_with(bearer);
  const std::string given = in_header ? header.substr(bearer.size()) : request.get_param_value("token");
  if (equal_in_constant_time(given, options.token)) return true;
  response.set_header("WWW-Authenticate", "Bearer");
  refuse(response, 401, "the token is missing or wrong: open the address that nibble watch has printed");
  return false;
}

std::set<std::string, std::less<>> words(const std::string& list) {
  std::set<std::string, std::less<>> found;
  for (size_t at = 0; at <= list.size();) {
    const size_t end = std::min(list.find(',', at), list.size());
    found.insert(list.substr(at, end - at));
    at = end + 1;
  }
  return found;
}

void set_routes(httplib::Server& server, LivePage& page, const ServerOptions& options) {
  server.set_keep_alive_max_count(1);  // a browser that keeps connections open would keep threads
  server.set_payload_max_length(4096);
  // The library's default lets two processes listen on one port.
  server.set_socket_options([](socket_t socket) {
    const int yes = 1;
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  });
  server.set_default_headers({{"X-Content-Type-Options", "nosniff"},
                              {"X-Frame-Options", "DENY"},
                              {"Referrer-Policy", "no-referrer"},
                              {"Cross-Origin-Resource-Policy", "same-origin"},
                              {"Cache-Control", "no-store"}});
  server.set_pre_routing_handler([&options](const httplib::Request& request, httplib::Response& response) {
    const bool allowed = is_allowed(request, options, response);
    return allowed ? httplib::Server::HandlerResponse::Unhandled : httplib::Server::HandlerResponse::Handled;
  });
  // A method that the library does not know ends here as a malformed request.
  const httplib::Server::Handler explain = [&options](const httplib::Request& request, httplib::Response& response) {
    if (response.status == 400 && !request.method.empty()) is_allowed(request, options, response);
    if (response.status == 404) refuse(response, 404, "there is no such page: / is the only one");
  };
  server.set_error_handler(explain);
  server.Get("/", [&page](const httplib::Request&, httplib::Response& response) {
    const PageFrame frame{.title = {}, .nonce = random_nonce(), .live = true};
    response.set_header("Content-Security-Policy", content_security_policy(frame) + "; frame-ancestors 'none'");
    send(response, page.html(frame.nonce), "text/html; charset=utf-8");
  });
  server.Get("/data.json", [&page](const httplib::Request& request, httplib::Response& response) {
    response.set_header("Content-Security-Policy", "default-src 'none'");
    send(response, page.news(words(request.get_param_value("have"))), "application/json");
  });
}

int bind_server(httplib::Server& server, const ServerOptions& options) {
  errno = 0;
  const int port = options.port == 0                                 ? server.bind_to_any_port(options.host)
                   : server.bind_to_port(options.host, options.port) ? options.port
                                                                     : -1;
  const int reason = errno;
  if (port > 0) return port;
  if (reason == EADDRINUSE) {
    throw Error(ExitCode::directory_in_use, fmt::format("port {} of {} is in use", options.port, options.host),
                "name another port, or let --port 0 take a free one");
  }
  throw Error(ExitCode::cannot_create,
              fmt::format("cannot serve on port {} of {}: {}", options.port, options.host,
                          reason == 0 ? "there is no such address" : std::strerror(reason)),
              "--host names an address of this machine, and --port a number above 1023");
}

void check(const ServerOptions& options) {
  const auto is_plain = [](unsigned char letter) { return std::isalnum(letter) || std::strchr("-._~", letter); };
  if (!std::all_of(options.token.begin(), options.token.end(), is_plain)) {
    throw Error(ExitCode::usage, "--token has characters that an address cannot have",
                "write it with letters, digits and - . _ ~");
  }
  if (options.token.empty() && !is_loopback(options.host)) {
    throw Error(ExitCode::usage,
                fmt::format("--host {}: whoever reaches this machine could read the runs", options.host),
                "set a token (--token \"$(openssl rand -hex 16)\"), or leave out --host and come by an ssh tunnel");
  }
}

// Takes SIGINT and SIGTERM from all threads that are begun while it lives, and stops the server when one comes.
class StopOnSignal {
 public:
  explicit StopOnSignal(httplib::Server& server) : server_(server) {
    sigemptyset(&signals_);
    for (const int number : {SIGINT, SIGTERM}) sigaddset(&signals_, number);
    pthread_sigmask(SIG_BLOCK, &signals_, &before_);
    thread_ = std::thread([this] { wait(); });
  }
  ~StopOnSignal() {
    ended_ = true;
    thread_.join();
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  StopOnSignal(const StopOnSignal&) = delete;
  StopOnSignal& operator=(const StopOnSignal&) = delete;

 private:
  void wait() {
    const timespec moment{.tv_sec = 0, .tv_nsec = 100'000'000};
    bool stopping = false;
    while (!ended_) {
      if (sigtimedwait(&signals_, nullptr, &moment) > 0) stopping = true;
      if (stopping) server_.stop();  // has no effect on a server that has not begun to listen
    }
  }

  httplib::Server& server_;
  sigset_t signals_{}, before_{};
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

}  // namespace

bool is_loopback(const std::string& host) {
  in_addr version_4{};
  if (inet_pton(AF_INET, host.c_str(), &version_4) == 1) return (ntohl(version_4.s_addr) >> 24U) == 127;
  return host == "localhost" || host == "::1";
}

void serve_page(const std::vector<std::filesystem::path>& directories, const ServerOptions& asked) {
  check(asked);
  ServerOptions options = asked;
  if (options.host == "localhost") options.host = "127.0.0.1";
  LivePage page(directories);
  httplib::Server server;
  set_routes(server, page, options);
  const int port = bind_server(server, options);
  const StopOnSignal stop(server);
  fmt::print("{} shows {}; Ctrl-C ends it\n", url_of(options, port),
             directories.size() == 1 ? "the run" : fmt::format("{} runs", directories.size()));
  std::fflush(stdout);
  if (!server.listen_after_bind()) {
    throw Error(ExitCode::io, fmt::format("the server of port {} has failed", port), "start it again");
  }
}

}  // namespace nibble
