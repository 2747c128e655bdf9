#include "data/tokenizers/tokenizer.h"

#include <gtest/gtest.h>
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include "data/text/sentence_sample.h"
#include "data/tokenizers/tokenizer_training.h"
#include "dist/device/thread_pool.h"
#include "tests/data/test_files.h"

namespace nibble {
namespace {

std::vector<std::string> sentences_of(const std::vector<std::string>& documents) {
  SentenceSample sample(UINT64_MAX);
  for (const std::string& document : documents) sample.add(document, document_hash(document));
  return sample.take(DocumentSplit(0.0));
}

const Tokenizer& english() {
  static const auto tokenizer = train_tokenizer(sentences_of(sample_documents(1'000'000)), 1024);
  return *tokenizer;
}

const std::vector<std::string>& tricky_texts() {
  static const std::vector<std::string> texts = {
      "",
      " ",
      "    ",
      " leading",
      "trailing ",
      "two  spaces   three",
      "\n",
      "\n\n\n a\n  b\n",
      "\t\ttabs\tand\n\ttabs",
      "line\r\nends\r",
      "\xF0\x9F\x98\x80 emoji \xF0\x9F\x91\xA8\xE2\x80\x8D\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7",
      "\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E",
      "\xEF\xAC\x81 \xE2\x91\xA0 e\xCC\x81 \xC3\xA9",        // NFKC would change these
      "\xE2\x96\x81 \xE2\x96\x81\xE2\x96\x81x\xE2\x96\x81",  // SentencePiece's space
      "\xE2\x96\x85\xE2\x81\x87 \xE2\x81\x87",               // and its marks for unknown characters
      "<s></s><unk><pad> <0x41><0x0A> [BOS] <|endoftext|>",
      std::string("nul \0 byte \0", 12),
      "\xEF\xBB\277byte order mark \xEF\xBF\xBD \xEF\xBF\xBE \xEF\xBF\xBF \xF4\x8F\xBF\xBF",  // \277 ends before b
      "\xC2\xA0 no-break \xE2\x80\xA8 line separator \xE3\x80\x80 wide \xC2\x85 next line",
      "\x01\x02\x1B[31m\x7F"};
  return texts;
}

TEST(Tokenizer, RoundTripIsExact) {
  for (const std::string& text : tricky_texts()) {
    const auto ids = english().encode(text);
    EXPECT_EQ(english().decode(ids), text);
    for (const int32_t id : ids) {
      EXPECT_GT(id, 2) << "a special token came out of text: " << text;
      EXPECT_LT(id, 1024);
    }
  }
  // Neighbours must not change that: all texts are joined to one document, with and without a separator.
  for (const char* glue : {"", " ", "x", "\n"}) {
    std::string text;
    for (const std::string& part : tricky_texts()) text += part + glue;
    EXPECT_EQ(english().decode(english().encode(text)), text);
  }
  const auto all = sample_documents(3'000'000);
  const auto encoded = english().encode_all(all);
  size_t bytes = 0;
  size_t tokens = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_TRUE(english().decode(encoded[i]) == all[i]) << "document " << i;
    bytes += all[i].size();
    tokens += encoded[i].size();
  }
  EXPECT_GT(bytes, 3 * tokens) << "1024 tokens for English do better than this";
}

TEST(Tokenizer, TokensStandForTheBytesOfTheirText) {
  const std::vector<uint32_t> bytes = english().token_bytes();
  ASSERT_EQ(bytes.size(), english().vocab_size());
  for (const int32_t special : {0, 1, english().eos_id()}) EXPECT_EQ(bytes[static_cast<size_t>(special)], 0U);
  std::vector<std::string> texts = tricky_texts();
  for (std::string& document : sample_documents(100'000)) texts.push_back(std::move(document));
  for (const std::string& text : texts) {
    uint64_t sum = 0;
    for (const int32_t id : english().encode(text)) sum += bytes[static_cast<size_t>(id)];
    EXPECT_EQ(sum, text.size()) << text.substr(0, 100);
  }
}

TEST(Tokenizer, EveryCodePointRoundTrips) {
  std::string text;
  for (uint32_t code = 0; code < 0x11000; ++code) {
    if (code >= 0xD800 && code < 0xE000) continue;
    const auto add = [&](uint32_t byte) { text += static_cast<char>(byte); };
    if (code < 0x80) {
      add(code);
    } else if (code < 0x800) {
      add(0xC0U | (code >> 6U)), add(0x80U | (code & 0x3FU));
    } else if (code < 0x10000) {
      add(0xE0U | (code >> 12U)), add(0x80U | ((code >> 6U) & 0x3FU)), add(0x80U | (code & 0x3FU));
    } else {
      add(0xF0U), add(0x80U | (code >> 12U)), add(0x80U | ((code >> 6U) & 0x3FU)), add(0x80U | (code & 0x3FU));
    }
  }
  EXPECT_TRUE(english().decode(english().encode(text)) == text);
}

TEST(Tokenizer, LongTextWithoutSpacesRoundTrips) {
  std::string text;
  for (size_t i = 0; text.size() < 300'000; ++i) text += i % 3 == 0 ? "\xC3\xA9" : i % 7 == 0 ? "\xE2\x96\x81" : "ab";
  EXPECT_TRUE(english().decode(english().encode(text)) == text);
  EXPECT_TRUE(english().decode(english().encode(std::string(200'000, ' '))) == std::string(200'000, ' '));
}

TEST(Tokenizer, TrainingIsDeterministic) {
  const auto sentences = sentences_of(sample_documents(200'000));
  const auto one = train_tokenizer(sentences, 512);
  const auto two = train_tokenizer(sentences, 512);
  EXPECT_EQ(one->hash(), two->hash());
  EXPECT_EQ(one->vocab_size(), 512U);
  EXPECT_EQ(one->eos_id(), 2);
  auto fewer = sentences;
  fewer.resize(fewer.size() / 2);
  EXPECT_NE(one->hash(), train_tokenizer(fewer, 512)->hash());
}

TEST(Tokenizer, ThreadsChangeNothing) {
  const auto documents = sample_documents(500'000);
  const auto expected = english().encode_all(documents);
  set_compute_threads(3);
  EXPECT_EQ(english().encode_all(documents), expected);
  set_compute_threads(1);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(english().encode(documents[i]), expected[i]);
}

TEST(Tokenizer, CuttingLongTextAtWordsChangesNoToken) {
  // encode() cuts 70 KB in one line at a space; the tokens are those of the two halves by themselves.
  std::string text;
  for (const std::string& document : sample_documents(70'000)) text += document;
  const size_t cut = text.rfind(' ', 40'000);
  auto halves = english().encode(text.substr(0, cut));
  const auto second = english().encode(text.substr(cut));
  halves.insert(halves.end(), second.begin(), second.end());
  EXPECT_EQ(english().encode(text), halves);
}

TEST(Tokenizer, TrainsOnDifficultText) {
  std::vector<std::string> sentences = {std::string(4096, 'x'), "", "\t\t", std::string("a\0b", 3),
                                        "\xE2\x96\x81\xE2\x96\x85"};
  // 4000 different characters, more than the vocabulary: the rare ones are written in bytes.
  for (uint32_t code = 0x4E00; code < 0x4E00 + 4000; ++code) {
    const std::string character = {static_cast<char>(0xE0U | (code >> 12U)),
                                   static_cast<char>(0x80U | ((code >> 6U) & 0x3FU)),
                                   static_cast<char>(0x80U | (code & 0x3FU))};
    for (uint32_t i = 0; i <= code % 13; ++i) sentences.push_back(character + character + "y" + character);
  }
  const auto tokenizer = train_tokenizer(sentences, 400);
  for (const std::string& sentence : sentences) EXPECT_EQ(tokenizer->decode(tokenizer->encode(sentence)), sentence);
  for (const std::string& text : tricky_texts()) EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
}

TEST(Tokenizer, OfManyLongWordsAPartIsUsed) {
  std::mt19937 random(5);
  std::vector<std::string> sentences = sentences_of(sample_documents(100'000));
  const auto english_before = sentences;
  EXPECT_EQ(mask_long_words(sentences, 1000), 0U);
  EXPECT_EQ(sentences, english_before);
  std::vector<std::string> letters;
  for (int i = 0; i < 400; ++i) {
    std::string word;
    while (word.size() < 1000) word += "ACGT"[random() % 4];
    letters.push_back("ab " + word + " c " + word);
  }
  auto masked = letters;
  EXPECT_EQ(mask_long_words(masked, 400'000), 400'000U);
  EXPECT_EQ(masked, letters);
  EXPECT_EQ(mask_long_words(masked, 100'000), 400'000U);
  size_t kept = 0;
  for (size_t i = 0; i < masked.size(); ++i) {
    const bool is_kept = masked[i] == letters[i];
    EXPECT_TRUE(is_kept || masked[i] == "ab \t c \t") << masked[i];
    kept += is_kept;
  }
  EXPECT_NEAR(static_cast<double>(kept), 100, 5 * std::sqrt(400 * 0.25 * 0.75));  // five standard deviations
}

TEST(Tokenizer, UnfitVocabulariesAreRefused) {
  expect_error(ExitCode::usage, [] { train_tokenizer({"some text"}, 300); });
  expect_error(ExitCode::usage, [] { train_tokenizer({"some text"}, UINT32_MAX); });
  const std::string text =
      expect_error(ExitCode::bad_data, [] { train_tokenizer({"too little text for that"}, 4096); });
  EXPECT_NE(text.find("pieces for "), std::string::npos) << text;
  EXPECT_EQ(text.find(".cc"), std::string::npos) << text;
  expect_error(ExitCode::bad_data, [] { train_tokenizer({}, 4096); });
}

TEST(Tokenizer, SaveAndLoad) {
  const TemporaryDirectory directory;
  const auto path = directory / "tokenizer.model";
  english().save(path);
  const auto loaded = Tokenizer::load(path);
  EXPECT_EQ(loaded->hash(), english().hash());
  EXPECT_EQ(loaded->hash(), hash128(slurp(path)));
  EXPECT_EQ(loaded->encode("We the People"), english().encode("We the People"));
  expect_error(ExitCode::missing_input, [&] { Tokenizer::load(directory / "none->model"); });
  for (const std::string garbage : {"", "garbage", "{\"model\": 1}"}) {
    put(path, garbage);
    expect_error(ExitCode::bad_data, [&] { Tokenizer::load(path); });
  }
  // A damaged model is refused, or is another tokenizer with another hash. It never ends the program.
  english().save(path);
  const std::string good = slurp(path);
  for (size_t i = 0; i < good.size(); i += good.size() / 150) {
    for (const std::string& bad :
         {good.substr(0, i), std::string(good).replace(i, 1, 1, static_cast<char>(good[i] ^ 0x21))}) {
      put(path, bad);
      try {
        EXPECT_NE(Tokenizer::load(path)->hash(), english().hash());
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::bad_data);
      }
    }
  }
}

// Models that are not exact are taken with what they lose, and their ids are those of SentencePiece itself, however
// long the text is.
TEST(Tokenizer, LossyModelsAreTakenAndSaySo) {
  const TemporaryDirectory directory;
  std::string text;
  for (const std::string& document : sample_documents(200'000)) text += document.substr(0, 4000) + "\n";
  put(directory / "text", text);
  const auto says = [](const Tokenizer& tokenizer, const std::string& clause) {
    for (const std::string& loss : tokenizer.losses()) {
      if (loss.find(clause) != std::string::npos) return true;
    }
    return false;
  };
  const std::string common = "--minloglevel=2 --vocab_size=600 --input=" + (directory / "text").string() +
                             " --model_prefix=" + (directory / "m").string();
  struct Case {
    const char* options;
    bool prefix, spaces, unknown;
  };
  for (const Case& lossy :
       {Case{"--model_type=bpe", true, true, true}, Case{"--model_type=unigram", true, true, true},
        Case{"--model_type=bpe --byte_fallback=true", true, true, false},
        Case{"--model_type=bpe --byte_fallback=true --remove_extra_whitespaces=false", true, false, false},
        Case{"--model_type=unigram --byte_fallback=true --add_dummy_prefix=false", false, true, false}}) {
    ASSERT_TRUE(sentencepiece::SentencePieceTrainer::Train(common + " " + lossy.options).ok());
    const auto tokenizer = Tokenizer::load(directory / "m.model");
    EXPECT_EQ(says(*tokenizer, "puts a space before"), lossy.prefix) << lossy.options;
    EXPECT_EQ(says(*tokenizer, "one space of several"), lossy.spaces) << lossy.options;
    EXPECT_EQ(says(*tokenizer, "unknown token"), lossy.unknown) << lossy.options;
    EXPECT_TRUE(says(*tokenizer, "line feeds into spaces")) << lossy.options;  // as NFKC of SentencePiece does
    EXPECT_TRUE(tokenizer->token_bytes().empty());
    sentencepiece::SentencePieceProcessor own;
    ASSERT_TRUE(own.Load((directory / "m.model").string()).ok());
    for (const std::string& document :
         {text, std::string(" two  spaces \n"), std::string("caf\xC3\xA9 \xF0\x9F\x98\x80")}) {
      std::vector<int> ids;
      ASSERT_TRUE(own.Encode(document, &ids).ok());
      EXPECT_TRUE(tokenizer->encode(document) == ids) << lossy.options;
    }
  }
}

TEST(Tokenizer, InvalidTextIsRefused) {
  expect_error(ExitCode::bad_data, [] { english().encode("ab\xFFz"); });
}

}  // namespace
}  // namespace nibble
