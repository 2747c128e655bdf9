#include "trainer/compute/step_schedule.h"

#include <fmt/format.h>

#include <cstdlib>
#include <optional>

#include "dist/base/error.h"

namespace nibble {

namespace {

using Order = Schedule::Order;

bool has_group_for_each(const MicroBatchGroups& groups, int ranks) {
  return static_cast<uint64_t>(ranks) <= groups.count();
}

std::optional<Order> forced_order() {
  const char* const value = std::getenv("NIBBLE_ORDER");
  if (value == nullptr) return std::nullopt;
  if (const std::optional<Order> order = parse_name<Order>(value)) return order;
  throw Error(ExitCode::bad_config, fmt::format("NIBBLE_ORDER={}", value), "unset it, or use rows or stripes");
}

}  // namespace

Schedule step_schedule(const RunConfig& config, int ranks) {
  const MicroBatchGroups groups = config.micro_batch_groups();
  const Order usual = has_group_for_each(groups, ranks) ? Order::rows : Order::stripes;
  return {groups, ranks, forced_order().value_or(usual)};
}

std::string describe(const Schedule& schedule) {
  const MicroBatchGroups& groups = schedule.groups();
  const bool too_few = schedule.order() == Order::stripes && !has_group_for_each(groups, schedule.lanes());
  return fmt::format("{} micro-batches in {} groups, {}{}", groups.micro_batches(), groups.count(),
                     name_of(schedule.order()), too_few ? ": more ranks than groups" : "");
}

}  // namespace nibble
