// Byte-pair tokenizers of other programs: the same ids as the libraries that they come from (tests/data/tokenizers was
// made by them), as a slow, obvious encoder, and as themselves however a text is cut among threads.
#include "data/tokenizers/bpe_tokenizer.h"

#include <gtest/gtest.h>
#include <utf8proc.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "data/patterns/code_point.h"
#include "data/patterns/code_point_set.h"
#include "data/patterns/pattern_translation.h"
#include "dist/device/thread_pool.h"
#include "tests/data/test_files.h"

namespace nibble {
namespace {

std::filesystem::path fixture(const std::string& name) {
  return std::filesystem::path(NIBBLE_SOURCE_DIR) / "tests/data/tokenizers" / name;
}

const nlohmann::json& expected() {
  static const nlohmann::json content = nlohmann::json::parse(slurp(fixture("expected.json")));
  return content;
}

std::unique_ptr<Tokenizer> load(const std::string& name) {
  const size_t space = name.find(' ');  // "ranks.tiktoken o200k"
  if (space == std::string::npos) return Tokenizer::load(fixture(name));
  return Tokenizer::load(fixture(name.substr(0, space)), {.pattern = name.substr(space + 1), .end_of_document = {}});
}

bool is_exact(const std::string& name) {
  return name.starts_with("ranks") || name == "gpt2.json" || name == "llama3.json" || name == "deepseek.json";
}

TEST(BpeTokenizer, IdsAreThoseOfTheirLibraries) {
  const auto texts = expected()["texts"].get<std::vector<std::string>>();
  ASSERT_GE(expected()["ids"].size(), 15U);
  for (const auto& [name, ids] : expected()["ids"].items()) {
    const auto tokenizer = load(name);
    for (size_t i = 0; i < texts.size(); ++i) {
      const std::vector<int32_t> encoded = tokenizer->encode(texts[i]);
      EXPECT_EQ(encoded, ids[i].get<std::vector<int32_t>>()) << name << ": " << texts[i];
      if (is_exact(name)) {
        EXPECT_EQ(tokenizer->decode(encoded), texts[i]) << name;
      }
    }
    EXPECT_EQ(tokenizer->losses().empty(), is_exact(name)) << name;
    EXPECT_TRUE(tokenizer->decode(std::vector{tokenizer->eos_id()}).empty()) << name;
  }
}

TEST(BpeTokenizer, DecodingGivesBackEnglish) {
  const std::string text = "The people of the United States, in 1790.\n\nThey are  here.";
  for (const auto& [name, ids] : expected()["ids"].items()) {
    const auto tokenizer = load(name);
    if (name == "prefix.json") {
      EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), " " + text);
    } else if (name != "metaspace.json") {  // it has no token for a line feed
      EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text) << name;
    }
  }
}

TEST(BpeTokenizer, TokensStandForTheBytesOfTheTextThatTheyDecodeTo) {
  for (const auto& [name, ids] : expected()["ids"].items()) {
    const auto tokenizer = load(name);
    const std::vector<uint32_t> bytes = tokenizer->token_bytes();
    const bool is_counted = is_exact(name) || name == "gemma.json" || name == "digits.json" || name == "cl100k.json";
    EXPECT_EQ(bytes.empty(), !is_counted) << name;
    if (bytes.empty()) continue;
    EXPECT_EQ(bytes.size(), tokenizer->vocab_size());
    for (const auto& text : expected()["texts"]) {
      uint64_t sum = 0;
      const auto encoded = tokenizer->encode(text.get<std::string>());
      for (const int32_t id : encoded) sum += bytes[static_cast<size_t>(id)];
      EXPECT_EQ(sum, tokenizer->decode(encoded).size()) << name << ": " << text;
    }
  }
}

// The sample, and text without spaces, long runs and rare characters, in documents that are cut among threads.
std::vector<std::string> long_texts() {
  std::mt19937 random(3);
  const auto below = [&](size_t limit) { return static_cast<uint32_t>(random() % limit); };
  std::string english, letters, characters;
  for (const std::string& document : sample_documents(700'000)) english += document + "\n";
  for (int i = 0; i < 400'000; ++i) letters += "ACGT"[below(4)];
  for (int i = 0; i < 150'000; ++i) {
    const uint32_t codes[] = {0x4E00 + below(500), 0x3042, 0x20, 0xA, 0x1F600, 0x301, 0x41 + below(26), 0x39};
    append_code_point(characters, codes[below(std::size(codes))]);
  }
  return {english, letters, characters, std::string(300'000, ' ') + "x" + std::string(300'000, '\n'),
          english + std::string(500'000, 'a') + english};
}

TEST(BpeTokenizer, LongDocumentsHaveTheIdsOfShortOnes) {
  // A long document is cut among threads, a short one is not. No word of these patterns, and no merge of these
  // vocabularies, reaches over a line feed that a letter follows.
  const std::string text = long_texts().front();
  ASSERT_GT(text.size(), 600'000U);
  std::vector<std::string> parts(1);
  for (size_t i = 0; i < text.size(); ++i) {
    parts.back() += text[i];
    if (text[i] == '\n' && i + 1 < text.size() && text[i + 1] >= 'A' && text[i + 1] <= 'Z') parts.emplace_back();
  }
  set_compute_threads(3);
  for (const std::string name : {"gpt2.json", "deepseek.json", "gemma.json", "ranks.tiktoken o200k"}) {
    const auto tokenizer = load(name);
    std::vector<int32_t> ids;
    for (const auto& part : tokenizer->encode_all(parts)) ids.insert(ids.end(), part.begin(), part.end());
    EXPECT_TRUE(tokenizer->encode(text) == ids) << name;
  }
  set_compute_threads(1);
}

TEST(BpeTokenizer, ThreadsChangeNothing) {
  for (const std::string name : {"gpt2.json", "deepseek.json", "llama2.json", "digits.json", "ranks.tiktoken cl100k"}) {
    const auto tokenizer = load(name);
    for (const std::string& text : long_texts()) {
      set_compute_threads(1);
      const auto ids = tokenizer->encode(text);
      set_compute_threads(4);
      EXPECT_TRUE(tokenizer->encode(text) == ids) << name;
      set_compute_threads(1);
      if (is_exact(name)) {
        EXPECT_TRUE(tokenizer->decode(ids) == text) << name;
      }
    }
  }
}

// Looks at all pairs again after each merge.
std::vector<int32_t> slow_merges(std::vector<std::string> symbols,
                                 const std::map<std::pair<std::string, std::string>, size_t>& ranks,
                                 const nlohmann::json& vocabulary) {
  for (;;) {
    std::optional<size_t> best;
    size_t best_rank = SIZE_MAX;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto found = ranks.find({symbols[i], symbols[i + 1]});
      if (found == ranks.end() || found->second >= best_rank) continue;
      best = i;
      best_rank = found->second;
    }
    if (!best) break;
    symbols[*best] += symbols[*best + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(*best) + 1);
  }
  std::vector<int32_t> ids;
  for (const std::string& symbol : symbols) ids.push_back(vocabulary.at(symbol));
  return ids;
}

TEST(BpeTokenizer, MergesAreThoseOfASlowEncoder) {
  const nlohmann::json model = nlohmann::json::parse(slurp(fixture("gpt2.json")))["model"];
  std::map<std::pair<std::string, std::string>, size_t> ranks;
  for (const auto& merge : model["merges"]) ranks.insert({{merge[0], merge[1]}, ranks.size()});
  const auto tokenizer = load("gpt2.json");
  std::mt19937 random(7);
  size_t merged = 0;
  for (int round = 0; round < 600; ++round) {
    // Words of letters are not cut. Their lengths are on both sides of where the queue takes over.
    std::string text;
    const std::string letters = round % 2 == 0 ? "thesainro" : "ab";
    for (size_t i = 1 + random() % (round % 10 == 0 ? 300 : 60); i > 0; --i) text += letters[random() % letters.size()];
    std::vector<std::string> symbols;
    for (const char letter : text) symbols.emplace_back(1, letter);
    const auto ids = slow_merges(symbols, ranks, model["vocab"]);
    EXPECT_EQ(tokenizer->encode(text), ids) << text;
    merged += text.size() - ids.size();
  }
  EXPECT_GT(merged, 5000U);
}

TEST(BpeTokenizer, CategoriesAreThoseOfUnicode) {
  // utf8proc's version of Unicode is another one, which may know fewer characters and differ in a few.
  size_t different = 0;
  for (uint32_t code = 0; code <= CodePointSet::last_code_point; ++code) {
    const std::string_view other = utf8proc_category_string(static_cast<utf8proc_int32_t>(code));
    if (other == "Cn") continue;
    const auto after = std::upper_bound(category_runs.begin(), category_runs.end(), code * 32 + 31);
    different += category_names[*std::prev(after) % 32] != other;
  }
  EXPECT_LT(different, 50U);
  EXPECT_TRUE(code_points_of_category("L")->contains(0x2EBF0)) << "a letter of Unicode 15.1";
  EXPECT_FALSE(white_space().contains(0x180E));
  EXPECT_FALSE(code_points_of_category("Xx"));
}

std::string pattern_error(const std::string& pattern, PatternDialect dialect = PatternDialect::oniguruma) {
  return expect_error(ExitCode::bad_data, [&] { translate_pattern(pattern, dialect, "f"); });
}

TEST(BpeTokenizer, PatternsThatMeanDifferentThingsAreRefused) {
  for (const char* pattern :
       {"(?<=a)b", "\\w+", "a\\b",  "^a",      "[[:alpha:]]", "[a&&b]",      "(?i)a",      "(?<n>a)",
        "\\1",     "a**",  "a{2}?", "(a",      "a)",          "[a",          "\\p{Greek}", "(?i:\xC3\xA9)",
        "(?i:ss)", "\\",   "+a",    "a{9999}", "[b-a]",       "\\x{110000}", "\\x{D800}",  ""}) {
    EXPECT_NE(pattern_error(pattern).find("f: its pattern has "), std::string::npos) << pattern;
  }
  EXPECT_NE(pattern_error("ab\\wc").find("\\w at byte 2"), std::string::npos);
}

class Damage : public testing::Test {
 protected:
  Damage() : root_(nlohmann::json::parse(slurp(fixture("gpt2.json")))) {}
  std::string error(ExitCode code = ExitCode::bad_data) {
    put(directory_ / "t.json", root_.dump());
    return expect_error(code, [&] { Tokenizer::load(directory_ / "t.json"); });
  }
  void expect_named(const std::string& element) { EXPECT_NE(error().find(element), std::string::npos) << error(); }
  nlohmann::json root_;
  TemporaryDirectory directory_;
};

TEST_F(Damage, WhatIsNotSupportedIsNamed) {
  const nlohmann::json good = root_;
  const auto with = [&](const char* pointer, const nlohmann::json& value, const std::string& element) {
    root_ = good;
    root_[nlohmann::json::json_pointer(pointer)] = value;
    expect_named(element);
  };
  with("/model/type", "Unigram", "model is a Unigram");
  with("/model/dropout", 0.1, "model.dropout");
  with("/model/end_of_word_suffix", "</w>", "model.end_of_word_suffix");
  with("/normalizer", {{"type", "Lowercase"}}, "normalizer is a Lowercase");
  with("/pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {{{"type", "Whitespace"}}}}},
       "pre_tokenizer.pretokenizers[0] is a Whitespace");
  with("/decoder", {{"type", "WordPiece"}}, "decoder is a WordPiece");
  with("/model/merges/0", {"nowhere", "x"}, "model.merges");
  with("/model/vocab/!", 5000000, "model.vocab");
  with("/added_tokens/0/id", 9000, "added_tokens[0].id");
  with("/model/vocab", nullptr, "model.vocab");
  root_ = good;
  root_["added_tokens"] = nlohmann::json::array();
  EXPECT_NE(error(ExitCode::usage).find("<|end_of_text|>"), std::string::npos);
}

TEST_F(Damage, TheEndOfADocumentIsFoundOrNamed) {
  EXPECT_EQ(load("llama2.json")->eos_id(), 2);
  EXPECT_EQ(load("gpt2.json")->eos_id(), 420);
  EXPECT_EQ(load("gpt2.json")->vocab_size(), 421U);
  EXPECT_EQ(load("ranks.tiktoken gpt2")->eos_id(), 420);
  // What is given is kept beside the file, belongs to the identity, and has to be given only once.
  const auto path = directory_ / "tokenizer.json";
  const auto other = Tokenizer::load(fixture("gpt2.json"), {.pattern = {}, .end_of_document = "!"});
  other->save(path);
  EXPECT_EQ(slurp(path), slurp(fixture("gpt2.json")));
  EXPECT_EQ(Tokenizer::load(path)->eos_id(), other->eos_id());
  EXPECT_EQ(Tokenizer::load(path)->hash(), other->hash());
  EXPECT_EQ(Tokenizer::hash_of_file(path), other->hash());
  EXPECT_NE(other->hash(), load("gpt2.json")->hash());
  // An option that changes nothing is none.
  const auto same = Tokenizer::load(fixture("gpt2.json"), {.pattern = {}, .end_of_document = "<|endoftext|>"});
  EXPECT_EQ(same->hash(), hash128(slurp(fixture("gpt2.json"))));
}

TEST_F(Damage, RankFilesAreChecked) {
  const auto load_text = [&](const std::string& text) {
    put(directory_ / "r.tiktoken", text);
    Tokenizer::load(directory_ / "r.tiktoken", {.pattern = "gpt2", .end_of_document = {}});
  };
  const std::string good = slurp(fixture("ranks.tiktoken"));
  load_text(good);
  for (const std::string& bad : {good + "x\n", good + "IQ== 500\n", good + "QUFBQUE= 7\n",
                                 good + "QUFBQUE= 4294967295\n", std::string("IQ== 0\n")}) {
    expect_error(ExitCode::bad_data, [&] { load_text(bad); });
  }
  const std::string unknown = expect_error(ExitCode::usage, [] { Tokenizer::load(fixture("ranks.tiktoken")); });
  EXPECT_NE(unknown.find("420 ranks"), std::string::npos) << unknown;
  const auto letters = Tokenizer::load(fixture("ranks.tiktoken"), {.pattern = "[a-z]+", .end_of_document = {}});
  EXPECT_EQ(letters->decode(letters->encode("the")), "the");
  expect_error(ExitCode::bad_data, [&] { letters->encode("the end"); });
}

}  // namespace
}  // namespace nibble
