// The program of a folder's mpi_* tests: mpirun -n RANKS PROGRAM [--file=NAME_test.cpp] [GTEST_ARGUMENT...]
// With --file only the tests of that source file run.
#include <gtest/gtest.h>

#include <cstdio>
#include <set>
#include <string>
#include <string_view>

#include "dist/mpi_environment.h"

namespace nibble {
namespace {

template <class Visit>
void for_each_test(const Visit& visit) {
  const testing::UnitTest& tests = *testing::UnitTest::GetInstance();
  for (int i = 0; i < tests.total_test_suite_count(); ++i) {
    const testing::TestSuite& suite = *tests.GetTestSuite(i);
    for (int j = 0; j < suite.total_test_count(); ++j) visit(*suite.GetTestInfo(j));
  }
}

// The gtest filter of the tests in files with this name; empty where there are none.
std::string filter_of_file(std::string_view name) {
  std::string filter;
  for_each_test([&](const testing::TestInfo& test) {
    const std::string_view file = test.file();
    if (file.substr(file.find_last_of('/') + 1) != name) return;
    filter += (filter.empty() ? "" : ":") + std::string(test.test_suite_name()) + "." + test.name();
  });
  return filter;
}

}  // namespace

void MpiEnvironment::SetUp() {
  std::set<std::string> files;
  for_each_test([&](const testing::TestInfo& test) {
    if (test.should_run()) files.insert(test.file());
  });
  MpiOptions options{.timeout_s = 60};
  for (const std::string& file : files) {
    const auto wish = wishes().find(file);
    if (wish == wishes().end()) continue;
    ASSERT_EQ(files.size(), 1u) << file << " wants a communicator of its own: run the tests of one file, with --file=";
    options = wish->second;
  }
  instance() = make_mpi_communicator(options);
}

}  // namespace nibble

int main(int argument_count, char** arguments) {
  testing::InitGoogleTest(&argument_count, arguments);
  for (int i = 1; i < argument_count; ++i) {
    const std::string_view argument = arguments[i];
    const std::string_view option = "--file=";
    const std::string filter =
        argument.starts_with(option) ? nibble::filter_of_file(argument.substr(option.size())) : std::string();
    if (filter.empty()) {
      std::fprintf(stderr, "%s: no tests are in %s\n", arguments[0], arguments[i]);
      return 64;
    }
    // A filter that was given chooses among the tests of the program instead.
    if (testing::GTEST_FLAG(filter) == "*") testing::GTEST_FLAG(filter) = filter;
  }
  testing::AddGlobalTestEnvironment(new nibble::MpiEnvironment);
  return RUN_ALL_TESTS();
}
