#include "dist/zero/fold.h"

#include <algorithm>
#include <numeric>

#include "dist/base/error.h"
#include "dist/base/vectorize.h"
#include "dist/device/device_memory.h"
#include "dist/device/dispatch.h"
#include "dist/device/pinned_memory.h"
#include "dist/device/thread_pool.h"

namespace nibble {
namespace {

constexpr size_t elements_at_once = 16384;  // grain of parallel_for: 64 KiB of each operand

// out[i] = left[i] + right[i]. `out` may be `left` or `right`.
NIBBLE_VECTORIZE void add_range(float* out, const float* left, const float* right, size_t count) {
#pragma GCC ivdep
  for (size_t i = 0; i < count; ++i) out[i] = left[i] + right[i];
}

std::vector<uint8_t> joins_after_each(const Fold& fold, size_t inputs) {
  std::vector<uint8_t> joins(inputs);
  std::vector<size_t> stack;
  auto next = fold.joins.begin();
  for (size_t input = 0; input < inputs; ++input) {
    stack.push_back(input);
    while (next != fold.joins.end() && stack.size() >= 2 && *next == std::pair(stack.end()[-2], stack.back())) {
      stack.pop_back();
      ++joins[input];
      ++next;
    }
  }
  NIBBLE_CHECK(next == fold.joins.end() && stack.size() <= 1, "a fold joins neighbours");
  return joins;
}

}  // namespace

namespace cpu {

void add(float* left, const float* right, size_t count) {
  parallel_for(count, elements_at_once,
               [&](size_t begin, size_t end) { add_range(left + begin, left + begin, right + begin, end - begin); });
}

void fold(const FoldProblem& problem) {
  parallel_for(problem.count, elements_at_once, [&](size_t begin, size_t end) {
    const float* const first = problem.values.front();
    if (!problem.fold.sums_.empty()) {
      problem.fold.run_strips(problem.values, problem.out, begin, end);
    } else if (first != problem.out) {
      std::copy(first + begin, first + end, problem.out + begin);
    }
  });
}

}  // namespace cpu

void add(float* left, const float* right, size_t count, DeviceKind device) {
  NIBBLE_DISPATCH(device, add, left, right, count);
}

void clear(float* values, size_t count, DeviceKind device) {
  if (device != DeviceKind::cpu) return zero_bytes(values, device, count * sizeof(float));
  parallel_for(count, elements_at_once, [&](size_t begin, size_t end) {
    zero_bytes(values + begin, DeviceKind::cpu, (end - begin) * sizeof(float));
  });
}

void run_steps(std::span<const FoldStep> steps, size_t count, DeviceKind device) {
  if (device != DeviceKind::cpu) {
    for (const FoldStep& step : steps) {
      if (!step.assigns) {
        add(step.left, step.right, count, device);
        continue;
      }
      start_copy_bytes({.to = step.left,
                        .to_device = device,
                        .from = step.right,
                        .from_device = device,
                        .bytes = count * sizeof(float)});
    }
    return;
  }
  constexpr size_t in_cache = 4096;  // elements of all arrays that one step after the other works on
  parallel_for(count, elements_at_once, [&](size_t begin, size_t end) {
    for (size_t at = begin; at < end; at += in_cache) {
      const size_t part = std::min(in_cache, end - at);
      for (const FoldStep& step : steps) {
        if (step.assigns) {
          std::copy_n(step.right + at, part, step.left + at);
        } else {
          add_range(step.left + at, step.left + at, step.right + at, part);
        }
      }
    }
  });
}

OnePassFold::OnePassFold(const Fold& fold, size_t inputs)
    : inputs_(inputs), joins_after_(joins_after_each(fold, inputs)) {
  NIBBLE_CHECK(fold.roots.size() == 1, "the tree has one root");
  std::vector<size_t> operand(inputs);  // the operand that holds the sum of each input
  std::iota(operand.begin(), operand.end(), size_t{0});
  std::vector<size_t> unused(most_intermediates);  // free intermediate sums; the first one is the last entry
  std::iota(unused.rbegin(), unused.rend(), inputs);
  for (size_t i = 0; i < fold.joins.size(); ++i) {
    const auto [left, right] = fold.joins[i];
    for (const size_t input : {left, right}) {
      if (operand[input] >= inputs) unused.push_back(operand[input]);
    }
    NIBBLE_CHECK(!unused.empty(), "intermediate sums of a fold");
    size_t out = inputs + output;
    if (i + 1 < fold.joins.size()) {
      out = unused.back();
      unused.pop_back();
    }
    sums_.push_back({out, operand[left], operand[right]});
    operand[left] = out;
  }
}

void OnePassFold::run_strips(std::span<const float* const> values, float* out, size_t begin, size_t end) const {
  alignas(64) float intermediate[most_intermediates][strip];
  for (size_t at = begin; at < end; at += strip) {
    const size_t count = std::min(strip, end - at);
    const auto written = [&](size_t operand) {
      return operand == inputs_ + output ? out + at : intermediate[operand - inputs_];
    };
    const auto read = [&](size_t operand) -> const float* {
      return operand < inputs_ ? values[operand] + at : intermediate[operand - inputs_];
    };
    for (const Sum& sum : sums_) add_range(written(sum.out), read(sum.left), read(sum.right), count);
  }
}

void OnePassFold::run(std::span<const float* const> values, float* out, size_t count, DeviceKind device) const {
  NIBBLE_CHECK(values.size() == inputs_, "one array for each input");
  const FoldProblem problem{*this, values, out, count};
  NIBBLE_DISPATCH(device, fold, problem);
}

}  // namespace nibble
