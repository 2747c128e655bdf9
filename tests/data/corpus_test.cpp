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
  for (const std::string& document : documents) split.add(document_hash(document), document.size());
  split.settle();
  return split;
}

std::set<std::string> held_out(const std::vector<std::string>& documents, double share) {
  const DocumentSplit split = split_of(documents, share);
  std::set<std::string> result;
  for (const std::string& document : documents) {
    if (!split.is_training(document_hash(document), 0)) result.insert(document);
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

// A text of this many bytes that differs from others of its size.
std::string text_of(size_t bytes, char letter) {
  std::string text;
  while (text.size() < bytes) text += std::string(1, letter) + " line of text\n";
  text.resize(bytes);
  return text;
}

TEST(DocumentSplit, FewDocumentsNeverHoldOutTheLargerPart) {
  for (const double share : {0.0001, 0.005, 0.1, 0.3, 0.45}) {
    for (char letter = 'a'; letter <= 'z'; ++letter) {
      const std::string book = text_of(100'000, letter);
      const std::string note = text_of(900, letter);
      EXPECT_EQ(held_out({book, note}, share), std::set<std::string>{note}) << share;
    }
  }
  // A share of one half or more asks for the larger part.
  size_t books = 0;
  for (char letter = 'a'; letter <= 'z'; ++letter) {
    books += held_out({text_of(100'000, letter), text_of(900, letter)}, 0.6).contains(text_of(100'000, letter)) ? 1 : 0;
  }
  EXPECT_GT(books, 0U);
}

TEST(DocumentSplit, FewDocumentsStayWithinTwiceTheShareWhereTheyCan) {
  std::vector<std::string> documents;
  for (char letter = 'a'; letter <= 'z'; ++letter) documents.push_back(text_of(1000 + 10'000 * (letter % 3), letter));
  const auto share_of = [&](double share) {
    DocumentSplit split = split_of(documents, share);
    uint64_t bytes = 0;
    uint64_t held = 0;
    for (const std::string& document : documents) {
      bytes += document.size();
      if (!split.is_training(document_hash(document), 0)) held += document.size();
    }
    EXPECT_NEAR(split.held_out_share(), static_cast<double>(held) / static_cast<double>(bytes), 1e-12);
    return split.held_out_share();
  };
  for (const double share : {0.005, 0.05, 0.1, 0.2, 0.4}) {
    EXPECT_GT(share_of(share), 0.0);
    EXPECT_LE(share_of(share), 2 * share);
  }
  // Three equal documents: no part of them is near the share.
  documents = {text_of(5000, 'x'), text_of(5000, 'y'), text_of(5000, 'z')};
  EXPECT_NEAR(share_of(0.005), 1.0 / 3, 1e-12);
}

TEST(DocumentSplit, HoldsOutTheTailOfTheLongest) {
  const std::string book = text_of(100'000, 'b');
  const std::string note = text_of(1000, 'n');
  DocumentSplit split(0.01, HeldOut::tail);
  for (const std::string& document : {note, book}) split.add(document_hash(document), document.size());
  split.settle();
  EXPECT_NEAR(split.held_out_share(), 0.01, 1e-4);
  EXPECT_EQ(split.training_bytes(document_hash(note), note), note.size());
  const size_t cut = split.training_bytes(document_hash(book), book);
  EXPECT_NEAR(static_cast<double>(cut), 98'990.0, 300.0);
  EXPECT_EQ(book[cut - 1], '\n');
  EXPECT_TRUE(split.is_training(document_hash(book), 98'000));
  EXPECT_FALSE(split.is_training(document_hash(book), cut + 1));
  // What may be trained on ends before the cut.
  for (uint64_t end = 98'000; end < book.size(); ++end) {
    EXPECT_TRUE(end <= cut || !split.is_training(document_hash(book), end)) << end;
  }

  DocumentSplit half(0.9, HeldOut::tail);  // never the larger part
  half.add(document_hash(book), book.size());
  half.settle();
  EXPECT_DOUBLE_EQ(half.held_out_share(), 0.5);

  DocumentSplit nothing(0.0, HeldOut::tail);
  nothing.add(document_hash(book), book.size());
  nothing.settle();
  EXPECT_EQ(nothing.training_bytes(document_hash(book), book), book.size());

  expect_error(ExitCode::bad_data, [] {
    DocumentSplit short_text(0.5, HeldOut::tail);
    short_text.add(1, 15);
    short_text.settle();
  });
}

TEST(SentenceSample, LeavesTheTailOut) {
  const std::string book = text_of(10'000, 'b');
  DocumentSplit split(0.2, HeldOut::tail);
  split.add(document_hash(book), book.size());
  split.settle();
  SentenceSample sample(UINT64_MAX);
  sample.add(book, document_hash(book));
  size_t bytes = 0;
  for (const std::string& line : sample.take(split)) bytes += line.size() + 1;
  EXPECT_LE(bytes, split.training_bytes(document_hash(book), book));
  EXPECT_NEAR(static_cast<double>(bytes), 7500.0, 20.0);
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
  const DocumentSplit split = split_of(documents, 1e-9);  // one document is held out
  std::vector<std::string> expected;
  const std::vector<std::vector<std::string>> lines = {{"first", "second"}, {"third"}, {"fourth", "fifth"}};
  for (size_t i = 0; i < documents.size(); ++i) {
    if (split.is_training(document_hash(documents[i]), 0)) {
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

TEST(TextCut, CutsInTwoAtTheBestBoundaryNearby) {
  const std::string paragraphs = "one\n\ntwo two\nthree. four five\n\nsix";
  EXPECT_EQ(paragraphs.substr(cut_near(paragraphs, 14, 20)), "two two\nthree. four five\n\nsix");
  EXPECT_EQ(paragraphs.substr(cut_near(paragraphs, 14, 5)), "three. four five\n\nsix");
  EXPECT_EQ(paragraphs.substr(cut_near(paragraphs, 19, 3)), "four five\n\nsix");
  EXPECT_EQ(paragraphs.substr(cut_near(paragraphs, 24, 2)), "five\n\nsix");
  EXPECT_EQ(paragraphs.substr(cut_near(paragraphs, 22, 0)), "ur five\n\nsix");
  EXPECT_EQ(cut_near("abc\n", 2, 4), 2U);  // a cut at the end is none
  EXPECT_EQ(cut_near("\xC3\xA9\xC3\xA9\xC3\xA9", 3, 3), 2U);
  EXPECT_EQ(cut_near("one two", 3, 100), 4U);
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
