// The memory plan of a model on a GPU is the closed formula of docs/gpu.md, to the byte. The formula stands here a
// second time, from shapes alone, so that whoever changes the plan changes the formula too.
#include <algorithm>
#include <map>
#include <string>

#include "cuda/device_fixture.h"
#include "dist/device/device.h"
#include "model/language_model.h"
#include "model/ops/attention/attention_backend_kind.h"
#include "quant/gemm/cuda/gemm_rules.h"
#include "quant/gemm/gemm_backend_kind.h"

namespace nibble {
namespace {

using Plan = std::map<std::string, int64_t>;  // bytes by arena

int64_t up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}
// Returns the bytes that a tensor of so many bytes takes.
int64_t taken(int64_t bytes) {
  return up(bytes, 512);
}

// How the operands of a linear layer are stored.
struct Storage {
  int64_t bits = 0;         // bits of a code; 0: bf16, not quantised
  int64_t block = 0;        // elements a block scale; 0: none
  bool reads_back = false;  // backward quantises the saved forward operands
  bool eden = false;        // MS-EDEN, post hoc: all four operands of backward
};
constexpr Storage in_bf16{};
constexpr Storage in_nvfp4{.bits = 4, .block = 16};
constexpr Storage in_quartet2{.bits = 4, .block = 16, .reads_back = true, .eden = true};
constexpr Storage in_mxfp8{.bits = 8, .block = 32};
constexpr Storage in_fp8{.bits = 8};

struct Case {
  std::string name;
  ModelConfig config;
  LanguageModelOptions options;
  Recipe recipe;
  Storage inner = in_bf16;      // storage of the blocks, but for
  int64_t first = 0, last = 0;  // so many at both ends, which are bf16
  Storage head = in_bf16;
  bool emulated = true;
  int64_t largest_part = int64_t{256} << 20;
};

class Formula {
 public:
  explicit Formula(const Case& wanted)
      : case_(wanted),
        h_(wanted.config.hidden_size),
        f_(wanted.config.intermediate_size),
        v_(wanted.config.vocab_size),
        q_(wanted.config.query_heads * wanted.config.head_dim),
        qkv_(q_ + 2 * wanted.config.kv_heads * wanted.config.head_dim),
        t_(wanted.options.sequences * wanted.options.sequence_length),
        training_(wanted.options.training) {}

  Plan plan() const {
    Plan plan;
    const int64_t blocks = case_.config.blocks();
    plan["inputs of the blocks"] = (training_ ? blocks + 1 : 1) * taken(2 * t_ * h_);
    int64_t weights = taken(8 * (2 * blocks + 1)) + weights_of(h_, v_, case_.head);
    int64_t saved = 0;
    int64_t shared = 0;
    int64_t work = linear_work(chunk(), h_, v_, case_.head);
    for (int64_t b = 0; b < blocks; ++b) {
      const bool attention = case_.config.pattern[static_cast<size_t>(b)] == '*';
      const bool high = b < case_.first || b >= blocks - case_.last;
      const Storage& storage = high ? in_bf16 : case_.inner;
      weights += attention ? weights_of(h_, qkv_, storage) + weights_of(q_, h_, storage)
                           : weights_of(h_, 2 * f_, storage) + weights_of(f_, h_, storage);
      const int64_t own = attention ? attention_saved(storage) : mlp_saved(storage);
      const bool again = !case_.options.recompute.empty() && case_.options.recompute[static_cast<size_t>(b)];
      if (training_ && !again) saved += own;
      if (!training_ || again) shared = std::max(shared, own);
      work = std::max(work, attention ? attention_work(storage) : mlp_work(storage));
    }
    plan["quantised weights"] = weights;
    plan["activations saved for backward"] = saved;
    plan["activations of one block, shared"] = shared;
    plan["workspace"] = lasting_work() + work;
    plan[head_name()] = head_memory();
    const bool has_own_gradient = case_.options.sums_micro_batches && (case_.config.tied_head || chunk() < t_);
    plan["the head's gradient of one micro-batch"] = has_own_gradient ? taken(4 * h_) + taken(4 * v_ * h_) : 0;
    std::erase_if(plan, [](const auto& line) { return line.second == 0; });
    return plan;
  }

 private:
  // K(r, k): the bytes of an operand in its storage format.
  static int64_t operand(int64_t r, int64_t k, const Storage& s) {
    if (s.bits == 0) return 0;
    const int64_t scales = s.block == 0 ? 0 : 512 * (up(r, 128) / 128) * (up(k, 4 * s.block) / (4 * s.block));
    return taken(r * k * s.bits / 8) + scales + taken(8);
  }
  // P(r, k): the bytes of the pseudo-scales of post hoc MS-EDEN.
  static int64_t pseudo_scales(int64_t r, int64_t k, const Storage& s) { return s.eden ? taken(4 * r * (k / 16)) : 0; }
  // E(m, n, k): the bytes of both operands of an emulated GEMM in BF16.
  int64_t decoded(int64_t m, int64_t n, int64_t k, const Storage& s) const {
    if (s.bits == 0 || !case_.emulated) return 0;
    const int64_t rows = std::max<int64_t>(128, case_.largest_part / (2 * k) / 128 * 128);
    return taken(2 * k * std::min(m, rows)) + taken(2 * k * std::min(n, rows));
  }

  int64_t weights_of(int64_t in, int64_t out, const Storage& s) const {
    return operand(out, in, s) + (training_ ? operand(in, out, s) : 0);
  }
  static int64_t linear_saved(int64_t in, int64_t tokens, const Storage& s) { return operand(in, tokens, s); }
  int64_t linear_work(int64_t tokens, int64_t in, int64_t out, const Storage& s) const {
    const int64_t forward_only = operand(tokens, in, s) + decoded(tokens, out, in, s);
    if (!training_) return forward_only;
    const int64_t weight = (s.reads_back ? taken(4 * in * out) : 0) + pseudo_scales(in, out, s);
    const int64_t input = (s.reads_back ? taken(4 * in * tokens) : 0) + pseudo_scales(in, tokens, s);
    const int64_t gradients = operand(tokens, out, s) + pseudo_scales(tokens, out, s) + operand(out, tokens, s) +
                              pseudo_scales(out, tokens, s);
    const int64_t products = std::max(decoded(tokens, in, out, s), decoded(out, in, tokens, s));
    return std::max({weight, input + forward_only, gradients + products});
  }
  int64_t norm_work() const { return taken(4 * 32 * h_); }

  int64_t attention_saved(const Storage& s) const {
    const bool keeps_normed = training_ && s.bits == 0;
    const int64_t kept = training_ ? linear_saved(h_, t_, s) + linear_saved(q_, t_, s) : 0;
    return taken(2 * t_ * qkv_) + taken(2 * t_ * q_) + taken(4 * t_ * case_.config.query_heads) +
           (keeps_normed ? taken(2 * t_ * h_) : 0) + taken(4 * t_) + kept;
  }
  int64_t attention_work(const Storage& s) const {
    const int64_t own = taken(2 * t_ * h_) + taken(4 * t_ * case_.config.query_heads);
    const int64_t linears = std::max(linear_work(t_, h_, qkv_, s), linear_work(t_, q_, h_, s));
    const int64_t layers = std::max(linears, head_norm_work());
    if (!training_) return own + layers;
    const int64_t bias = case_.config.qkv_bias ? taken(4 * 32 * qkv_) : 0;
    return own + taken(2 * t_ * q_) + taken(2 * t_ * qkv_) + std::max({layers, norm_work(), bias});
  }
  int64_t head_norm_work() const {
    if (!case_.config.qk_norm) return 0;
    const int64_t heads = case_.config.query_heads + case_.config.kv_heads;
    const int64_t sums = training_ ? taken(4 * 32 * heads * case_.config.head_dim) : 0;
    return taken(2 * t_ * qkv_) + taken(4 * t_ * heads) + sums;
  }
  int64_t mlp_saved(const Storage& s) const {
    const int64_t kept = training_ ? linear_saved(h_, t_, s) + linear_saved(f_, t_, s) : 0;
    const bool keeps_inputs = training_ && s.bits == 0;
    return taken(4 * t_ * f_) + (keeps_inputs ? taken(2 * t_ * h_) + taken(2 * t_ * f_) : 0) + taken(4 * t_) + kept;
  }
  int64_t mlp_work(const Storage& s) const {
    const int64_t own = taken(2 * t_ * h_) + taken(2 * t_ * f_);
    const int64_t linears = std::max(linear_work(t_, h_, 2 * f_, s), linear_work(t_, f_, h_, s));
    if (!training_) return own + linears;
    return own + taken(4 * t_ * f_) + std::max(linears, norm_work());
  }
  int64_t lasting_work() const {
    const bool rotates = case_.config.pattern.find('*') != std::string::npos;
    const int64_t rope = rotates ? taken(4 * case_.options.sequence_length * case_.config.head_dim) : 0;
    return rope + (training_ ? taken(2 * t_ * h_) : 0) + (case_.options.document_mask ? 3 : 2) * taken(4 * t_);
  }

  int64_t chunk() const {
    if (case_.head.bits != 0) return t_;
    if (case_.options.head_chunk_tokens != 0) return std::min(t_, case_.options.head_chunk_tokens);
    const int64_t wanted = std::max<int64_t>(256, (int64_t{1} << 21) / v_);
    const int64_t chunks = (t_ + wanted - 1) / wanted;
    return std::min(t_, up((t_ + chunks - 1) / chunks, 16));
  }
  std::string head_name() const {
    const std::string name = "logits and their gradient";
    return chunk() >= t_ ? name : name + ", " + std::to_string(chunk()) + " tokens at a time";
  }
  int64_t head_memory() const {
    const int64_t capacity = chunk();
    const int64_t forward = taken(2 * capacity * h_) + taken(4 * capacity * v_) + taken(4 * t_) + taken(4 * capacity);
    if (!training_) return forward;
    return forward + taken(2 * chunk() * h_) + taken(2 * chunk() * v_) + linear_saved(h_, capacity, case_.head);
  }

  const Case& case_;
  int64_t h_, f_, v_, q_, qkv_, t_;
  bool training_;
};

// ---- Cases ----

ModelConfig config_of(const std::string& pattern, int64_t vocabulary, int64_t hidden, int64_t intermediate) {
  ModelConfig config;
  config.pattern = pattern;
  config.vocab_size = vocabulary;
  config.hidden_size = hidden;
  config.intermediate_size = intermediate;
  config.query_heads = 4;
  config.kv_heads = 2;
  config.head_dim = 64;
  config.sequence_length = 1024;
  return config;
}

// Returns a model in which no size equals another, and none is a multiple of the units of memory.
ModelConfig crooked_config() {
  ModelConfig config = config_of("*-*--*-", 1008, 144, 208);
  config.query_heads = 9;
  config.kv_heads = 3;
  config.head_dim = 48;
  return config;
}

LanguageModelOptions options_of(int64_t sequences, int64_t sequence_length, std::vector<bool> recompute = {}) {
  return {.sequences = sequences,
          .sequence_length = sequence_length,
          .device = DeviceKind::cuda,
          .recompute = std::move(recompute)};
}

Recipe plain(Format format) {
  return {.name = "plain", .linear = plain_recipe(format)};
}

// The recipe of configs/recipes/nvfp4.yaml: head, first block and the last 15 % of the blocks stay in bf16.
Recipe nvfp4() {
  const OperandSpec rows{.format = Format::nvfp4};
  const OperandSpec squares{.format = Format::nvfp4, .block = BlockShape::square};
  const OperandSpec gradient{.format = Format::nvfp4, .round = Rounding::stochastic_published};
  OperandSpec rotated_gradient = gradient;
  rotated_gradient.rotate = 16;
  return {
      .name = "nvfp4",
      .linear = {rows, squares, gradient, squares, rotated_gradient, {.format = Format::nvfp4, .rotate = 16}},
      .high_precision = {
          {.layers = {.match = "embedding|head"}}, {.layers = {.first_blocks = 1}}, {.layers = {.last_share = 0.15}}}};
}

// The recipe of configs/recipes/quartet2.yaml.
Recipe quartet2() {
  const OperandSpec rows{.format = Format::nvfp4, .scale = ScaleRule::four_over_six};
  const OperandSpec gradient{.format = Format::nvfp4,
                             .round = Rounding::ms_eden,
                             .correction = EdenCorrection::post_hoc_published,
                             .rotate = 128,
                             .signs = Signs::micro_batch};
  OperandSpec saved = gradient;
  saved.from = Source::saved;
  return {.name = "quartet2",
          .linear = {rows, rows, gradient, saved, gradient, saved},
          .high_precision = {{.layers = {.match = "embedding|head"}}}};
}

Case bf16_case(std::string name, ModelConfig config, LanguageModelOptions options) {
  return {.name = std::move(name),
          .config = std::move(config),
          .options = std::move(options),
          .recipe = plain(Format::bf16)};
}
Case nvfp4_case(std::string name, ModelConfig config, LanguageModelOptions options, int64_t last) {
  Case result{.name = std::move(name), .config = std::move(config), .options = std::move(options), .recipe = nvfp4()};
  result.inner = in_nvfp4;
  result.first = 1;
  result.last = last;
  return result;
}
Case quartet2_case(std::string name, ModelConfig config, LanguageModelOptions options) {
  Case result{
      .name = std::move(name), .config = std::move(config), .options = std::move(options), .recipe = quartet2()};
  result.inner = in_quartet2;
  return result;
}

std::vector<Case> cases() {
  const ModelConfig even = config_of("*-*-", 512, 256, 384);
  const ModelConfig deep = config_of("*-*-*-*-", 12800, 128, 256);  // several chunks of logits
  const ModelConfig wide_head = config_of("-", 4096, 256, 384);
  std::vector<Case> all;
  all.push_back(bf16_case("bf16", even, options_of(2, 128)));
  all.push_back(bf16_case("bf16, all recomputed", deep, options_of(5, 128, std::vector<bool>(8, true))));
  all.push_back(bf16_case("bf16, crooked", crooked_config(), options_of(3, 80)));
  all.push_back(nvfp4_case("nvfp4", even, options_of(2, 128), 1));
  all.push_back(nvfp4_case("nvfp4, some recomputed", deep,
                           options_of(1, 1024, {false, true, true, false, false, true, true, true}), 2));
  all.push_back(nvfp4_case("nvfp4, crooked", crooked_config(), options_of(3, 80), 2));
  all.push_back(quartet2_case("quartet2", even, options_of(2, 128)));
  all.push_back(quartet2_case("quartet2, all recomputed", deep, options_of(5, 128, std::vector<bool>(8, true))));
  all.push_back(quartet2_case("quartet2, few tokens", config_of("*-", 512, 512, 1024), options_of(1, 128)));
  all.push_back(nvfp4_case("nvfp4, documents", crooked_config(), options_of(3, 80), 2));
  all.back().options.document_mask = true;
  all.push_back(bf16_case("bf16, longer chunks of logits", deep, options_of(5, 128)));
  all.back().options.head_chunk_tokens = 512;
  all.push_back(bf16_case("bf16, sums of several micro-batches", deep, options_of(5, 128)));
  all.back().options.sums_micro_batches = true;
  all.push_back(bf16_case("bf16, sums of several micro-batches, one chunk of logits", even, options_of(2, 128)));
  all.back().options.sums_micro_batches = true;
  for (const bool training : {true, false}) {
    Case normed = bf16_case("bf16, normalised heads and bias", crooked_config(), options_of(3, 80));
    normed.config.qkv_bias = normed.config.qk_norm = true;
    normed.options.training = training;
    all.push_back(normed);
  }
  for (Storage storage : {in_mxfp8, in_fp8}) {
    const bool micro = storage.block != 0;
    Case quantised_head = bf16_case(micro ? "mxfp8, head too" : "fp8, head too", wide_head, options_of(2, 128));
    quantised_head.recipe = plain(micro ? Format::mxfp8_e4m3 : Format::fp8_e4m3);
    quantised_head.inner = quantised_head.head = storage;
    all.push_back(quantised_head);
  }
  for (size_t original : {size_t{4}, size_t{7}}) {
    Case exact = all[original];
    exact.name += ", exact products";
    exact.emulated = false;
    all.push_back(exact);
    Case in_pieces = all[original];
    in_pieces.name += ", decoded in pieces";
    in_pieces.largest_part = 70000;
    all.push_back(in_pieces);
    Case inference = all[original];
    inference.name += ", inference";
    inference.options.training = false;
    inference.options.recompute = {};
    all.push_back(inference);
  }
  return all;
}

class MemoryPlan : public DeviceTest {};

TEST_F(MemoryPlan, IsTheFormula) {
  cuda::use_device(0);
  set_attention_backend(AttentionBackendKind::exact);
  for (const Case& wanted : cases()) {
    SCOPED_TRACE(wanted.name);
    cuda::set_gemm_backend(wanted.emulated ? cuda::GemmBackendKind::emulated : cuda::GemmBackendKind::exact);
    cuda::set_largest_decoded_part(wanted.largest_part);
    const LanguageModel model(wanted.config, wanted.recipe, wanted.options);
    Plan planned;
    for (const MemoryLine& line : model.memory()) planned[line.what] = static_cast<int64_t>(line.bytes);
    EXPECT_EQ(planned, Formula(wanted).plan());

    using Products = DescribedGpu::Products;
    describe_gpu(DescribedGpu{.capability = 90, .products = wanted.emulated ? Products::emulated : Products::exact});
    LanguageModelOptions options = wanted.options;
    options.measure_only = true;
    Plan described;
    for (const MemoryLine& line : LanguageModel(wanted.config, wanted.recipe, options).memory()) {
      described[line.what] = static_cast<int64_t>(line.bytes);
    }
    describe_gpu(std::nullopt);
    EXPECT_EQ(described, planned) << "the plan for a GPU that is only described";
  }
}

// In the flat buffers of weights and gradients every parameter begins at a multiple of 16 elements.
TEST_F(MemoryPlan, ParametersAreTheSumOfTheirRoundedSizes) {
  for (const Case& wanted : cases()) {
    const ModelConfig& config = wanted.config;
    const int64_t h = config.hidden_size;
    const int64_t q = config.query_heads * config.head_dim;
    const int64_t qkv = q + 2 * config.kv_heads * config.head_dim;
    int64_t elements = 2 * config.vocab_size * h + h;
    const int64_t vectors = (config.qkv_bias ? qkv : 0) + (config.qk_norm ? 2 * config.head_dim : 0);
    for (const char kind : config.pattern)
      elements += h + (kind == '*' ? h * (qkv + q) + vectors : 3 * h * config.intermediate_size);
    const LanguageModel model(config, wanted.recipe, wanted.options);
    EXPECT_EQ(model.parameters().flat_size(), static_cast<uint64_t>(elements)) << wanted.name;
  }
}

}  // namespace
}  // namespace nibble
