// Tests the split into training and validation, the sample that a tokenizer is trained on, cutting, and token
// statistics.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <set>

#include "data/shards/token_statistics.h"
#include "data/text/document_split.h"
#include "data/text/sentence_sample.h"
#include "data/text/text_cut.h"
#include "tests/data/test_files.h"

namespace nibble {
namespace {

DocumentSplit split_of(const std::vector<std::string>& documents, double share) {
  DocumentSplit split(share);
  for (const std::string& document : documents) split.add(document_hash(document));
  split.settle();
  return split;
}

std::set<std::string> held_out(const std::vector<std::string>& documents, double share) {
  const DocumentSplit split = split_of(documents, share);
  std::set<std::string> result;
  for (const std::string& document : documents) {
    if (split.is_validation(document_hash(document))) result.insert(document);
  }
  return result;
}

TEST(DocumentSplit, FollowsTheTextAndNothingElse) {
  std::vector<std::string> documents;
  for (int i = 0; i < 4000; ++i) documents.push_back("document " + std::to_string(i));
  const auto original = held_out(documents, 0.1);
  // Binomial(4000, 0.1): mean 400, standard deviation 19; 6 deviations.
  EXPECT_NEAR(static_cast<double>(original.size()), 400.0, 114.0);
  std::reverse(documents.begin(), documents.end());
  EXPECT_EQ(held_out(documents, 0.1), original);
  documents.resize(2000);  // the documents that remain stay on their side
  for (const std::string& document : held_out(documents, 0.1)) EXPECT_TRUE(original.contains(document));
  const auto more = held_out(documents, 0.2);
  for (const std::string& document : held_out(documents, 0.1)) EXPECT_TRUE(more.contains(document));
}

TEST(DocumentSplit, BothSidesGetADocument) {
  for (const double share : {1e-12, 0.005, 0.5, 0.99999}) {
    for (const size_t count : {2, 3, 10}) {
      std::vector<std::string> documents;
      for (size_t i = 0; i < count; ++i) documents.push_back(std::to_string(i));
      const auto validation = held_out(documents, share);
      EXPECT_GE(validation.size(), 1U) << share << " of " << count;
      EXPECT_LT(validation.size(), count) << share << " of " << count;
    }
  }
  EXPECT_EQ(held_out({"only", "two"}, 0.0).size(), 0U);
  EXPECT_EQ(held_out({"one"}, 0.0).size(), 0U);
  expect_error(ExitCode::bad_data, [] { split_of({"one"}, 0.005); });
  expect_error(ExitCode::bad_data, [] { split_of({"same", "same"}, 0.5); });
  expect_error(ExitCode::bad_data, [] { split_of({}, 0.0); });
  for (const double share : {-0.1, 1.0, 2.0, std::nan("")}) {
    expect_error(ExitCode::usage, [&] { const DocumentSplit split(share); });
  }
}

TEST(SentenceSample, KeepsAllThatFitsAndSpreadsWhenItDoesNot) {
  const auto documents = sample_documents(400'000);
  const auto sample_of = [&](uint64_t limit) {
    SentenceSample sample(limit);
    for (const std::string& document : documents) sample.add(document, document_hash(document));
    EXPECT_LE(sample.bytes(), limit);
    return sample.take(DocumentSplit(0.0));
  };
  std::string whole;
  for (const std::string& sentence : sample_of(1'000'000)) whole += sentence;
  std::string expected;
  for (const std::string& document : documents) expected += document;
  EXPECT_EQ(whole, expected);
  const auto small = sample_of(100'000);
  EXPECT_EQ(small, sample_of(100'000));
  size_t bytes = 0;
  size_t late = 0;  // sentences of the second half of the text
  for (const std::string& sentence : small) {
    EXPECT_LE(sentence.size(), 4096U);
    bytes += sentence.size();
    late += expected.find(sentence) > expected.size() / 2 ? 1 : 0;
  }
  EXPECT_GT(bytes, 25'000U);  // the limit is halved until it fits, so at least about half of it is used
  EXPECT_GT(late, 0U);
  EXPECT_LT(late, small.size());
}

TEST(SentenceSample, LeavesValidationOut) {
  const std::vector<std::string> documents = {"first\nsecond", "third", "fourth\n\nfifth\n"};
  SentenceSample sample(1000);
  for (const std::string& document : documents) sample.add(document, document_hash(document));
  const DocumentSplit split = split_of(documents, 1e-9);  // only the document with the lowest hash is held out
  std::vector<std::string> expected;
  const std::vector<std::vector<std::string>> lines = {{"first", "second"}, {"third"}, {"fourth", "fifth"}};
  for (size_t i = 0; i < documents.size(); ++i) {
    if (!split.is_validation(document_hash(documents[i]))) {
      expected.insert(expected.end(), lines[i].begin(), lines[i].end());
    }
  }
  EXPECT_LT(expected.size(), 5U);
  EXPECT_EQ(sample.take(split), expected);
}

TEST(TextCut, PrefersLinesThenWordsThenCharacters) {
  using Pieces = std::vector<std::string_view>;
  EXPECT_EQ(cut_text("", 4), Pieces{});
  EXPECT_EQ(cut_text("abcd", 4), Pieces{"abcd"});
  EXPECT_EQ(cut_text("a\nb\ncdefg", 5), (Pieces{"a\nb\n", "cdefg"}));
  EXPECT_EQ(cut_text("one two  three", 9), (Pieces{"one two", "  three"}));
  EXPECT_EQ(cut_text("      ab", 4), (Pieces{"    ", "  ab"}));
  EXPECT_EQ(cut_text("abcdef", 4), (Pieces{"abcd", "ef"}));
  EXPECT_EQ(cut_text("\xC3\xA9\xC3\xA9\xC3\xA9", 5), (Pieces{"\xC3\xA9\xC3\xA9", "\xC3\xA9"}));
  EXPECT_EQ(cut_text("\xF0\x9F\x98\x80\xF0\x9F\x98\x80", 3), (Pieces{"\xF0\x9F\x98\x80", "\xF0\x9F\x98\x80"}));
}

TEST(TokenStatistics, EntropyOfKnownDistributions) {
  TokenStatistics statistics(8);
  statistics.add(std::vector<int32_t>{0, 1, 2, 3});
  EXPECT_DOUBLE_EQ(statistics.entropy_bits(), 2.0);
  EXPECT_DOUBLE_EQ(statistics.entropy_nats(), 2.0 * std::numbers::ln2);
  statistics.add(0, 3);
  statistics.add(1, 1);  // the counts are 4, 2, 1 and 1 of 8
  EXPECT_DOUBLE_EQ(statistics.entropy_bits(), 1.75);
  EXPECT_EQ(statistics.total(), 8U);
  EXPECT_EQ(statistics.used(), 4U);
  EXPECT_EQ(TokenStatistics(5).entropy_nats(), 0.0);
}

}  // namespace
}  // namespace nibble
