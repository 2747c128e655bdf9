// What is written for Hugging Face's library: read back by nibble, whose ids for such files are those of that library
// (BpeTokenizer.IdsAreThoseOfTheirLibraries), it gives the ids of the tokenizer that it was written for.
#include "data/tokenizers/tokenizer_json_writer.h"

#include <gtest/gtest.h>
#include <sentencepiece_trainer.h>

#include <nlohmann/json.hpp>
#include <random>

#include "data/text/sentence_sample.h"
#include "data/tokenizers/tokenizer.h"
#include "data/tokenizers/tokenizer_training.h"
#include "tests/data/test_files.h"

namespace nibble {
namespace {

const std::filesystem::path& fixtures() {
  static const std::filesystem::path path = std::filesystem::path(NIBBLE_SOURCE_DIR) / "tests/data/tokenizers";
  return path;
}

const std::vector<std::string>& fixture_texts() {
  static const auto texts =
      nlohmann::json::parse(slurp(fixtures() / "expected.json"))["texts"].get<std::vector<std::string>>();
  return texts;
}

// Texts of few characters, so that the same token can be made in several ways.
std::vector<std::string> repetitive_texts() {
  std::mt19937_64 random(5);
  const std::vector<std::string> symbols = {" ",  "  ", "a",  "t", "th",       "e",
                                            "he", "\n", "\t", "1", "\xC3\xA9", "\xE2\x96\x81"};
  std::vector<std::string> texts;
  for (int i = 0; i < 2000; ++i) {
    std::string text;
    const size_t first = random() % symbols.size(), count = 1 + random() % 3;
    for (uint64_t length = 1 + random() % 60; length > 0; --length) {
      text += symbols[(first + random() % count) % symbols.size()];
    }
    texts.push_back(std::move(text));
  }
  return texts;
}

class WrittenJson : public testing::Test {
 protected:
  // Returns what is read back.
  std::unique_ptr<Tokenizer> read_back(const Tokenizer& tokenizer) {
    const std::string json = tokenizer.as_tokenizer_json();
    if (json.empty()) return nullptr;
    EXPECT_EQ(json, tokenizer.as_tokenizer_json());
    put(directory_ / "tokenizer.json", json);
    return Tokenizer::load(directory_ / "tokenizer.json");
  }
  static void expect_same(const Tokenizer& tokenizer, const Tokenizer& other, const std::vector<std::string>& texts) {
    const auto ids = tokenizer.encode_all(texts);
    const auto others = other.encode_all(texts);
    for (size_t i = 0; i < texts.size(); ++i) {
      EXPECT_EQ(ids[i], others[i]) << texts[i];
      // The libraries write unknown characters in ways of their own.
      const bool has_unknown =
          std::find(ids[i].begin(), ids[i].end(), 0) != ids[i].end() && !tokenizer.losses().empty();
      EXPECT_TRUE(has_unknown || tokenizer.decode(ids[i]) == other.decode(ids[i])) << texts[i];
    }
    EXPECT_EQ(tokenizer.vocab_size(), other.vocab_size());
    EXPECT_EQ(tokenizer.eos_id(), other.eos_id());
  }
  TemporaryDirectory directory_;
};

// The format of Hugging Face's library, to the byte.
TEST_F(WrittenJson, IsThisFile) {
  WrittenTokenizer tokenizer;
  using Kind = WrittenToken::Kind;
  tokenizer.tokens = {{"<unk>", Kind::special}, {"</s>", Kind::special}, {"<0x0A>", Kind::atom},
                      {"a b", Kind::merged, 2}, {" b", Kind::merged, 1}, {" ", Kind::merged, 3},
                      {"b", Kind::merged, 4},   {"a", Kind::merged, 5}};
  tokenizer.byte_fallback = true;
  tokenizer.unknown = "<unk>";
  tokenizer.prefix = " ";
  tokenizer.mark_is_space = true;
  EXPECT_EQ(
      write_tokenizer_json(tokenizer),
      R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[)"
      R"({"id":0,"content":"<unk>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},)"
      R"({"id":1,"content":"</s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],)"
      R"("normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":" "},)"
      "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\xE2\x96\x81\"},\"content\":\" \"}]},"
      R"("pre_tokenizer":null,"post_processor":null,"decoder":{"type":"Sequence","decoders":[{"type":"ByteFallback"},)"
      R"({"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]},)"
      R"("model":{"type":"BPE","dropout":null,"unk_token":"<unk>","continuing_subword_prefix":null,)"
      R"("end_of_word_suffix":null,"fuse_unk":true,"byte_fallback":true,"ignore_merges":false,)"
      R"("vocab":{"<unk>":0,"</s>":1,"<0x0A>":2,"a b":3," b":4," ":5,"b":6,"a":7},)"
      R"("merges":[[" ","b"],["a"," b"]]}})"
      "\n");
  tokenizer = {};
  tokenizer.tokens = {
      {"\n", Kind::merged, 0}, {" ", Kind::merged, 1}, {" \n", Kind::merged, 2}, {"<|endoftext|>", Kind::special}};
  tokenizer.pattern = "\\s+";
  tokenizer.whole_words = true;
  EXPECT_EQ(
      write_tokenizer_json(tokenizer),
      R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[{"id":3,"content":"<|endoftext|>",)"
      R"("single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],"normalizer":null,)"
      R"("pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\s+"},)"
      R"("behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,)"
      R"("use_regex":false}]},"post_processor":null,"decoder":{"type":"ByteLevel","add_prefix_space":false,)"
      R"("trim_offsets":true,"use_regex":false},"model":{"type":"BPE","dropout":null,"unk_token":null,)"
      R"("continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,)"
      "\"ignore_merges\":true,\"vocab\":{\"\xC4\x8A\":0,\"\xC4\xA0\":1,\"\xC4\xA0\xC4\x8A\":2},"
      "\"merges\":[[\"\xC4\xA0\",\"\xC4\x8A\"]]}}\n");
}

TEST_F(WrittenJson, OfATokenizerJsonIsTheFileItself) {
  EXPECT_EQ(Tokenizer::load(fixtures() / "llama3.json")->as_tokenizer_json(), slurp(fixtures() / "llama3.json"));
}

TEST_F(WrittenJson, RankFilesKeepTheirIds) {
  for (const char* pattern : {"gpt2", "cl100k", "o200k", "llama3", "\\s+|[^\\s]+"}) {
    const auto tokenizer = Tokenizer::load(fixtures() / "ranks.tiktoken", {.pattern = pattern, .end_of_document = {}});
    const auto other = read_back(*tokenizer);
    ASSERT_NE(other, nullptr) << pattern;
    expect_same(*tokenizer, *other, fixture_texts());
    expect_same(*tokenizer, *other, repetitive_texts());
    EXPECT_TRUE(other->losses().empty());
  }
  // In Rust `$` is the end of the text, in Oniguruma that of a line.
  const auto tokenizer =
      Tokenizer::load(fixtures() / "ranks.tiktoken", {.pattern = "a+$|[\\s\\S]", .end_of_document = {}});
  EXPECT_EQ(tokenizer->as_tokenizer_json(), "");
}

TEST_F(WrittenJson, TrainedTokenizersKeepTheirIds) {
  SentenceSample sample(UINT64_MAX);
  for (const std::string& document : sample_documents(1'000'000)) sample.add(document, document_hash(document));
  const auto tokenizer = train_tokenizer(sample.take(DocumentSplit(0.0)), 1024);
  const auto other = read_back(*tokenizer);
  ASSERT_NE(other, nullptr);
  expect_same(*tokenizer, *other, fixture_texts());
  expect_same(*tokenizer, *other, repetitive_texts());
  expect_same(*tokenizer, *other, sample_documents(1'000'000));
  EXPECT_TRUE(other->losses().empty());
  EXPECT_EQ(tokenizer->token_bytes(), other->token_bytes());
}

TEST_F(WrittenJson, OtherSentencePieceModelsKeepTheirIdsOrAreNotWritten) {
  std::string text;
  for (const std::string& document : sample_documents(200'000)) text += document.substr(0, 4000) + "\n";
  put(directory_ / "text", text);
  const std::string common = "--minloglevel=2 --vocab_size=600 --input=" + (directory_ / "text").string() +
                             " --model_prefix=" + (directory_ / "m").string();
  const std::string plain = "--model_type=bpe --remove_extra_whitespaces=false --normalization_rule_name=identity";
  for (const auto& [options, is_written] : std::vector<std::pair<std::string, bool>>{
           {plain + " --byte_fallback=true", true},  // as Llama's
           {plain, true},
           {plain + " --add_dummy_prefix=false --byte_fallback=true", true},
           {"--model_type=bpe --byte_fallback=true", false},  // changes characters and joins spaces
           {"--model_type=unigram --byte_fallback=true --remove_extra_whitespaces=false "
            "--normalization_rule_name=identity",
            false},
           {plain + " --user_defined_symbols=the,peop", false}}) {
    ASSERT_TRUE(sentencepiece::SentencePieceTrainer::Train(common + " " + options).ok());
    const auto tokenizer = Tokenizer::load(directory_ / "m.model");
    const auto other = read_back(*tokenizer);
    EXPECT_EQ(other != nullptr, is_written) << options;
    if (other == nullptr) continue;
    expect_same(*tokenizer, *other, repetitive_texts());
    expect_same(*tokenizer, *other, sample_documents(500'000));
  }
}

}  // namespace
}  // namespace nibble
