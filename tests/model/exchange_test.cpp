// The walk of a pass through its exchange: which buckets are acquired, released and completed, in which order.
#include "model/exchange.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "model/model_fixture.h"

namespace nibble::test {
namespace {

constexpr StepContext context{.seed = 1, .step = 1, .micro_batch = 0};

class RecordingExchange final : public LocalExchange {
 public:
  BucketView acquire(uint32_t bucket, Direction direction) override {
    record('+', bucket, direction);
    if (throws_at == calls.size()) throw Error(ExitCode::internal, "as the test asks for");
    return LocalExchange::acquire(bucket, direction);
  }
  void release(uint32_t bucket, Direction direction) override { record('-', bucket, direction); }
  void complete(uint32_t bucket) override { calls.push_back(fmt::format("done {}", bucket)); }

  std::vector<std::string> calls;
  size_t throws_at = 0;  // number of the call, from 1; 0: none

 private:
  void record(char what, uint32_t bucket, Direction direction) {
    calls.push_back(fmt::format("{}{} {}", what, direction == Direction::forward ? "forward" : "backward", bucket));
  }
};

TestModel make_model(bool tied = false, std::vector<bool> recompute = {}) {
  ModelConfig config = tiny_config();
  config.pattern = "*-";
  config.tied_head = tied;
  return {config, nvidia(), {.sequences = 1, .sequence_length = 16, .recompute = std::move(recompute)}};
}

using Calls = std::vector<std::string>;
const Calls forward_of_trunk = {"+forward 0", "-forward 0", "+forward 1", "-forward 1", "+forward 2", "-forward 2"};
const Calls backward_of_trunk = {"+backward 2", "-backward 2", "done 2",      "+backward 1", "-backward 1",
                                 "done 1",      "+backward 0", "-backward 0", "done 0"};

Calls joined(Calls first, const Calls& second, const Calls& third) {
  first.insert(first.end(), second.begin(), second.end());
  first.insert(first.end(), third.begin(), third.end());
  return first;
}

TEST(Exchange, TrainingWalksBucketsForwardAndBack) {
  for (const bool recompute : {false, true}) {
    TestModel test = make_model(/*tied=*/false, {recompute, recompute});
    RecordingExchange exchange;
    test.bind_to(exchange);
    test.forward_backward(context);
    EXPECT_EQ(exchange.calls, joined(forward_of_trunk, {"+backward 3", "-backward 3", "done 3"}, backward_of_trunk));
  }
}

TEST(Exchange, ATiedHeadAcquiresTheEmbeddingToo) {
  TestModel test = make_model(/*tied=*/true);
  RecordingExchange exchange;
  test.bind_to(exchange);
  test.forward_backward(context);
  EXPECT_EQ(exchange.calls,
            joined(forward_of_trunk, {"+backward 0", "+backward 3", "-backward 3", "-backward 0", "done 3"},
                   backward_of_trunk));
}

TEST(Exchange, ValidationWalksForward) {
  TestModel test = make_model();
  RecordingExchange exchange;
  test.bind_to(exchange);
  test.forward(context);
  EXPECT_EQ(exchange.calls, joined(forward_of_trunk, {"+forward 3", "-forward 3"}, {}));
}

// A rank without a micro-batch walks as those that have one, so that all meet in the same exchanges.
TEST(Exchange, AnIdleRankWalksAlike) {
  for (const bool tied : {false, true}) {
    TestModel test = make_model(tied);
    RecordingExchange working;
    RecordingExchange idle;
    test.bind_to(working);
    test.forward_backward(context);
    test.forward(context);
    const std::vector<float> gradients = test.gradients;
    test.bind_to(idle);
    test.model.walk_forward_backward();
    test.model.walk_forward();
    EXPECT_EQ(idle.calls, working.calls);
    EXPECT_EQ(test.gradients, gradients);
  }
}

// An exchange may throw at every event; the error leaves the pass, and the next pass is as if there had been none.
TEST(Exchange, AnErrorLeavesThePass) {
  TestModel test = make_model();
  const double loss = test.forward_backward(context);
  const std::vector<float> gradients = test.gradients;
  RecordingExchange exchange;
  test.bind_to(exchange);
  int thrown = 0;
  for (size_t call = 1; call <= 16; ++call) {
    exchange.calls.clear();
    exchange.throws_at = call;
    try {
      test.forward_backward(context);
    } catch (const Error&) {
      EXPECT_EQ(exchange.calls.size(), call);
      ++thrown;
    }
  }
  EXPECT_EQ(thrown, 7) << "acquisitions in a training pass";
  exchange.throws_at = 0;
  EXPECT_EQ(test.forward_backward(context), loss);
  EXPECT_EQ(test.gradients, gradients);
}

TEST(Exchange, ViewsAreThoseOfTheTable) {
  TestModel test = make_model();
  LocalExchange exchange;
  test.bind_to(exchange);
  const ParameterTable& table = test.model.parameters();
  size_t seen = 0;
  for (uint32_t bucket = 0; bucket < table.buckets().size(); ++bucket) {
    const BucketView view = exchange.acquire(bucket, Direction::forward);
    for (const Parameter& parameter : table.parameters()) {
      if (parameter.bucket != bucket) continue;
      const float* const first = view[parameter.tensor_id].gradient.as<float>();
      EXPECT_EQ(first, test.gradients.data() + parameter.offset) << parameter.name;
      EXPECT_EQ(view[parameter.tensor_id].values.elements(), static_cast<int64_t>(parameter.count));
      ++seen;
    }
    EXPECT_EQ(exchange.bucket_name(bucket), table.buckets()[bucket].name);
  }
  EXPECT_EQ(seen, table.parameters().size());
}

// Other weights have another version, whichever exchange hands them out.
TEST(Exchange, VersionsAreUnique) {
  TestModel test = make_model();
  std::vector<float> other = test.weights;
  const int64_t size = static_cast<int64_t>(other.size());
  const auto version = [&](LocalExchange& exchange, std::vector<float>& weights) {
    exchange.bind(test.model.parameters(), tensor_of(std::span(weights), {size}), {});
    return exchange.acquire(0, Direction::forward).weights_version;
  };
  LocalExchange first;
  LocalExchange second;
  const uint64_t before = version(first, test.weights);
  EXPECT_EQ(version(first, test.weights), before);
  EXPECT_NE(version(second, test.weights), before);
  EXPECT_NE(version(first, other), before);
}

}  // namespace
}  // namespace nibble::test
