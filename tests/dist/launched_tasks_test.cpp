#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "dist/base/error.h"
#include "dist/ranks/communicator.h"

extern char** environ;  // NOLINT(readability-redundant-declaration)

namespace nibble {
namespace {

// The environment of a launcher: all variables that a launcher of this test sets are gone, and `variables` are set.
class Environment {
 public:
  explicit Environment(const std::map<std::string, std::string>& variables) {
    std::vector<std::string> names;
    for (char** entry = environ; *entry != nullptr; ++entry) {
      const std::string text = *entry;
      for (const char* prefix : {"OMPI_COMM", "PMI", "SLURM_", "FLUX_", "PALS_"}) {
        if (text.starts_with(prefix)) names.push_back(text.substr(0, text.find('=')));
      }
    }
    for (const std::string& name : names) unsetenv(name.c_str());
    for (const auto& [name, value] : variables) setenv(name.c_str(), value.c_str(), 1);
    variables_ = variables;
  }
  ~Environment() {
    for (const auto& [name, value] : variables_) unsetenv(name.c_str());
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  std::map<std::string, std::string> variables_;
};

LaunchedTasks tasks(const std::map<std::string, std::string>& variables) {
  const Environment environment(variables);
  return launched_tasks();
}

TEST(LaunchedTasks, ALoneProcessIsOne) {
  EXPECT_EQ(tasks({}).count, 1);
  EXPECT_EQ(tasks({{"SLURM_NTASKS", "4"}, {"SLURM_PROCID", "0"}, {"SLURM_JOB_ID", "7"}}).count, 1);  // batch script
  EXPECT_EQ(tasks({{"SLURM_STEP_NUM_TASKS", "1"}, {"SLURM_NTASKS", "4"}, {"SLURM_STEP_ID", "0"}}).count, 1);
  EXPECT_EQ(tasks({{"SLURM_STEP_NUM_TASKS", "many"}}).count, 1);
}

TEST(LaunchedTasks, OneOfManyIsToldByNumberOfTasksOrOwnNumber) {
  EXPECT_EQ(tasks({{"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_PROCID", "0"}}).count, 4);
  EXPECT_EQ(tasks({{"SLURM_NTASKS", "4"}, {"SLURM_STEP_ID", "0"}}).variable, "SLURM_NTASKS");
  EXPECT_EQ(tasks({{"PMI_SIZE", "3"}, {"PMI_RANK", "0"}}).count, 3);
  EXPECT_EQ(tasks({{"FLUX_JOB_SIZE", "2"}}).count, 2);
  EXPECT_EQ(tasks({{"PMIX_RANK", "5"}}).count, 6);
  EXPECT_EQ(tasks({{"PALS_RANKID", "1"}}).variable, "PALS_RANKID");
  EXPECT_EQ(tasks({{"SLURM_PROCID", "1"}}).count, 2);
}

TEST(LaunchedTasks, TheNearestLauncherCounts) {
  EXPECT_EQ(tasks({{"OMPI_COMM_WORLD_SIZE", "1"}, {"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_PROCID", "2"}}).count, 1);
}

TEST(LaunchedTasks, OneOfManyWithoutMpiIsRefused) {
  const Environment environment(std::map<std::string, std::string>{{"SLURM_STEP_NUM_TASKS", "4"}});
  try {
    make_communicator(0);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_config);
    EXPECT_NE(std::string(error.what()).find("one of 4 tasks"), std::string::npos);
  }
}

}  // namespace
}  // namespace nibble
