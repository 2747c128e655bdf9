// Errors and exit codes. A failure that a user can cause is an Error: it says what happened and where, what to do about
// it, and the exit code, which scripts may rely on (docs/operations.md). Any other failure is a defect: exit code 70.
#pragma once

#include <cstdint>
#include <exception>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace nibble {

enum class ExitCode : int {
  ok = 0,
  usage = 64,
  bad_data = 65,  // damaged or malformed data, shard or checkpoint
  missing_input = 66,
  directory_in_use = 69,
  internal = 70,
  out_of_memory = 71,
  cannot_create = 73,
  io = 74,
  start_again = 75,  // a checkpoint is saved; start the run again
  peer_lost = 76,    // a rank died or a collective timed out
  numerics = 77,
  bad_config = 78,
};

class Error : public std::runtime_error {
 public:
  // `what` is one sentence that names the thing and the place; `remedy` is one that tells what to do, or empty.
  Error(ExitCode code, const std::string& what, std::string remedy = {})
      : std::runtime_error(what), code_(code), remedy_(std::move(remedy)) {}
  ExitCode code() const { return code_; }
  const std::string& remedy() const { return remedy_; }

 private:
  ExitCode code_;
  std::string remedy_;
};

// The remedy of ExitCode::out_of_memory in a run, for memory of the machine or of the GPU.
extern const char* const out_of_memory_remedy;

// Returns any exception as an Error; an Error is returned unchanged. Other exceptions get one of three exit codes:
// out_of_memory for std::bad_alloc and for a std::system_error whose reason is a lack of memory, io for every other
// std::system_error (std::filesystem::filesystem_error and std::ios_base::failure are such), and internal for all else.
// `exception` is not null.
Error as_error(const std::exception_ptr& exception);

[[noreturn]] void fail_check(const char* file, int line, const char* condition, const std::string& detail);

// Checks a condition that only a defect of nibble can break. The check is never compiled out.
#define NIBBLE_CHECK(condition, detail)                                               \
  do {                                                                                \
    if (!(condition)) ::nibble::fail_check(__FILE__, __LINE__, #condition, (detail)); \
  } while (false)

// Converts an integer; fails (NIBBLE_CHECK) if the value would change.
template <class To, class From>
To narrow(From value) {
  static_assert(std::is_integral_v<To> && std::is_integral_v<From>);
  const To result = static_cast<To>(value);
  NIBBLE_CHECK(static_cast<From>(result) == value && (result < To{}) == (value < From{}), "integer out of range");
  return result;
}

// Returns a * b; fails (NIBBLE_CHECK) if the product does not fit.
inline uint64_t checked_multiply(uint64_t a, uint64_t b) {
  uint64_t product = 0;
  NIBBLE_CHECK(!__builtin_mul_overflow(a, b, &product), "size overflows 64 bits");
  return product;
}

template <class Integer>
constexpr Integer div_ceil(Integer a, Integer b) {
  return (a + b - 1) / b;
}

template <class Integer>
constexpr Integer round_up(Integer value, Integer multiple) {
  return div_ceil(value, multiple) * multiple;
}

}  // namespace nibble
