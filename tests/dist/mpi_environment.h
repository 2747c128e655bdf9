// The communicator of a test program that runs under mpirun. Every rank runs the same tests in the same order.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>

#include "dist/ranks/mpi_communicator.h"

namespace nibble {

// tests/dist/mpi_main.cpp adds it to every program. MPI starts once a process, so all tests of a process share one
// communicator. A source file whose tests need other options than the usual ones declares them with WantsMpi.
class MpiEnvironment : public testing::Environment {
 public:
  void SetUp() override;
  void TearDown() override { instance().reset(); }

  static std::unique_ptr<Communicator>& instance() {
    static std::unique_ptr<Communicator> communicator;
    return communicator;
  }
  // The options that source files declare, by __FILE__.
  static std::map<std::string, MpiOptions>& wishes() {
    static std::map<std::string, MpiOptions> all;
    return all;
  }
};

// Declares the options of a source file: `const WantsMpi wants_mpi(__FILE__, {...});`.
struct WantsMpi {
  WantsMpi(const char* file, const MpiOptions& options) { MpiEnvironment::wishes()[file] = options; }
};

inline Communicator& communicator() {
  return *MpiEnvironment::instance();
}

}  // namespace nibble
