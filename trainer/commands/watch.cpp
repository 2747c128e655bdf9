#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "trainer/commands/commands.h"
#include "trainer/page/page_server.h"

namespace nibble {

namespace {

constexpr int default_port = 8642;

struct WatchOptions {
  std::vector<std::string> runs;
  ServerOptions server{.host = "127.0.0.1", .port = default_port};
};

}  // namespace

void add_watch_options(CLI::App& command) {
  auto options = std::make_shared<WatchOptions>();
  command
      .add_option("RUN_DIR", options->runs, "Run directories, which need not exist yet; gaps are those to the first")
      ->required();
  command.add_option("--host", options->server.host, "Address to serve on")->capture_default_str();
  command.add_option("--port", options->server.port, "Port to serve on; 0 takes a free one")
      ->capture_default_str()
      ->check(CLI::Range(0, 65535));
  command.add_option("--token", options->server.token,
                     "What a reader must know; needed where --host is not this machine alone");
  command.footer(
      "Example:\n  nibble watch runs/nvfp4\n  nibble watch runs/bf16 runs/nvfp4 --port 0\n"
      "A run on another machine: start nibble watch there, and here\n"
      "  ssh -N -L 8642:127.0.0.1:8642 MACHINE\n"
      "then open http://127.0.0.1:8642/");
  command.final_callback([options] {
    serve_page(std::vector<std::filesystem::path>(options->runs.begin(), options->runs.end()), options->server);
  });
}

}  // namespace nibble
