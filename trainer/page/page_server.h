// Serves a live page over HTTP, read-only: `/` is the page and `/data.json?have=TAG,TAG` what is new in it.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace nibble {

struct ServerOptions {
  std::string host = "127.0.0.1";  // an address of this machine, or a name of one
  int port = 0;                    // 0: one that is free
  std::string token = {};          // what requests must bring; "": none, for loopback only
};

// Whether the host is this machine alone: localhost, ::1 or an address of 127.0.0.0/8.
bool is_loopback(const std::string& host);

// Prints the page's address on one line of standard output and serves it until SIGINT or SIGTERM. Throws
// ExitCode::usage if the host is not loopback and there is no token, or if the token has characters that an address
// cannot have; directory_in_use if the port is taken; cannot_create if the address cannot be served for another reason.
//
// Requests other than GET and HEAD get 405, other paths 404. With a token, requests without it (as ?token= or as
// "Authorization: Bearer") get 401. On loopback the Host of a request must be loopback too, else it gets 403: so a page
// of somebody else's, whose name leads to this machine, cannot read the runs.
void serve_page(const std::vector<std::filesystem::path>& directories, const ServerOptions& options);

}  // namespace nibble
