#include "data/text/text_reader.h"

#include <gtest/gtest.h>
#include <zstd.h>

#include <cctype>
#include <memory>
#include <nlohmann/json.hpp>

#include "dist/base/utf8.h"
#include "tests/data/test_files.h"

namespace nibble {
namespace {

std::string compress(const std::string& text) {
  std::string frame(ZSTD_compressBound(text.size()), '\0');
  frame.resize(ZSTD_compress(frame.data(), frame.size(), text.data(), text.size(), 3));
  return frame;
}

TextOptions by(DocumentRule rule) {
  TextOptions options;
  options.documents = rule;
  return options;
}

std::string lower_case(std::string text) {
  for (char& letter : text) letter = static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
  return text;
}

using Strings = std::vector<std::string>;

TEST(TextReader, DocumentsByRule) {
  const TemporaryDirectory directory;
  const auto path = directory / "a.txt";
  const std::string text = "\n\none\ntwo\r\n\n\n\r\nthree  \n\tfour";
  put(path, text);
  EXPECT_EQ(read_documents(path, by(DocumentRule::file)), Strings{text});
  EXPECT_EQ(read_documents(path, by(DocumentRule::line)), (Strings{"one", "two", "three  ", "\tfour"}));
  EXPECT_EQ(read_documents(path, by(DocumentRule::paragraph)), (Strings{"one\ntwo", "three  \n\tfour"}));
  put(path, "");
  for (const DocumentRule rule : {DocumentRule::file, DocumentRule::line, DocumentRule::paragraph}) {
    EXPECT_EQ(read_documents(path, by(rule)), Strings{});
  }
}

TEST(TextReader, RealTextInEveryForm) {
  const TemporaryDirectory directory;
  const Strings documents = sample_documents(3'000'000);
  ASSERT_GT(documents.size(), 20U);
  std::string lines;
  std::string json;
  for (const std::string& document : documents) {
    lines += document + "\n";
    json += nlohmann::json({{"text", document}, {"other", 1}}).dump() + "\n";
  }
  put(directory / "a.txt", lines);
  put(directory / "a.jsonl", json);
  put(directory / "b.txt.zst", compress(lines));
  put(directory / "b.jsonl.zst", compress(json));
  // Several frames one after the other are one text.
  put(directory / "c.txt.zst", compress(lines.substr(0, 777777)) + compress("") + compress(lines.substr(777777)));
  for (const char* name : {"a.txt", "a.jsonl", "b.txt.zst", "b.jsonl.zst", "c.txt.zst"}) {
    EXPECT_EQ(read_documents(directory / name, by(DocumentRule::line)), documents) << name;
  }
  EXPECT_EQ(read_documents(directory / "c.txt.zst"), Strings{lines});
}

TEST(TextReader, DamagedFramesAreRefused) {
  const TemporaryDirectory directory;
  const auto path = directory / "a.txt.zst";
  std::string lines;
  for (const std::string& document : sample_documents(100'000)) lines += document + "\n";
  const std::string good = compress(lines);
  for (size_t size = 0; size < good.size(); size += size < 32 || size + 32 > good.size() ? 1 : 997) {
    if (size == 1) continue;  // a text of one character
    put(path, good.substr(0, size));
    const std::string text = expect_error(ExitCode::bad_data, [&] { read_documents(path); });
    EXPECT_NE(text.find("a.txt.zst"), std::string::npos) << text;
    // A file that is cut between two frames is a valid shorter text; a file that is cut inside a frame is an error.
    if (size == 0) continue;
    put(path, good + good.substr(0, size));
    expect_error(ExitCode::bad_data, [&] { read_documents(path); });
  }
  put(path, good + "rest");
  expect_error(ExitCode::bad_data, [&] { read_documents(path); });
  put(path, "plain text");
  EXPECT_EQ(read_documents(path), Strings{"plain text"});  // as some download programs leave it
  // The sample's frame has a checksum: any change of a byte is found.
  const std::string sample = slurp(sample_text());
  for (size_t i = 0; i < sample.size(); i += sample.size() / 7) {
    std::string bad = sample;
    bad[i] = static_cast<char>(bad[i] ^ 0x10);
    put(path, bad);
    expect_error(ExitCode::bad_data, [&] { read_documents(path); });
  }
}

TEST(TextReader, JsonErrorsNameTheLine) {
  const TemporaryDirectory directory;
  const auto path = directory / "a.jsonl";
  for (const std::string line : {"{", "[]", "\"text\"", "{\"other\": \"x\"}", "{\"text\": 5}",
                                 "{\"text\": \"\\ud800\"}", "{\"text\": \"x\"} {}", "nul"}) {
    put(path, "{\"text\": \"fine\"}\n\n" + line + "\n");
    const std::string text = expect_error(ExitCode::bad_data, [&] { read_documents(path); });
    EXPECT_NE(text.find("line 3"), std::string::npos) << text;
  }
  put(path, std::string(2'000'000, '['));
  expect_error(ExitCode::bad_data, [&] { read_documents(path); });
  put(path, "{\"body\": \"tab\\t \\u00e9 \\ud83d\\ude00\"}\n{\"body\": \"\"}\n");
  TextOptions options;
  options.text_key = "body";
  EXPECT_EQ(read_documents(path, options), Strings{"tab\t \xC3\xA9 \xF0\x9F\x98\x80"});
  put(directory / "a.json", "[]");
  expect_error(ExitCode::bad_data, [&] { read_documents(directory / "a.json"); });
}

TEST(TextReader, InvalidUtf8NamesTheByte) {
  const TemporaryDirectory directory;
  const auto path = directory / "a.txt";
  put(path, "fine\nalso\xC3\xA9 fine\nbad \xFF\xFE here\n");
  for (const DocumentRule rule : {DocumentRule::file, DocumentRule::line, DocumentRule::paragraph}) {
    const std::string text = expect_error(ExitCode::bad_data, [&] { read_documents(path, by(rule)); });
    EXPECT_NE(text.find("byte 21 "), std::string::npos) << text;
    EXPECT_NE(text.find("0xff"), std::string::npos) << text;
  }
  TextOptions options = by(DocumentRule::line);
  options.replace_invalid = true;
  TextReader reader(path, "shown", options);
  RawDocument raw;
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(reader.next(raw));
  EXPECT_EQ(raw.line, 3U);
  EXPECT_EQ(*raw.file, "shown");
  const Document document = parse_document(std::move(raw), options);
  EXPECT_EQ(document.text, "bad \xEF\xBF\xBD\xEF\xBF\xBD here");
  EXPECT_EQ(document.replaced_bytes, 2U);
  put(directory / "a.jsonl", "{\"text\": \"\xFF\"}\n");
  expect_error(ExitCode::bad_data, [&] { read_documents(directory / "a.jsonl"); });
  EXPECT_EQ(read_documents(directory / "a.jsonl", options), Strings{"\xEF\xBF\xBD"});
}

TEST(TextReader, LongDocumentsAreRefused) {
  const TemporaryDirectory directory;
  put(directory / "a.txt", std::string(500, 'a') + "\n" + std::string(600, 'b') + "\n");
  TextOptions options = by(DocumentRule::file);
  options.max_document_bytes = 1000;
  expect_error(ExitCode::bad_data, [&] { read_documents(directory / "a.txt", options); });
  options.documents = DocumentRule::line;
  EXPECT_EQ(read_documents(directory / "a.txt", options).size(), 2U);
  options.max_document_bytes = 600;
  const std::string text = expect_error(ExitCode::bad_data, [&] { read_documents(directory / "a.txt", options); });
  EXPECT_NE(text.find("line 2"), std::string::npos) << text;
}

TEST(TextReader, MissingFilesAndFolders) {
  const TemporaryDirectory directory;
  for (const char* name : {"a.txt", "a.jsonl", "a.txt.zst", ""}) {
    expect_error(ExitCode::missing_input, [&] { read_documents(directory / name); });
  }
}

TEST(TextReader, OtherKeysMayHoldAnything) {
  const TemporaryDirectory directory;
  const auto path = directory / "a.jsonl";
  put(path,
      "{\"a\": NaN, \"text\": \"one\", \"b\": [-Infinity, 1e400, {\"text\": \"inner\"}], \"c\": \"\\ud800\"}\n"
      "{\"a\": 123456789012345678901234567890, \"t\\u0065xt\": \"two\"}\r\n"
      "{\"text\": \"first\", \"text\": \"three\"}\n"
      "  \n\t\r\n"
      "{\"text\": \" \"}\n"
      "{\"a\": " +
          std::string(100'000, '[') + std::string(100'000, ']') + ", \"text\": \"four\"}");
  EXPECT_EQ(read_documents(path), (Strings{"one", "two", "three", " ", "four"}));
  for (const std::string bad : {"{\"text\": \"x\", \"a\": [1}", "{\"text\": \"x\",}", "{\"a\": \"text\": \"x\"}",
                                "{\"text\": \"x\"", "{\"text\": \"x\"}}", "{\"text\": null}", "{\"text\": [\"x\"]}"}) {
    put(path, bad + "\n");
    const std::string text = expect_error(ExitCode::bad_data, [&] { read_documents(path); });
    EXPECT_NE(text.find("line 1"), std::string::npos) << text;
  }
  put(path, "{\"content\": \"x\", \"url\": 1}\n");
  EXPECT_NE(expect_error(ExitCode::bad_data, [&] { read_documents(path); }).find("its keys are \"content\", \"url\""),
            std::string::npos);
}

TEST(TextReader, NamesTellJsonLinesInEverySpelling) {
  const TemporaryDirectory directory;
  const std::string json = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n";
  for (const char* name : {"a.jsonl", "a.JSONL", "a.ndjson", "a.json", "a.Json.ZST", "part-00000", "a.00001.zst"}) {
    for (const std::string mark : {"", "\xEF\xBB\xBF"}) {
      const bool is_compressed = lower_case(name).ends_with(".zst");
      put(directory / name, is_compressed ? compress(mark + json) : mark + json);
      EXPECT_EQ(read_documents(directory / name), (Strings{"one", "two"})) << name << mark;
    }
  }
  put(directory / "a.txt", json);
  EXPECT_EQ(read_documents(directory / "a.txt"), Strings{json});
  put(directory / "b.json", "{\n  \"text\": \"one\"\n}\n");
  expect_error(ExitCode::bad_data, [&] { read_documents(directory / "b.json"); });
}

TEST(TextReader, MarksAndBlankLinesAreNoText) {
  const TemporaryDirectory directory;
  const auto path = directory / "a.txt";
  const std::string ideographic_space = "\xE3\x80\x80";
  const std::string text = "one\n  \t\r\n two\n" + ideographic_space + "\n\f\nthree\n\xC2\xA0\n";
  for (const std::string mark : {"", "\xEF\xBB\xBF"}) {
    put(path, mark + text);
    EXPECT_EQ(read_documents(path, by(DocumentRule::file)), Strings{text});
    EXPECT_EQ(read_documents(path, by(DocumentRule::line)), (Strings{"one", " two", "three"}));
    EXPECT_EQ(read_documents(path, by(DocumentRule::paragraph)), (Strings{"one", " two", "three"}));
    put(path, mark + " \n\n" + ideographic_space);
    for (const DocumentRule rule : {DocumentRule::file, DocumentRule::line, DocumentRule::paragraph}) {
      EXPECT_EQ(read_documents(path, by(rule)), Strings{});
    }
  }
  put(path, "\xEF\xBB\xBF" + std::string("ab\nc\xFF"));
  EXPECT_NE(expect_error(ExitCode::bad_data, [&] { read_documents(path); }).find("byte 7 "), std::string::npos);
}

TEST(TextReader, LargeZstdWindows) {
  const TemporaryDirectory directory;
  const std::string text = "a text that is much shorter than the window of its frame\n";
  for (const int window_log : {27, 28, 31}) {
    const std::unique_ptr<ZSTD_CCtx, size_t (*)(ZSTD_CCtx*)> context(ZSTD_createCCtx(), ZSTD_freeCCtx);
    ZSTD_CCtx_setParameter(context.get(), ZSTD_c_windowLog, window_log);
    std::string frame(1000, '\0');
    ZSTD_outBuffer output = {frame.data(), frame.size(), 0};
    ZSTD_inBuffer input = {text.data(), text.size(), 0};
    // Flushing before the end keeps zstd from writing the size, and with it a smaller window, into the frame.
    ASSERT_EQ(ZSTD_compressStream2(context.get(), &output, &input, ZSTD_e_flush), 0U);
    ASSERT_EQ(ZSTD_compressStream2(context.get(), &output, &input, ZSTD_e_end), 0U);
    put(directory / "a.zst", frame.substr(0, output.pos));
    EXPECT_EQ(read_documents(directory / "a.zst"), Strings{text}) << window_log;
  }
}

TEST(Utf8, EdgesOfTheDefinition) {
  for (const std::string valid :
       {"", "a", "\x7F", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80", "\xEF\xBF\xBF",
        "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF", "eight bytes and \xC3\xA9 more"}) {
    EXPECT_FALSE(find_invalid_utf8(valid)) << valid;
  }
  for (const std::string invalid :
       {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC2", "\xC2\x41", "\xE0\x9F\xBF", "\xE0\xA0", "\xED\xA0\x80",
        "\xF0\x8F\xBF\xBF", "\xF0\x90\x80", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xE2\x28\xA1"}) {
    EXPECT_EQ(find_invalid_utf8(invalid), 0U) << invalid;
    EXPECT_EQ(find_invalid_utf8("0123456\xC3\xA9" + invalid), 9U) << invalid;
    std::string text = "a" + invalid + "b";
    EXPECT_GE(replace_invalid_utf8(text), 1U);
    EXPECT_FALSE(find_invalid_utf8(text));
  }
}

}  // namespace
}  // namespace nibble
