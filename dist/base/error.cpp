#include "dist/base/error.h"

#include <fmt/format.h>

#include <new>
#include <system_error>

namespace nibble {

const char* const out_of_memory_remedy =
    "use smaller micro-batches (train.micro_batch_sequences), train.recompute=all, a smaller model, or more ranks on "
    "more machines; on a GPU also cuda.offload_optimizer=true";

Error as_error(const std::exception_ptr& exception) {
  constexpr const char* defect_remedy = "this is a defect of nibble: please report it with the command";
  try {
    std::rethrow_exception(exception);
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return {ExitCode::out_of_memory, "out of memory", out_of_memory_remedy};
  } catch (const std::system_error& error) {
    if (error.code() == std::errc::not_enough_memory) {
      return {ExitCode::out_of_memory, error.what(), out_of_memory_remedy};
    }
    return {ExitCode::io, error.what(), "check the disk and the limits of the system"};
  } catch (const std::exception& error) {
    return {ExitCode::internal, fmt::format("internal error: {}", error.what()), defect_remedy};
  } catch (...) {
    return {ExitCode::internal, "internal error: an exception of an unknown type", defect_remedy};
  }
}

void fail_check(const char* file, int line, const char* condition, const std::string& detail) {
  throw Error(ExitCode::internal, fmt::format("{}:{}: {} ({} does not hold)", file, line, detail, condition),
              "this is a defect of nibble: please report it with the command and the configuration");
}

}  // namespace nibble
