// A layer of experts through its exchange, against one expert after the other on rows that are picked out by hand.
#include "model/expert_exchange.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "quant/tensor/tensor.h"

namespace nibble {
namespace {

constexpr int64_t features = 3;

// What expert e makes of a number; different for every expert and inexact in no bit.
float expert_of(uint32_t expert, float value) {
  return static_cast<float>(expert + 1) * value + static_cast<float>(expert);
}

std::vector<float> through_exchange(ExpertExchange& exchange, std::vector<float>& rows,
                                    const std::vector<int32_t>& counts, uint32_t micro_batch, int* rounds = nullptr) {
  const auto count = static_cast<int64_t>(rows.size()) / features;
  std::vector<float> results(rows.size());
  const auto view = [&](std::vector<float>& values) {
    return count == 0 ? Tensor() : Tensor(values.data(), DType::f32, {count, features});
  };
  exchange.send_rows(view(rows), counts, micro_batch, Direction::forward);
  ExpertRows round;
  std::vector<float> made(rows.size());
  while (exchange.next_round(round)) {
    if (rounds != nullptr) ++*rounds;
    for (const RowSegment& segment : round.segments) {
      EXPECT_EQ(segment.micro_batch, micro_batch);
      EXPECT_GT(segment.rows, 0);
      for (int64_t i = segment.first_row * features; i < (segment.first_row + segment.rows) * features; ++i) {
        made[static_cast<size_t>(i)] = expert_of(segment.expert, round.rows.as<float>()[i]);
      }
    }
    exchange.return_rows(view(made));
  }
  exchange.collect_rows(view(results));
  return results;
}

TEST(ExpertExchange, RowsGoToTheirExpertsAndComeBackInOrder) {
  LocalExpertExchange exchange;
  for (const std::vector<int32_t>& counts :
       {std::vector<int32_t>{2, 0, 1, 3}, std::vector<int32_t>{0, 0, 6, 0}, std::vector<int32_t>{6}}) {
    std::vector<float> rows(6 * features);
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i);
    std::vector<float> expected;
    for (uint32_t expert = 0; expert < counts.size(); ++expert) {
      for (int32_t i = 0; i < counts[expert] * features; ++i) {
        expected.push_back(expert_of(expert, static_cast<float>(expected.size())));
      }
    }
    int rounds = 0;
    EXPECT_EQ(through_exchange(exchange, rows, counts, 7, &rounds), expected);
    EXPECT_EQ(rounds, 1);
  }
}

// A rank without rows makes the same calls.
TEST(ExpertExchange, NoRowsAreARoundToo) {
  LocalExpertExchange exchange;
  std::vector<float> none;
  int rounds = 0;
  EXPECT_TRUE(through_exchange(exchange, none, {0, 0}, 0, &rounds).empty());
  EXPECT_EQ(rounds, 1);
}

TEST(ExpertExchange, CallsOutOfOrderAreRefused) {
  LocalExpertExchange exchange;
  std::vector<float> rows(2 * features);
  const Tensor view(rows.data(), DType::f32, {2, features});
  ExpertRows round;
  EXPECT_THROW(exchange.next_round(round), Error);
  EXPECT_THROW(exchange.send_rows(view, std::vector<int32_t>{1}, 0, Direction::forward), Error);
  exchange.send_rows(view, std::vector<int32_t>{2}, 0, Direction::forward);
  EXPECT_THROW(exchange.send_rows(view, std::vector<int32_t>{2}, 0, Direction::forward), Error);
  EXPECT_THROW(exchange.return_rows(view), Error);
  EXPECT_THROW(exchange.collect_rows(view), Error);
  ASSERT_TRUE(exchange.next_round(round));
  EXPECT_THROW(exchange.next_round(round), Error);
  EXPECT_THROW(exchange.return_rows(view.slice(0, 1)), Error);
}

}  // namespace
}  // namespace nibble
