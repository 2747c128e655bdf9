// Checks the loads and stores of kernels. The .cu files are compiled with -fsanitize=thread and -fsanitize=alignment,
// but linked without the sanitizers' libraries: the functions that the compiler then calls at each load, store and
// atomic operation, and where an address is not aligned to its type, are those at the end of this file.
//
// A thread of a kernel may touch device memory and pinned memory, inside one allocation; its own stack; the block's
// shared memory; and, to read, the program's constants. Static shared memory is thread-local in the simulator, so that
// it can be told from the variables of the host. Two threads race if both touch a byte of shared memory, one of them
// writes, and no barrier of the block, or __syncwarp() where they are of one warp, lies between: whatever the order in
// which the simulator happens to run them. Atomic operations are no races.
#include "accesses.h"

#include <cuda_runtime.h>
#include <link.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <vector>

namespace simulator {

namespace {

enum class Access { read, write, atomic };

constexpr unsigned warp_lanes = 32;
constexpr unsigned most_warps = 32;

// When a byte of shared memory was touched, and by whom.
struct Stamp {
  uint32_t epoch = 0;        // number of barriers before; 0 is before all
  uint32_t warp_epoch = 0;   // number of __syncwarp() of the thread's warp before
  uint16_t thread = 0;       // in the block
  bool other_lanes = false;  // of the same warp have read, too, in this epoch of the warp
  bool other_warps = false;  // have read, too, in this epoch
};
struct Touched {
  Stamp written, read;
};
// A word of shared memory. Its bytes have records of their own from the first time that less than all of it was
// touched; they lie apart, because few words need them.
constexpr size_t word_bytes = 4;
struct SharedWord {
  Touched whole;
  bool is_split = false;
};
using BytesOfWord = std::array<Touched, word_bytes>;

template <class T>
struct Freed {
  void operator()(T* memory) const { std::free(memory); }
};
// Zeros, of which the system makes no pages before they are touched.
template <class T>
using Records = std::unique_ptr<T[], Freed<T>>;
template <class T>
Records<T> make_records(size_t count) {
  Records<T> records(static_cast<T*>(std::calloc(count, sizeof(T))));
  if (records == nullptr) fail("no memory for the records of shared memory");
  return records;
}

// The program's constants and thread-local variables.
struct Image {
  std::vector<Range> constants;
  Range thread_local_variables;
};

int read_image(dl_phdr_info* info, size_t /*size*/, void* image) {
  Image& found = *static_cast<Image*>(image);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& segment = info->dlpi_phdr[i];
    const Range range{info->dlpi_addr + segment.p_vaddr, segment.p_memsz};
    const bool constant = segment.p_type == PT_LOAD && (segment.p_flags & PF_W) == 0;
    if (constant || segment.p_type == PT_GNU_RELRO) found.constants.push_back(range);
    if (segment.p_type == PT_TLS) {
      found.thread_local_variables = {reinterpret_cast<uintptr_t>(info->dlpi_tls_data), segment.p_memsz};
    }
  }
  return 1;  // the program itself comes first, and is enough
}

struct State {
  const void* function = nullptr;
  Range dynamic_shared;
  Image image;
  // Allocations that have been touched: a look at these is cheaper than one at all.
  std::array<Range, 4> recent;
  size_t oldest = 0;
  Records<SharedWord> shared;  // first the dynamic memory
  Records<BytesOfWord> split;
  size_t shared_words = 0;
  uint32_t epoch = 0;
  std::array<uint32_t, most_warps> warp_epoch{};
};
State state;
thread_local const CheckedThread* current = nullptr;

const char* verb(Access access) {
  return access == Access::read ? "reads" : "writes";
}

std::string thread_name(unsigned number) {
  const unsigned x = number % blockDim.x;
  const unsigned y = number / blockDim.x % blockDim.y;
  const unsigned z = number / blockDim.x / blockDim.y;
  return "thread (" + std::to_string(x) + ", " + std::to_string(y) + ", " + std::to_string(z) + ")";
}

[[noreturn]] void refuse(unsigned number, const std::string& what) {
  fail(name_of_function(state.function) + ": " + thread_name(number) + " of block (" + std::to_string(blockIdx.x) +
       ", " + std::to_string(blockIdx.y) + ", " + std::to_string(blockIdx.z) + ") " + what);
}

[[noreturn]] void refuse_address(unsigned thread, uintptr_t at, size_t bytes, Access access) {
  const std::string what = std::string(verb(access)) + " " + std::to_string(bytes) + " bytes ";
  if (const Range allocation = allocation_at(at); allocation.bytes > 0) {
    refuse(thread, what + "at offset " + std::to_string(at - allocation.begin) + " of an allocation of " +
                       std::to_string(allocation.bytes) + " bytes");
  }
  for (const Range& range : {state.dynamic_shared, state.image.thread_local_variables}) {
    if (range.holds(at, 1)) refuse(thread, what + "beyond the end of shared memory");
  }
  for (const Range& range : state.image.constants) {
    if (range.holds(at, 1)) refuse(thread, what + "of a constant");
  }
  refuse(thread, what + "of the host's memory, of another thread's stack, or of no memory at all");
}

bool is_ordered(const Stamp& stamp, const CheckedThread& thread) {
  if (stamp.epoch != state.epoch || stamp.thread == thread.number) return true;
  const unsigned warp = thread.number / warp_lanes;
  return stamp.thread / warp_lanes == warp && stamp.warp_epoch != state.warp_epoch[warp];
}

[[noreturn]] void refuse_race(unsigned thread, size_t at, Access access, const Stamp& other, const char* what) {
  current = nullptr;
  const bool dynamic = at < state.dynamic_shared.bytes;
  const std::string place =
      dynamic ? "byte " + std::to_string(at) + " of dynamic shared memory" : "static shared memory";
  refuse(thread, std::string(verb(access)) + " " + place + ", which " + thread_name(other.thread) + " has " + what +
                     " without a barrier between");
}

void note_read(Stamp& read, Stamp now) {
  if (read.epoch == now.epoch) {
    now.other_warps = read.other_warps;
    if (read.thread / warp_lanes != now.thread / warp_lanes) {
      read.other_warps = true;
      return;
    }
    now.other_lanes = read.warp_epoch == now.warp_epoch && (read.thread != now.thread || read.other_lanes);
  }
  read = now;
}

// Returns whether warps have read the word since the last barrier, and none has written it: one more read is no news.
bool is_only_read(const SharedWord& word) {
  const Touched& record = word.whole;
  return !word.is_split && record.read.other_warps && record.read.epoch == state.epoch &&
         record.written.epoch != state.epoch;
}

// `at`: offset in shared memory.
void touch_record(Touched& record, size_t at, Access access, const CheckedThread& thread, const Stamp& now) {
  if (!is_ordered(record.written, thread)) refuse_race(thread.number, at, access, record.written, "written");
  if (access == Access::read) return note_read(record.read, now);
  const Stamp& read = record.read;
  const bool others =
      read.epoch == now.epoch && (read.other_warps || (read.other_lanes && read.warp_epoch == now.warp_epoch));
  if (others || !is_ordered(read, thread)) refuse_race(thread.number, at, access, read, "read");
  record.written = now;
}

void touch_shared(size_t at, size_t bytes, Access access, const CheckedThread& thread) {
  if (access == Access::atomic) return;
  const bool in_a_word = at % word_bytes + bytes <= word_bytes;
  if (access == Access::read && in_a_word && is_only_read(state.shared[at / word_bytes])) return;
  const Stamp now{.epoch = state.epoch,
                  .warp_epoch = state.warp_epoch[thread.number / warp_lanes],
                  .thread = static_cast<uint16_t>(thread.number)};
  for (const size_t end = at + bytes; at < end;) {
    SharedWord& word = state.shared[at / word_bytes];
    BytesOfWord& split = state.split[at / word_bytes];
    const size_t next = std::min((at / word_bytes + 1) * word_bytes, end);
    if (next - at < word_bytes && !word.is_split) {
      split.fill(word.whole);
      word.is_split = true;
    }
    if (!word.is_split) touch_record(word.whole, at, access, thread, now);
    for (; word.is_split && at < next; ++at) touch_record(split[at % word_bytes], at, access, thread, now);
    at = next;
  }
}

// Offset of static shared memory, which comes after the dynamic.
size_t static_offset() {
  return (state.dynamic_shared.bytes + word_bytes - 1) / word_bytes * word_bytes;
}

// What is not decided at a glance. The library's templates that are used here may be the checked ones of a .cu file, so
// nothing is checked in the meantime.
void touch_rarely(uintptr_t at, size_t bytes, Access access) {
  const CheckedThread* const thread = std::exchange(current, nullptr);
  const Range allocation = allocation_at(at);
  bool allowed = allocation.holds(at, bytes);
  if (allowed) state.recent[state.oldest++ % state.recent.size()] = allocation;
  for (const Range& range : state.image.constants) {
    allowed = allowed || (access == Access::read && range.holds(at, bytes));
  }
  if (!allowed) refuse_address(thread->number, at, bytes, access);
  current = thread;
}

void touch(const volatile void* place, size_t bytes, Access access) {
  const CheckedThread* const thread = current;
  if (thread == nullptr) return;
  const auto at = reinterpret_cast<uintptr_t>(place);
  if (thread->stack.holds(at, bytes)) return;
  for (const Range& range : state.recent) {
    if (range.holds(at, bytes)) return;
  }
  const Range& dynamic = state.dynamic_shared;
  const Range& fixed = state.image.thread_local_variables;
  if (dynamic.holds(at, bytes)) return touch_shared(at - dynamic.begin, bytes, access, *thread);
  if (fixed.holds(at, bytes)) return touch_shared(static_offset() + at - fixed.begin, bytes, access, *thread);
  touch_rarely(at, bytes, access);
}

}  // namespace

void begin_launch(const void* function, Range dynamic_shared) {
  state.function = function;
  state.dynamic_shared = dynamic_shared;
  state.recent = {};  // allocations may have been freed
  state.image = {};
  dl_iterate_phdr(read_image, &state.image);
  const size_t words = (static_offset() + state.image.thread_local_variables.bytes) / word_bytes + 1;
  if (words <= state.shared_words) return;
  state.shared = make_records<SharedWord>(words);
  state.split = make_records<BytesOfWord>(words);
  state.shared_words = words;
}
void begin_block() {
  ++state.epoch;
}
void order_block() {
  ++state.epoch;
}
void order_warp(unsigned warp) {
  ++state.warp_epoch[warp];
}
void check_accesses_of(const CheckedThread* thread) {
  current = thread;
}

}  // namespace simulator

// ---- What the compiler calls ----

using simulator::Access;
using simulator::touch;

// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)
extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_read(void* place) {
  touch(place, sizeof(void*), Access::read);
}
void __tsan_vptr_update(void* place, void*) {
  touch(place, sizeof(void*), Access::write);
}
void __tsan_read_range(void* place, size_t bytes) {
  touch(place, bytes, Access::read);
}
void __tsan_write_range(void* place, size_t bytes) {
  touch(place, bytes, Access::write);
}

#define NIBBLE_ACCESSES(prefix, bytes)     \
  void prefix##read##bytes(void* place) {  \
    touch(place, bytes, Access::read);     \
  }                                        \
  void prefix##write##bytes(void* place) { \
    touch(place, bytes, Access::write);    \
  }
NIBBLE_ACCESSES(__tsan_, 1)
NIBBLE_ACCESSES(__tsan_, 2)
NIBBLE_ACCESSES(__tsan_, 4)
NIBBLE_ACCESSES(__tsan_, 8)
NIBBLE_ACCESSES(__tsan_, 16)
NIBBLE_ACCESSES(__tsan_unaligned_, 2)
NIBBLE_ACCESSES(__tsan_unaligned_, 4)
NIBBLE_ACCESSES(__tsan_unaligned_, 8)
NIBBLE_ACCESSES(__tsan_unaligned_, 16)

#define NIBBLE_ATOMIC_UPDATE(bits, name)                                                                   \
  uint##bits##_t __tsan_atomic##bits##_##name(volatile uint##bits##_t* place, uint##bits##_t value, int) { \
    touch(place, sizeof value, Access::atomic);                                                            \
    return __atomic_##name(place, value, __ATOMIC_SEQ_CST);                                                \
  }
#define NIBBLE_ATOMIC_EXCHANGE(bits, strength, weak)                                                               \
  bool __tsan_atomic##bits##_compare_exchange_##strength(volatile uint##bits##_t* place, uint##bits##_t* expected, \
                                                         uint##bits##_t value, int, int) {                         \
    touch(place, sizeof value, Access::atomic);                                                                    \
    return __atomic_compare_exchange_n(place, expected, value, weak, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);          \
  }
#define NIBBLE_ATOMICS(bits)                                                                                 \
  uint##bits##_t __tsan_atomic##bits##_load(const volatile uint##bits##_t* place, int) {                     \
    touch(place, bits / 8, Access::atomic);                                                                  \
    return __atomic_load_n(place, __ATOMIC_SEQ_CST);                                                         \
  }                                                                                                          \
  void __tsan_atomic##bits##_store(volatile uint##bits##_t* place, uint##bits##_t value, int) {              \
    touch(place, sizeof value, Access::atomic);                                                              \
    __atomic_store_n(place, value, __ATOMIC_SEQ_CST);                                                        \
  }                                                                                                          \
  uint##bits##_t __tsan_atomic##bits##_exchange(volatile uint##bits##_t* place, uint##bits##_t value, int) { \
    touch(place, sizeof value, Access::atomic);                                                              \
    return __atomic_exchange_n(place, value, __ATOMIC_SEQ_CST);                                              \
  }                                                                                                          \
  NIBBLE_ATOMIC_UPDATE(bits, fetch_add)                                                                      \
  NIBBLE_ATOMIC_UPDATE(bits, fetch_sub)                                                                      \
  NIBBLE_ATOMIC_UPDATE(bits, fetch_or)                                                                       \
  NIBBLE_ATOMIC_UPDATE(bits, fetch_and)                                                                      \
  NIBBLE_ATOMIC_EXCHANGE(bits, strong, false)                                                                \
  NIBBLE_ATOMIC_EXCHANGE(bits, weak, true)
NIBBLE_ATOMICS(8)
NIBBLE_ATOMICS(32)
NIBBLE_ATOMICS(64)

// What the compiler tells of an address that is not aligned to its type.
struct Misalignment {
  const char* file;
  uint32_t line, column;
  const struct {
    uint16_t kind, info;
    char name[1];
  } * type;
  uint8_t log_of_alignment;
  uint8_t what;
};
void __ubsan_handle_type_mismatch_v1_abort(Misalignment* found, void* place) {
  const simulator::CheckedThread* const thread = std::exchange(simulator::current, nullptr);
  const std::string what = "takes the address " + std::to_string(reinterpret_cast<uintptr_t>(place)) + " for one of " +
                           found->type->name + ", which is aligned to " + std::to_string(1 << found->log_of_alignment) +
                           " bytes (" + found->file + ":" + std::to_string(found->line) + ")";
  if (thread != nullptr) simulator::refuse(thread->number, what);
  simulator::fail("the host " + what);
}
}
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
