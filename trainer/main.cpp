// The command line: main() finds the command, runs it, and turns every error into one message and one exit code.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "dist/base/error.h"
#include "dist/base/log.h"
#include "dist/base/text.h"
#include "trainer/commands/commands.h"
#include "trainer/commands/version.h"
#include "trainer/config/user_path.h"

namespace nibble {
namespace {

// Makes writes fail with an error, instead of ending the process by a signal, when the reader of a pipe has left or
// the limit of the file size is reached. Also opens standard streams that are closed, so that no file gets their
// descriptors.
void secure_output() {
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(descriptor, F_GETFD) != -1) continue;
    if (::open("/dev/null", descriptor == STDIN_FILENO ? O_RDONLY : O_WRONLY) != descriptor) std::_Exit(70);
  }
}

// Raises the soft limit on open files to the hard limit: a run keeps many shards open (data/shards/shard_file.h), and
// the usual soft limit of 1,024 is for programs that use select(). The bound is for programs that close every
// descriptor up to the limit at their start, as those that MPI may start do.
void allow_open_files() {
  constexpr rlim_t most = rlim_t{1} << 20U;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const rlim_t wanted = std::min(limit.rlim_max, most);
  if (limit.rlim_cur >= wanted) return;
  limit.rlim_cur = wanted;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

// Refuses a mistyped command by its name: CLI11 itself would say only that a command is missing.
void check_command(const std::string& word) {
  std::vector<std::string_view> names;
  for (const Command& command : all_commands) {
    if (command.name == word) return;
    names.emplace_back(command.name);
  }
  throw Error(ExitCode::usage, fmt::format("unknown command {}", unknown_word(word, names)),
              fmt::format("the commands are {}; nibble --help explains them", fmt::join(names, ", ")));
}

// Returns the full name of the command that was being parsed, for the hint: "nibble config show".
std::string full_name(const CLI::App& app) {
  const std::vector<CLI::App*> chosen = app.get_subcommands();
  return chosen.empty() ? app.get_name() : app.get_name() + " " + full_name(*chosen.front());
}

int fail(const Error& error) {
  print_error(error);
  return static_cast<int>(error.code());
}

// Names the unknown option if there is one: CLI11 would report the missing command first and hide it.
int fail_usage(const CLI::App& app, const CLI::ParseError& error) {
  const std::vector<std::string> unknown = app.remaining(true);
  const bool hidden = dynamic_cast<const CLI::RequiredError*>(&error) != nullptr && !unknown.empty();
  return fail({ExitCode::usage, hidden ? fmt::format("unknown option {}", shown(unknown.front())) : error.what(),
               fmt::format("{} --help shows how it is used", full_name(app))});
}

// Reports standard output that could not be written. It is no error if the reader of the pipe has left.
int fail_output(const std::string& reason) {
  pollfd reader{.fd = STDOUT_FILENO, .events = POLLOUT, .revents = 0};
  if (poll(&reader, 1, 0) == 1 && (reader.revents & POLLERR) != 0) return 0;
  return fail({ExitCode::io, fmt::format("cannot write standard output: {}", reason),
               "check the disk or pipe that it goes to"});
}

int finish_output(int code) {
  const bool had_failed = std::ferror(stdout) != 0;  // errno no longer tells the reason in this case
  if (std::fflush(stdout) == 0 && !had_failed) return code;
  return code != 0 ? code : fail_output(had_failed ? "an earlier write failed" : std::strerror(errno));
}

// Arguments and options that take paths, in whichever command. In their values ~ and variables are replaced, because a
// shell leaves them where they are quoted or follow an equals sign (--output=~/shards).
constexpr std::array path_options = {"CONFIG",   "RUN_DIR",     "BASE", "RUN", "PATH", "INPUT",   "--base",   "--run",
                                     "--output", "--tokenizer", "--to", "A",   "B",    "--input", "--report", "--json"};

void expand_paths(CLI::App& command) {
  for (CLI::Option* option : command.get_options()) {
    const std::string name = option->get_name();
    const bool is_flag = option->get_type_size_max() == 0;  // most commands have a --json that is one
    if (is_flag || std::find(path_options.begin(), path_options.end(), name) == path_options.end()) continue;
    option->transform(
        [name](const std::string& written) {
          try {
            return expand_path(written);
          } catch (const Error& error) {
            throw Error(error.code(), fmt::format("{}: {}", name, error.what()), error.remedy());
          }
        },
        "");
  }
  for (CLI::App* inner : command.get_subcommands(nullptr)) expand_paths(*inner);
}

// Every command that has no commands of its own takes --quiet.
void add_quiet(CLI::App& command) {
  const std::vector<CLI::App*> inner = command.get_subcommands(nullptr);
  if (inner.empty()) {
    command.add_flag_callback("-q,--quiet", &set_quiet, "Print no messages but warnings and errors, and no progress");
  }
  for (CLI::App* each : inner) add_quiet(*each);
}

int run(int argument_count, char** arguments) {
  CLI::App app("Pretrains language models in four bits.", "nibble");
  app.set_version_flag(
      "-V,--version", [] { return version_text(build_facts); },
      "Print version, commit, compiler, instruction set, MPI, CUDA and licence, and exit");
  app.require_subcommand(1);
  app.footer(
      "Examples:\n"
      "  nibble tokenize text.zst --vocab-size 4096 --output data\n"
      "  mpirun -n 2 nibble train configs/runs/quickstart.yaml --set recipe=nvfp4\n"
      "  nibble COMMAND --help\n"
      "Exit codes: 0 done, 64 usage, 65 bad data, 66 missing input, 69 run directory in use, 70 internal error,\n"
      "  71 out of memory, 73 cannot create output, 74 I/O error, 75 checkpoint saved: start me again, 76 peer lost,\n"
      "  77 numerics gave up, 78 bad configuration.");
  for (const Command& command : all_commands) {
    command.add_options(*app.add_subcommand(command.name, command.description));
  }
  expand_paths(app);
  add_quiet(app);
  try {
    if (argument_count > 1 && arguments[1][0] != '-') check_command(arguments[1]);
    app.parse(argument_count, arguments);
    return 0;
  } catch (const CLI::RuntimeError& error) {
    return error.get_exit_code();  // the command's own exit code: it has printed the reason
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    return fail_usage(app, error);
  } catch (const std::system_error& error) {
    if (std::ferror(stdout) != 0) return fail_output(error.code().message());  // thrown by fmt::print
    return fail(as_error(std::current_exception()));
  } catch (...) {
    return fail(as_error(std::current_exception()));
  }
}

}  // namespace
}  // namespace nibble

int main(int argument_count, char** arguments) {
  try {
    nibble::secure_output();
    nibble::allow_open_files();
    return nibble::finish_output(nibble::run(argument_count, arguments));
  } catch (...) {
    return static_cast<int>(nibble::ExitCode::internal);  // the error message itself could not be written
  }
}
