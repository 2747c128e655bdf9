// The communicator of a test program that runs under mpirun. Every rank runs the same tests in the same order.
#pragma once

#include <gtest/gtest.h>

#include <memory>

#include "dist/ranks/mpi_communicator.h"

namespace nibble {

class MpiEnvironment : public testing::Environment {
 public:
  explicit MpiEnvironment(const MpiOptions& options) : options_(options) {}
  void SetUp() override { instance() = make_mpi_communicator(options_); }
  void TearDown() override { instance().reset(); }

  static std::unique_ptr<Communicator>& instance() {
    static std::unique_ptr<Communicator> communicator;
    return communicator;
  }

 private:
  MpiOptions options_;
};

inline Communicator& communicator() {
  return *MpiEnvironment::instance();
}

}  // namespace nibble
