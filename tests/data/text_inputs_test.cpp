#include "data/text/text_inputs.h"

#include <archive.h>
#include <archive_entry.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <memory>

#include "data/text/document_stream.h"
#include "tests/data/test_files.h"

namespace nibble {
namespace {

using Strings = std::vector<std::string>;
using Files = std::vector<std::pair<std::string, std::string>>;  // name, content

std::vector<std::string> names_of(const std::vector<std::string>& inputs) {
  std::vector<std::string> names;
  for (const TextInput& input : find_text_inputs(inputs)) names.push_back(input.path.string());
  return names;
}

// Returns an archive with these files, compressed with this filter of libarchive (0: not at all).
std::string archive_of(const Files& files, int filter) {
  const std::unique_ptr<archive, int (*)(archive*)> archive(archive_write_new(), archive_write_free);
  std::string bytes(size_t{1} << 20U, '\0');
  size_t used = 0;
  archive_write_add_filter(archive.get(), filter);
  archive_write_set_format_pax_restricted(archive.get());
  EXPECT_EQ(archive_write_open_memory(archive.get(), bytes.data(), bytes.size(), &used), ARCHIVE_OK);
  for (const auto& [name, content] : files) {
    const std::unique_ptr<archive_entry, void (*)(archive_entry*)> entry(archive_entry_new(), archive_entry_free);
    archive_entry_set_pathname(entry.get(), name.c_str());
    archive_entry_set_size(entry.get(), static_cast<la_int64_t>(content.size()));
    archive_entry_set_filetype(entry.get(), name.ends_with('/') ? AE_IFDIR : AE_IFREG);
    archive_entry_set_perm(entry.get(), 0644);
    EXPECT_EQ(archive_write_header(archive.get(), entry.get()), ARCHIVE_OK);
    archive_write_data(archive.get(), content.data(), content.size());
  }
  archive_write_close(archive.get());
  return bytes.substr(0, used);
}

std::string compressed(const std::string& content, int filter) {
  const std::unique_ptr<archive, int (*)(archive*)> archive(archive_write_new(), archive_write_free);
  std::string bytes(content.size() + 100'000, '\0');
  size_t used = 0;
  archive_write_add_filter(archive.get(), filter);
  archive_write_set_format_raw(archive.get());
  EXPECT_EQ(archive_write_open_memory(archive.get(), bytes.data(), bytes.size(), &used), ARCHIVE_OK);
  const std::unique_ptr<archive_entry, void (*)(archive_entry*)> entry(archive_entry_new(), archive_entry_free);
  archive_entry_set_filetype(entry.get(), AE_IFREG);
  archive_write_header(archive.get(), entry.get());
  archive_write_data(archive.get(), content.data(), content.size());
  archive_write_close(archive.get());
  return bytes.substr(0, used);
}

const std::vector<std::pair<std::string, int>> filters = {{"gz", ARCHIVE_FILTER_GZIP},
                                                          {"xz", ARCHIVE_FILTER_XZ},
                                                          {"bz2", ARCHIVE_FILTER_BZIP2},
                                                          {"zst", ARCHIVE_FILTER_ZSTD}};

std::vector<std::string> stream_documents(const std::vector<std::string>& inputs, StreamOptions options = {}) {
  DocumentStream stream(find_text_inputs(inputs), std::move(options));
  std::vector<std::string> texts;
  for (std::vector<Document> batch; stream.next(batch);) {
    for (const Document& document : batch) texts.push_back(document.text);
  }
  EXPECT_EQ(stream.progress().documents, texts.size());
  return texts;
}

TEST(TextInputs, DirectoriesPatternsAndOrder) {
  const TemporaryDirectory directory;
  const std::string root = directory.path().string();
  for (const char* name : {"a", "a/b", "a.d", "empty"}) std::filesystem::create_directory(directory / name);
  for (const char* name : {"a/2.txt", "a/b/1.txt", "a.d/3.txt", "a.txt", "z[1].txt"}) put(directory / name, name);
  EXPECT_EQ(names_of({root + "/"}), (Strings{root + "/a.d/3.txt", root + "/a.txt", root + "/a/2.txt",
                                             root + "/a/b/1.txt", root + "/z[1].txt"}));
  EXPECT_EQ(names_of({root + "/a*"}),
            (Strings{root + "/a/2.txt", root + "/a/b/1.txt", root + "/a.d/3.txt", root + "/a.txt"}));
  EXPECT_EQ(names_of({root + "/z[1].txt", root + "/a.txt"}), (Strings{root + "/z[1].txt", root + "/a.txt"}));
  for (const std::string name : {"/none.txt", "/none*", "/empty", "/z[2].txt"}) {
    expect_error(ExitCode::missing_input, [&] { names_of({root + name}); });
  }
  std::filesystem::create_directory_symlink(directory.path(), directory / "a/loop");
  expect_error(ExitCode::missing_input, [&] { names_of({root}); });
  ASSERT_EQ(::mkfifo((directory / "pipe").c_str(), 0600), 0);
  EXPECT_TRUE(find_text_inputs({root + "/pipe"}).front().is_stream);
  EXPECT_TRUE(find_text_inputs({"-"}).front().is_stream);
}

TEST(TextInputs, TheSameDocumentsHoweverTheyArePacked) {
  const TemporaryDirectory directory;
  const std::string json = "{\"text\": \"three\"}\n{\"text\": \"four\"}\n";
  const Files files = {{"d/", ""}, {"d/b.txt", "one\ntwo\n"}, {"d/a.jsonl", json}, {"d/empty", ""}};
  const Strings expected = {"one", "two", "three", "four"};
  StreamOptions options;
  options.text.documents = DocumentRule::line;
  put(directory / "b.txt", files[1].second);
  put(directory / "a.jsonl", json);
  EXPECT_EQ(stream_documents({directory / "b.txt", directory / "a.jsonl"}, options), expected);
  put(directory / "plain.tar", archive_of(files, ARCHIVE_FILTER_NONE));
  EXPECT_EQ(stream_documents({directory / "plain.tar"}, options), expected);
  for (const auto& [ending, filter] : filters) {
    put(directory / ("packed.tar." + ending), archive_of(files, filter));
    EXPECT_EQ(stream_documents({directory / ("packed.tar." + ending)}, options), expected) << ending;
    put(directory / ("b.txt." + ending), compressed(files[1].second, filter));
    put(directory / ("a.jsonl." + ending), compressed(json, filter));
    EXPECT_EQ(stream_documents({directory / ("b.txt." + ending), directory / ("a.jsonl." + ending)}, options), expected)
        << ending;
    // Files that are compressed inside an archive, and concatenated members.
    put(directory / "inner.tar", archive_of({{"x.txt." + ending, compressed("one\ntwo\n", filter)},
                                             {"y.JSONL." + ending, compressed(json, filter)}},
                                            ARCHIVE_FILTER_NONE));
    EXPECT_EQ(stream_documents({directory / "inner.tar"}, options), expected) << ending;
    put(directory / "two", compressed("one\nt", filter) + compressed("wo\n", filter));
    EXPECT_EQ(stream_documents({directory / "two", directory / "a.jsonl"}, options), expected) << ending;
  }
  put(directory / "gz", compressed("", ARCHIVE_FILTER_GZIP));
  EXPECT_EQ(stream_documents({directory / "gz"}, options), Strings{});
}

TEST(TextInputs, DamagedPackagesAreRefused) {
  const TemporaryDirectory directory;
  std::string text;
  for (int i = 0; i < 5000; ++i) text += "line " + std::to_string(i * 7919 % 5003) + "\n";
  for (const auto& [ending, filter] : filters) {
    const std::string name = "a.txt." + ending;
    const std::string good = compressed(text, filter);
    for (const size_t size : {good.size() - 1, good.size() / 2, size_t{20}}) {
      put(directory / name, good.substr(0, size));
      const std::string message = expect_error(ExitCode::bad_data, [&] { stream_documents({directory / name}); });
      EXPECT_NE(message.find(name), std::string::npos) << message;
    }
    put(directory / name, "");
    expect_error(ExitCode::bad_data, [&] { stream_documents({directory / name}); });
  }
  const std::string tar = archive_of({{"a.txt", text}, {"b.txt", text}}, ARCHIVE_FILTER_NONE);
  for (const size_t size : {size_t{700}, tar.size() / 2}) {
    put(directory / "a.tar", tar.substr(0, size));
    expect_error(ExitCode::bad_data, [&] { stream_documents({directory / "a.tar"}); });
  }
  put(directory / "a.tar", archive_of({{"a.txt", "text"}, {"b.parquet", "PAR1 and more"}}, ARCHIVE_FILTER_NONE));
  const std::string message = expect_error(ExitCode::bad_data, [&] { stream_documents({directory / "a.tar"}); });
  EXPECT_NE(message.find("a.tar/b.parquet: this is Parquet data"), std::string::npos) << message;
}

TEST(DocumentStream, BadDocumentsAreLeftOutUpToALimit) {
  const TemporaryDirectory directory;
  std::string lines;
  Strings expected;
  for (int i = 0; i < 1000; ++i) {
    if (i == 10) lines += "{\"text\": null}\n";
    if (i == 500) lines += "no JSON\n{\"text\": \"\xFF\"}\n";
    expected.push_back("text " + std::to_string(i));
    lines += "{\"text\": \"" + expected.back() + "\"}\n";
  }
  put(directory / "a.jsonl", lines);
  StreamOptions options;
  options.most_bad = 3;
  options.batch_bytes = 1000;
  Strings faults;
  options.report_bad = [&](const Document& document) { faults.push_back(document.fault); };
  EXPECT_EQ(stream_documents({directory / "a.jsonl"}, options), expected);
  ASSERT_EQ(faults.size(), 3U);
  EXPECT_NE(faults[0].find("a.jsonl: line 11: the value of \"text\" is not a string"), std::string::npos) << faults[0];
  EXPECT_NE(faults[1].find("a.jsonl: line 502: not"), std::string::npos) << faults[1];
  EXPECT_NE(faults[2].find("line 503, value 0xff"), std::string::npos) << faults[2];
  options.most_bad = 2;
  const std::string message =
      expect_error(ExitCode::bad_data, [&] { stream_documents({directory / "a.jsonl"}, options); });
  EXPECT_NE(message.find("line 503"), std::string::npos) << message;
  options.most_bad = UINT64_MAX;
  EXPECT_EQ(stream_documents({directory / "a.jsonl"}, options), expected);
}

TEST(DocumentStream, ErrorsComeAfterTheDocumentsBeforeThem) {
  const TemporaryDirectory directory;
  put(directory / "a.txt", "one\ntwo\n");
  StreamOptions options;
  options.text.documents = DocumentRule::line;
  DocumentStream stream({{.path = directory / "a.txt", .name = "a"}, {.path = directory / "none", .name = "none"}},
                        options);
  std::vector<Document> batch;
  ASSERT_TRUE(stream.next(batch));
  EXPECT_EQ(batch.size(), 2U);
  expect_error(ExitCode::missing_input, [&] { stream.next(batch); });
  // A stream that nobody reads to its end stops.
  std::string long_text;
  for (int i = 0; i < 100'000; ++i) long_text += "a line of text\n";
  put(directory / "b.txt", long_text);
  options.batch_bytes = 10;
  DocumentStream unread(find_text_inputs({directory / "b.txt"}), options);
  EXPECT_TRUE(unread.next(batch));
}

}  // namespace
}  // namespace nibble
