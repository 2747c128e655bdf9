// Compares nibble's GEMMs and whole linear layers with oneDNN's BF16 GEMMs, interleaved in one run.
//
//   onednn_rival [--threads N] [--rounds N] [--amx]
//
// The rival is held to AVX-512 BF16 unless --amx lets it use the tile unit, which nibble's exact GEMMs cannot use.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cstdlib>
#include <dnnl.hpp>
#include <memory>
#include <string>
#include <utility>

#include "dist/device/thread_pool.h"
#include "model/exchange.h"
#include "model/layers/linear.h"
#include "quant/format/codec.h"
#include "quant/gemm/gemm.h"
#include "quant/isa/instruction_set.h"
#include "quant/recipe/recipe.h"
#include "trainer/bench/timing.h"

namespace nibble::bench {
namespace {

struct Shape {
  int64_t tokens, out, in;
  double product() const { return 2.0 * static_cast<double>(tokens * out * in); }
};

// Matrices that both sides read and write.
struct Matrices {
  explicit Matrices(const Shape& shape)
      : x(normals(shape.tokens * shape.in, 1)),
        w(normals(shape.out * shape.in, 2)),
        dy(normals(shape.tokens * shape.out, 3)),
        y(dy.size()),
        dx(x.size()),
        dw(w.size()) {}

  static std::vector<BFloat16> normals(int64_t count, uint64_t seed) {
    ParameterTable table;
    table.add("values", {count}, Initialization::normal, 1, false);
    std::vector<float> values(table.flat_size());
    initialize(table, seed, 0, values.size(), values.data());
    std::vector<BFloat16> rounded(static_cast<size_t>(count));
    for (size_t i = 0; i < rounded.size(); ++i) rounded[i] = bf16_nearest(values[i]);
    return rounded;
  }

  std::vector<BFloat16> x, w, dy, y, dx;
  std::vector<float> dw;
};

Tensor view(std::vector<BFloat16>& values, int64_t rows, int64_t cols) {
  return Tensor(values.data(), DType::bf16, {rows, cols});
}

// Returns NVIDIA's recipe (configs/recipes/nvfp4.yaml).
LinearRecipe nvidia_recipe() {
  LinearRecipe recipe = plain_recipe(Format::nvfp4);
  recipe.forward_w.block = recipe.grad_input_w.block = BlockShape::square;
  recipe.grad_input_dy.round = recipe.grad_weight_dy.round = Rounding::stochastic_published;
  recipe.grad_weight_dy.rotate = recipe.grad_weight_x.rotate = 16;
  return recipe;
}

// A training step of one layer: weights quantised anew, forward, backward.
class LayerStep {
 public:
  LayerStep(const LinearRecipe& recipe, const Shape& shape, Matrices& matrices) : shape_(shape), matrices_(matrices) {
    const uint32_t id = table_.add("layer", {shape.out, shape.in}, Initialization::normal, 1, true);
    linear_ = std::make_unique<Linear>(LinearDescription{.name = "layer",
                                                         .weight_id = id,
                                                         .features_in = shape.in,
                                                         .features_out = shape.out,
                                                         .dtype = DType::bf16,
                                                         .recipe = recipe});
    const LayerArenas arenas{weights_, saved_, workspace_, 1, shape.tokens, true};
    linear_->allocate(arenas);
    for (Arena* arena : {&weights_, &saved_, &workspace_}) arena->commit();
    linear_->allocate(arenas);
    linear_->set_non_finite(Tensor(&non_finite_, DType::i64, {1}));
    exchange_.bind(table_, Tensor(matrices.w.data(), DType::bf16, {shape.out * shape.in}),
                   Tensor(matrices.dw.data(), DType::f32, {shape.out * shape.in}));
    linear_->bind(exchange_.acquire(0, Direction::backward));
  }

  void run() {
    ++context_.step;
    linear_->set_weights_changed();
    linear_->forward({view(matrices_.x, shape_.tokens, shape_.in), view(matrices_.y, shape_.tokens, shape_.out),
                      context_, /*keep=*/true});
    linear_->backward(
        {view(matrices_.dy, shape_.tokens, shape_.out), view(matrices_.dx, shape_.tokens, shape_.in), context_});
  }

 private:
  Shape shape_;
  Matrices& matrices_;
  ParameterTable table_;
  LocalExchange exchange_;
  Arena weights_{"weights"}, saved_{"saved"}, workspace_{"workspace"};
  std::unique_ptr<Linear> linear_;
  int64_t non_finite_ = 0;
  StepContext context_{.seed = 1};
};

// The three GEMMs of a layer on operands that are already made.
class Products {
 public:
  Products(const LinearRecipe& recipe, const Shape& shape, Matrices& matrices) : shape_(shape), matrices_(matrices) {
    for (const bool planned : {false, true}) {
      const Tensor x = view(matrices.x, shape.tokens, shape.in);
      const Tensor w = view(matrices.w, shape.out, shape.in);
      const Tensor dy = view(matrices.dy, shape.tokens, shape.out);
      x_ = make(recipe.forward_x, x, false);
      w_ = make(recipe.forward_w, w, false);
      dy_ = make(recipe.grad_input_dy, dy, false);
      w_transposed_ = make(recipe.grad_input_w, w, true);
      dy_transposed_ = make(recipe.grad_weight_dy, dy, true);
      x_transposed_ = make(recipe.grad_weight_x, x, true);
      if (!planned) arena_.commit();
    }
  }

  void forward() { gemm({.a = x_, .b = w_, .output = view(matrices_.y, shape_.tokens, shape_.out)}); }
  void grad_input() { gemm({.a = dy_, .b = w_transposed_, .output = view(matrices_.dx, shape_.tokens, shape_.in)}); }
  void grad_weight() {
    gemm({.a = dy_transposed_,
          .b = x_transposed_,
          .output = Tensor(matrices_.dw.data(), DType::f32, {shape_.out, shape_.in})});
  }
  void all() {
    forward();
    grad_input();
    grad_weight();
  }

 private:
  QuantizedTensor make(const OperandSpec& spec, const Tensor& source, bool transpose) {
    const int64_t rows = transpose ? source.cols() : source.rows();
    const int64_t inner = transpose ? source.rows() : source.cols();
    const OperandLayout layout = spec.format == Format::nvfp4 ? OperandLayout::tiles : OperandLayout::rows;
    const QuantizedTensor storage = allocate_operand(arena_, spec, DType::bf16, rows, inner, layout);
    if (arena_.measuring()) return storage;
    return quantize({.source = source, .transpose = transpose, .spec = spec}, storage);
  }

  Shape shape_;
  Matrices& matrices_;
  Arena arena_{"operands"};
  QuantizedTensor x_, w_, dy_, w_transposed_, dy_transposed_, x_transposed_;
};

// oneDNN's three GEMMs of a layer, weights in plain row-major order, as a training step has them.
class Rival {
 public:
  Rival(const Shape& shape, Matrices& matrices) {
    using tag = dnnl::memory::format_tag;
    using type = dnnl::memory::data_type;
    const auto [m, n, k] = std::array{shape.tokens, shape.out, shape.in};
    products_[0] =
        product({m, n, k}, {matrices.x.data(), tag::ab}, {matrices.w.data(), tag::ba}, matrices.y.data(), type::bf16);
    products_[1] =
        product({m, k, n}, {matrices.dy.data(), tag::ab}, {matrices.w.data(), tag::ab}, matrices.dx.data(), type::bf16);
    products_[2] =
        product({n, k, m}, {matrices.dy.data(), tag::ba}, {matrices.x.data(), tag::ab}, matrices.dw.data(), type::f32);
  }
  void run(size_t index) { products_.at(index)(); }
  void all() {
    for (const auto& product : products_) product();
  }
  const std::string& kernel() const { return kernel_; }

 private:
  struct Dimensions {
    int64_t m, n, k;
  };
  struct Source {
    void* data;
    dnnl::memory::format_tag tag;
  };
  std::function<void()> product(const Dimensions& size, const Source& a, const Source& b, void* c,
                                dnnl::memory::data_type type) {
    using dnnl::memory;
    const memory::desc a_shape({size.m, size.k}, memory::data_type::bf16, a.tag);
    const memory::desc b_shape({size.k, size.n}, memory::data_type::bf16, b.tag);
    const memory::desc c_shape({size.m, size.n}, type, memory::format_tag::ab);
    const dnnl::matmul::primitive_desc description({a_shape, b_shape, c_shape}, engine_);
    kernel_ = description.impl_info_str();
    const dnnl::matmul primitive(description);
    const std::unordered_map<int, memory> arguments{{DNNL_ARG_SRC, memory(a_shape, engine_, a.data)},
                                                    {DNNL_ARG_WEIGHTS, memory(b_shape, engine_, b.data)},
                                                    {DNNL_ARG_DST, memory(c_shape, engine_, c)}};
    return [this, primitive, arguments] {
      primitive.execute(stream_, arguments);
      stream_.wait();
    };
  }

  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  std::string kernel_;
  std::array<std::function<void()>, 3> products_;
};

// Times the cases by turns, and prints for each the rate and the speed over the first case.
void compare(const std::vector<TimedCase>& cases, int rounds) {
  const std::vector<std::vector<double>> seconds = time_by_turns(cases, {.rounds = rounds});
  for (size_t i = 0; i < cases.size(); ++i) {
    const double own = median_of(seconds[i]);
    fmt::print("  {:<28} {:9.3f} ms {:8.0f} G/s {:8.2f}x\n", cases[i].name, own * 1e3, cases[i].work / own * 1e-9,
               median_ratio(seconds.front(), seconds[i]));
  }
}

void compare_shape(const Shape& shape, int rounds, int threads) {
  Matrices matrices(shape);
  Rival rival(shape, matrices);
  LayerStep four_bits(nvidia_recipe(), shape, matrices);
  LayerStep sixteen_bits(plain_recipe(Format::bf16), shape, matrices);
  Products nvfp4(nvidia_recipe(), shape, matrices);
  Products bf16(plain_recipe(Format::bf16), shape, matrices);
  const double one = shape.product();
  fmt::print("{} tokens, {} -> {} features, {} thread(s), oneDNN's {}\n", shape.tokens, shape.in, shape.out, threads,
             rival.kernel());
  const std::vector<TimedCase> whole{{"oneDNN bf16 3 products", 3 * one, {}, [&] { rival.all(); }},
                                     {"nibble nvfp4 3 products", 3 * one, {}, [&] { nvfp4.all(); }},
                                     {"nibble bf16 3 products", 3 * one, {}, [&] { bf16.all(); }},
                                     {"nibble nvfp4 whole linear", 3 * one, {}, [&] { four_bits.run(); }},
                                     {"nibble bf16 whole linear", 3 * one, {}, [&] { sixteen_bits.run(); }}};
  compare(whole, rounds);
  const std::array names{"forward", "grad_input", "grad_weight"};
  const std::array own{&Products::forward, &Products::grad_input, &Products::grad_weight};
  for (size_t i = 0; i < names.size(); ++i) {
    const std::vector<TimedCase> each{{fmt::format("oneDNN bf16 {}", names[i]), one, {}, [&] { rival.run(i); }},
                                      {fmt::format("nibble bf16 {}", names[i]), one, {}, [&] { (bf16.*own[i])(); }},
                                      {fmt::format("nibble nvfp4 {}", names[i]), one, {}, [&] { (nvfp4.*own[i])(); }}};
    compare(each, rounds);
  }
}

// Starts the program again with threads that sleep between GEMMs: otherwise the rival's threads would spin on and take
// nibble's processors. Its library reads this setting when it is loaded.
void start_again_with_parked_threads(char** arguments, int threads) {
  if (std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  setenv("OMP_WAIT_POLICY", "passive", 1);
  setenv("OMP_NUM_THREADS", std::to_string(threads).c_str(), 1);
  execv("/proc/self/exe", arguments);
}

}  // namespace
}  // namespace nibble::bench

int main(int argc, char** argv) {
  int threads = 1;
  int rounds = 15;
  bool amx = false;
  CLI::App app("nibble's products and linear layers against oneDNN's BF16 products");
  app.add_option("--threads", threads)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--rounds", rounds)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_flag("--amx", amx, "let oneDNN use the tile unit");
  CLI11_PARSE(app, argc, argv);
  nibble::bench::start_again_with_parked_threads(argv, threads);
  if (!amx) dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx512_core_bf16);
  nibble::set_compute_threads(threads);
  fmt::print("nibble at {}\n", nibble::name_of(nibble::instruction_set()));
  constexpr std::array<nibble::bench::Shape, 7> shapes{{{4096, 384, 384},
                                                        {4096, 512, 512},
                                                        {4096, 1536, 512},
                                                        {4096, 2048, 512},
                                                        {4096, 512, 2048},
                                                        {2048, 768, 768},
                                                        {2048, 3072, 768}}};
  for (const nibble::bench::Shape& shape : shapes) nibble::bench::compare_shape(shape, rounds, threads);
  return 0;
}
