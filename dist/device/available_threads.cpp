// Counts the threads that a process may use: its processor affinity mask, divided among the ranks on the machine, and
// the CPU quotas of its cgroups.
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "dist/base/error.h"
#include "dist/device/thread_pool.h"

namespace nibble {
namespace {

// Returns the number of processors that a process may run on; 0 if unknown.
int affinity_count(pid_t process) {
  constexpr size_t most_processors = 16384;
  cpu_set_t* set = CPU_ALLOC(most_processors);
  if (set == nullptr) return 0;
  const size_t bytes = CPU_ALLOC_SIZE(most_processors);
  CPU_ZERO_S(bytes, set);
  const int count = sched_getaffinity(process, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 0;
  CPU_FREE(set);
  return count;
}

std::optional<long> parse_long(const std::string& text) {
  long value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc()) return std::nullopt;
  return value;
}

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// Returns the number of whole processors that the quota of one cgroup directory allows; nullopt if there is no quota.
std::optional<int> quota_of(const std::string& directory, bool version2) {
  std::optional<long> quota;
  std::optional<long> period;
  if (version2) {  // "max 100000" or "150000 100000"
    const std::string line = first_line(directory + "/cpu.max");
    const size_t space = line.find(' ');
    if (space == std::string::npos) return std::nullopt;
    quota = parse_long(line.substr(0, space));
    period = parse_long(line.substr(space + 1));
  } else {
    quota = parse_long(first_line(directory + "/cpu.cfs_quota_us"));
    period = parse_long(first_line(directory + "/cpu.cfs_period_us"));
  }
  if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
  return static_cast<int>(std::clamp(*quota / *period, 1L, 1L << 20));
}

// Returns the smallest quota from a cgroup up to the root of the hierarchy. Inside a container only the root may be
// visible, and the container's own files are there.
int quota_up_to_root(const std::string& mount, std::string path, bool version2) {
  int tightest = std::numeric_limits<int>::max();
  for (;;) {
    if (const auto quota = quota_of(mount + path, version2)) tightest = std::min(tightest, *quota);
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos) return tightest;
    path.erase(slash);
  }
}

int cgroup_quota() {
  int tightest = std::numeric_limits<int>::max();
  std::ifstream groups("/proc/self/cgroup");  // lines "0::/path" (version 2) and "4:cpu,cpuacct:/path" (version 1)
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string path = line.substr(second + 1);
    if (controllers == ",,") {
      tightest = std::min(tightest, quota_up_to_root("/sys/fs/cgroup", path, true));
    } else if (controllers.find(",cpu,") != std::string::npos) {
      tightest = std::min(tightest, quota_up_to_root("/sys/fs/cgroup/cpu", path, false));
    }
  }
  return tightest;
}

// Returns true if Open MPI's launcher has given each rank processors of its own, which other ranks do not share.
bool bound_by_launcher(int own_processors) {
  return std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr && own_processors < affinity_count(getppid());
}

}  // namespace

int available_threads(int ranks_on_node) {
  NIBBLE_CHECK(ranks_on_node >= 1, "ranks on this node");
  const int processors = std::max(1, affinity_count(0));
  const int share = bound_by_launcher(processors) ? processors : processors / ranks_on_node;
  return std::max(1, std::min(share, cgroup_quota() / ranks_on_node));
}

}  // namespace nibble
