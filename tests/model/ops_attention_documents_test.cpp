// Tests documents that share a sequence and do not see each other, to the bit.
#include "model/attention_fixture.h"

namespace nibble {
namespace {

using namespace test;

TEST(AttentionDocuments, OneDocumentIsNoMask) {
  for (const Problem& problem : problems()) {
    Problem without = problem;
    without.attention.document_starts.clear();
    Problem whole = problem;
    whole.attention.document_starts.assign(problem.attention.sequences * problem.attention.length, 0);
    const Values qkv = problem.qkv();
    EXPECT_EQ(bytes_of_run<float>(without, qkv), bytes_of_run<float>(whole, qkv));
    EXPECT_EQ(bytes_of_run<BFloat16>(without, qkv), bytes_of_run<BFloat16>(whole, qkv));
  }
}

// Tests every token of every document, forward and backward, whatever the neighbouring documents hold.
TEST(AttentionDocuments, OtherDocumentsHaveNoInfluence) {
  const Problem problem{{2, 150, 4, 2, 8, packed(2, 150, {50, 1, 20, 64, 30})}};
  const Attention& attention = problem.attention;
  const Values qkv = problem.qkv();
  const auto before = run<float>(problem, qkv);
  const auto begins = [&](size_t token) {
    return static_cast<size_t>(attention.document_starts[token]) == token % attention.length;
  };
  size_t documents = 0;
  for (size_t first = 0; first < attention.document_starts.size(); ++first) {
    if (!begins(first)) continue;
    ++documents;
    size_t end = first + 1;
    while (end < attention.document_starts.size() && !begins(end)) ++end;
    Values other = qkv;
    for (size_t at = first * attention.width(); at < end * attention.width(); ++at) other[at] = -50 * other[at] + 3;
    const auto after = run<float>(problem, other);
    const auto expect_same_elsewhere = [&](const std::vector<float>& a, const std::vector<float>& b, const char* what) {
      const size_t features = a.size() / attention.document_starts.size();
      size_t different = 0;
      for (size_t at = 0; at < a.size(); ++at) {
        const size_t token = at / features;
        const bool same = bits_of(a[at]) == bits_of(b[at]);
        different += same ? 0 : 1;
        if (token < first || token >= end) {
          ASSERT_TRUE(same) << what << ": token " << token << " sees " << first;
        }
      }
      // If a document has one token only, its gradient depends on its output alone.
      if (end > first + 1) {
        EXPECT_GT(different, 0U) << what << ": the change must be visible";
      }
    };
    expect_same_elsewhere(before.output, after.output, "output");
    expect_same_elsewhere(before.grad_qkv, after.grad_qkv, "gradient");
  }
  EXPECT_GT(documents, 8U);
}

// A document that begins with a block of 64 tokens and fills blocks, or is the last, has the bits that it has alone.
template <class T>
void expect_bits_of_documents_alone() {
  const std::vector<size_t> lengths = {64, 192, 320, 64, 77};
  const Problem whole{{1, 717, 4, 2, 8, packed(1, 717, lengths)}};
  const Attention& attention = whole.attention;
  const size_t features = attention.query_heads * attention.head_dim;
  const Values qkv = whole.qkv();
  const Values grad_output = whole.grad_output();
  const auto expected = run<T>(whole, qkv);
  size_t first = 0;
  for (const size_t length : lengths) {
    const auto part = [&](const auto& values, size_t width) {
      const auto begin = values.begin() + static_cast<std::ptrdiff_t>(first * width);
      return std::decay_t<decltype(values)>(begin, begin + static_cast<std::ptrdiff_t>(length * width));
    };
    Problem alone = whole;
    alone.attention.length = length;
    alone.attention.document_starts.clear();
    alone.given_grad_output = part(grad_output, features);
    const auto actual = run<T>(alone, part(qkv, attention.width()));
    EXPECT_EQ(bytes_of(actual.output), bytes_of(part(expected.output, features))) << first;
    EXPECT_EQ(bytes_of(actual.grad_qkv), bytes_of(part(expected.grad_qkv, attention.width()))) << first;
    first += length;
  }
}

TEST(AttentionDocuments, DocumentsInBlocksHaveTheirBitsAlone) {
  expect_bits_of_documents_alone<float>();
  expect_bits_of_documents_alone<BFloat16>();
}

TEST(AttentionDocuments, RefusesDocumentsThatTheShapeDoesNotKnow) {
  AttentionShape shape{1, 8, 2, 1, 4};
  set_compute_threads(1);
  std::vector<float> qkv(8 * 16);
  std::vector<float> output(8 * 8);
  std::vector<float> log_sum_exp(8 * 2);
  std::vector<int32_t> document_starts(8);
  const int64_t floats = cpu::attention_workspace_floats(shape, 1);
  std::vector<float> workspace(static_cast<size_t>(floats));
  for (const bool in_shape : {false, true}) {
    for (const bool given : {false, true}) {
      shape.document_mask = in_shape;
      const Tensor starts_view = given ? view(document_starts, {8}) : Tensor();
      const AttentionForward problem{
          shape,      view(qkv, {8, 16}), view(output, {8, 8}), view(log_sum_exp, {1, 2, 8}), view(workspace, {floats}),
          starts_view};
      if (in_shape == given) {
        EXPECT_NO_THROW(attention_forward(problem));
      } else {
        EXPECT_THROW(attention_forward(problem), Error);
      }
    }
  }
}

}  // namespace
}  // namespace nibble
