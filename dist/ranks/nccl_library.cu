#if __has_include(<nccl.h>)
#include "dist/ranks/nccl_library.cuh"

#include <array>
#include <string_view>

#include "dist/ranks/nccl_communicator.h"

namespace nibble::cuda {
namespace {

constexpr std::array<std::string_view, 2> file_names{"libnccl.so.2", "libnccl.so"};

}  // namespace

NcclLibrary::NcclLibrary() : file(file_names) {
  if (!file.available()) return;
  const auto find = [&]<class Function>(Function*& function, const char* name) {
    function = file.function<Function>(name);
  };
  find(get_unique_id, "ncclGetUniqueId");
  find(init_rank, "ncclCommInitRankConfig");
  find(finalize, "ncclCommFinalize");
  find(destroy, "ncclCommDestroy");
  find(abort, "ncclCommAbort");
  find(get_async_error, "ncclCommGetAsyncError");
  find(error_string, "ncclGetErrorString");
  find(last_error, "ncclGetLastError");
  find(group_start, "ncclGroupStart");
  find(group_end, "ncclGroupEnd");
  find(send, "ncclSend");
  find(receive, "ncclRecv");
  find(broadcast, "ncclBroadcast");
  find(all_gather, "ncclAllGather");
  find(reduce, "ncclReduce");
}

const NcclLibrary& nccl_library() {
  static const NcclLibrary library;
  return library;
}

std::string nccl_problem() {
  return nccl_library().file.available() ? "" : nccl_library().file.reason();
}

}  // namespace nibble::cuda
#endif
