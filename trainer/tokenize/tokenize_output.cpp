#include "trainer/tokenize/tokenize_output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "data/shards/shard.h"
#include "dist/base/error.h"
#include "dist/base/file.h"
#include "dist/base/file_descriptor.h"
#include "dist/base/file_system.h"
#include "dist/base/log.h"
#include "trainer/directory/directory_lock.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view scratch_name = "scratch";
constexpr std::string_view kept_name = "scratch/kept";
constexpr uint64_t largest_kept = 64ULL << 20U;
constexpr std::array prefixes = {std::string_view("train-"), std::string_view("validation-")};

bool looks_like_a_shard(std::string_view name) {
  return name.ends_with(".bin") && std::any_of(prefixes.begin(), prefixes.end(),
                                               [&](std::string_view prefix) { return name.starts_with(prefix); });
}

// Names that ShardSeries gives: train-00012.bin.
bool has_name_of_a_series(std::string_view name) {
  if (!looks_like_a_shard(name)) return false;
  const std::string_view stem = name.substr(0, name.size() - 4);
  const std::string_view number = stem.substr(stem.find('-') + 1);
  return number.size() >= 5 && number.find_first_not_of("0123456789") == std::string_view::npos;
}

bool is_regular(const fs::path& path) {
  std::error_code error;
  return fs::symlink_status(path, error).type() == fs::file_type::regular;
}

std::vector<std::byte> start_of(const fs::path& path) {
  const InputFile file(path);
  std::vector<std::byte> start(std::min(file.size(), ShardHeader::bytes));
  file.read(0, start);
  return start;
}

std::optional<Hash128> tokenizer_of_shard(const fs::path& path) {
  try {
    return ShardHeader::parse(start_of(path), fs::file_size(path), path.string()).tokenizer;
  } catch (const std::exception&) {
    return std::nullopt;  // a damaged shard names no tokenizer
  }
}

std::optional<Hash128> hash_of_file(const fs::path& path) {
  try {
    return Tokenizer::hash_of_file(path);
  } catch (const Error&) {
    return std::nullopt;
  }
}

[[noreturn]] void refuse_foreign(const fs::path& path, std::string_view why) {
  throw Error(ExitCode::cannot_create, fmt::format("{} is in the way: {}", path.string(), why),
              "move it elsewhere, or name another --output; nibble replaces only what nibble tokenize wrote");
}

// Adds a tokenizer that an earlier call left in the directory, with its options, to that call's `output`.
void find_earlier_tokenizer(const fs::path& tokenizer, const Tokenizer* given, std::vector<fs::path>& output) {
  std::error_code error;
  const auto exists = [&](const fs::path& path) {
    return fs::symlink_status(path, error).type() != fs::file_type::not_found;
  };
  const fs::path options = Tokenizer::options_path(tokenizer);
  if (!exists(tokenizer)) {
    if (exists(options)) refuse_foreign(options, "the tokenizer that it belongs to is not there");
    return;
  }
  const std::optional<Hash128> hash = is_regular(tokenizer) ? hash_of_file(tokenizer) : std::nullopt;
  const bool is_own = hash && std::any_of(output.begin(), output.end(),
                                          [&](const fs::path& shard) { return tokenizer_of_shard(shard) == hash; });
  const bool is_given = hash && given != nullptr && given->hash() == *hash;
  if (!is_own && !is_given) refuse_foreign(tokenizer, "no shard beside it was made with it");
  if (!is_own) return;
  output.push_back(tokenizer);
  if (exists(options)) output.push_back(options);
}

// Returns what an earlier call left in the directory.
std::vector<fs::path> earlier_output(const fs::path& directory, const Tokenizer* given) {
  std::vector<fs::path> output, spared;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    const fs::path& path = entry.path();
    const std::string name = path.filename().string();
    if (has_name_of_a_series(name)) {
      if (!is_regular(path)) refuse_foreign(path, "it is no regular file");
      if (!ShardHeader::recognises(start_of(path))) refuse_foreign(path, "it is not a shard that nibble wrote");
      output.push_back(path);
    } else if (looks_like_a_shard(name)) {
      spared.push_back(path);
    }
  }
  if (error) {
    throw Error(ExitCode::cannot_create, fmt::format("{}: cannot list it: {}", directory.string(), error.message()),
                "name a directory that may be read and written");
  }
  for (const fs::path& path : spared) {
    log_warning(
        "{} is not from nibble tokenize and stays; a pattern such as train-*.bin or validation-*.bin may match it",
        path.string());
  }
  std::vector<fs::path> all = output;
  for (const std::string_view name : Tokenizer::file_names) {
    std::vector<fs::path> found = output;  // shards
    find_earlier_tokenizer(directory / name, given, found);
    all.insert(all.end(), found.begin() + static_cast<std::ptrdiff_t>(output.size()), found.end());
  }
  return all;
}

// Creates a directory and its parents; returns those that did not exist, the outermost first.
std::vector<fs::path> make_missing_directories(const fs::path& directory) {
  std::vector<fs::path> made;
  std::error_code error;
  for (fs::path path = directory; !path.empty() && !fs::exists(path, error); path = path.parent_path()) {
    made.insert(made.begin(), path);
    if (path == path.parent_path()) break;
  }
  make_directories(directory);
  return made;
}

struct Move {
  fs::path from, to;
};

void move(const Move& file) {
  if (std::rename(file.from.c_str(), file.to.c_str()) != 0) fail_output("replace", file.to, errno);
}

}  // namespace

struct TokenizeOutput::State {
  fs::path directory;
  fs::path folder;
  std::vector<fs::path> made;  // directories
  std::vector<fs::path> earlier;
  DirectoryLock lock;
  std::mutex mutex;  // held while files are moved and removed
  bool published = false;
  std::string call;
  std::optional<std::string> kept;
  sigset_t signals{};
  std::jthread watcher;

  // Returns what an earlier call with the same inputs and options has kept.
  std::optional<std::string> read_kept() const {
    std::error_code error;
    const fs::path path = folder / kept_name;
    if (!fs::is_regular_file(path, error)) return std::nullopt;
    const std::string text = read_file(path, largest_kept);
    if (text.starts_with(call + "\n")) return text.substr(call.size() + 1);
    log_warning("what a stopped call has left in {} is of other inputs or options, and is removed", directory.string());
    return std::nullopt;
  }

  // Removes what is not published. Another thread may write meanwhile, if a signal ends the process.
  void clean_up() {
    if (kept && !published) {
      lock = DirectoryLock();
      log_warning("what is done stays in {}: the same command goes on from there", folder.string());
      return;
    }
    for (int attempt = 0; attempt < 3 && !folder.empty() && !remove_tree(folder); ++attempt) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    lock = DirectoryLock();
    if (published) return;
    for (auto path = made.rbegin(); path != made.rend(); ++path) ::rmdir(path->c_str());  // only if it is empty
  }

  void watch_signals();
};

void TokenizeOutput::State::watch_signals() {
  sigemptyset(&signals);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action {};
    sigaction(number, nullptr, &action);
    if (action.sa_handler != SIG_IGN) sigaddset(&signals, number);
  }
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  watcher = std::jthread([this](const std::stop_token& stop) {
    constexpr timespec pause{.tv_sec = 0, .tv_nsec = 100'000'000};
    while (!stop.stop_requested()) {
      const int number = sigtimedwait(&signals, nullptr, &pause);
      if (number <= 0) continue;
      const std::lock_guard guard(mutex);
      if (published) continue;
      clean_up();
      log_warning("stopped by signal {}: {} is as it was before", number, directory.string());
      _exit(128 + number);
    }
  });
}

TokenizeOutput::TokenizeOutput(const fs::path& directory, bool overwrite, const Tokenizer* given, std::string call)
    : state_(std::make_unique<State>()) {
  State& state = *state_;
  state.call = std::move(call);
  // A slash at the end would make the last name empty.
  state.directory = directory.has_filename() ? directory : directory.parent_path();
  state.watch_signals();
  try {
    {
      const std::lock_guard guard(state.mutex);
      state.made = make_missing_directories(state.directory);
      state.lock = DirectoryLock(state.directory / ".tokenize.lock",
                                 {.remedy = "wait for that nibble tokenize to end, or name another --output"});
    }
    state.earlier = earlier_output(state.directory, given);
    if (!state.earlier.empty() && !overwrite) {
      throw Error(ExitCode::cannot_create, fmt::format("{}: already exists", state.earlier.front().string()),
                  "name another --output, or replace the shards and the tokenizer there with --overwrite");
    }
    const std::lock_guard guard(state.mutex);
    state.folder = state.directory / ".tokenize.partial";
    state.kept = state.read_kept();
    if (!state.kept) remove_tree(state.folder);  // left by a call that was killed
    make_directories(scratch());
  } catch (...) {
    const std::lock_guard guard(state.mutex);
    state.clean_up();
    throw;
  }
}

TokenizeOutput::~TokenizeOutput() {
  state_->watcher.request_stop();
  state_->watcher.join();
  state_->clean_up();
}

const fs::path& TokenizeOutput::folder() const {
  return state_->folder;
}

fs::path TokenizeOutput::scratch() const {
  return state_->folder / scratch_name;
}

const std::optional<std::string>& TokenizeOutput::kept() const {
  return state_->kept;
}

void TokenizeOutput::keep(const std::string& text) {
  write_file(state_->folder / kept_name, state_->call + "\n" + text);
  const std::lock_guard guard(state_->mutex);
  state_->kept = text;
}

void TokenizeOutput::publish() {
  State& state = *state_;
  const std::lock_guard guard(state.mutex);
  std::vector<Move> moves;
  const fs::path aside = state.folder / "earlier";
  for (const auto& entry : fs::directory_iterator(state.folder)) {
    if (entry.is_directory()) continue;
    moves.push_back({entry.path(), state.directory / entry.path().filename()});
  }
  std::sort(moves.begin(), moves.end(), [](const Move& a, const Move& b) { return a.to < b.to; });
  make_directories(aside);
  for (const fs::path& path : state.earlier) moves.insert(moves.begin(), {path, aside / path.filename()});
  size_t done = 0;
  try {
    for (; done < moves.size(); ++done) move(moves[done]);
    sync_path(state.directory);
  } catch (...) {
    while (done-- > 0) std::rename(moves[done].to.c_str(), moves[done].from.c_str());
    throw;
  }
  state.published = true;
}

}  // namespace nibble
