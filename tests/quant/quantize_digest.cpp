// Prints the instruction-set level in use, then a digest of everything the quantiser makes for every kind of operand:
// codes, scales, decoded values and a GEMM.
#include <cstdio>
#include <cstring>
#include <string>

#include "quant/gemm/gemm.h"
#include "tests/quant/every_spec.h"
#include "tests/quant/sha256.h"

namespace {

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
__attribute__((target("default"))) const char* level() {
  return "default";
}
__attribute__((target("arch=x86-64-v3"))) const char* level() {
  return "x86-64-v3";
}
__attribute__((target("arch=x86-64-v4"))) const char* level() {
  return "x86-64-v4";
}
#else
const char* level() {
  return "only";
}
#endif

}  // namespace

namespace nibble::test {
namespace {

const NoiseStream noise{0x1234567890ABCDEF, 77, 5, 19, Purpose::grad_weight_dy};
const SignStream signs{{0xFEDCBA0987654321, 77, 5, 19, Purpose::hadamard_signs}, 2};

class Digest {
 public:
  void add(const void* data, size_t bytes) {
    const size_t before = bytes_.size();
    bytes_.resize(before + bytes);
    if (bytes != 0) std::memcpy(bytes_.data() + before, data, bytes);
  }
  void add(const Tensor& tensor) {
    if (!tensor.empty()) add(tensor.data(), tensor.bytes());
  }
  std::string hex() const { return sha256_prefix(bytes_.data(), bytes_.size()); }

 private:
  std::vector<uint8_t> bytes_;
};

void add_operand(const Operand& made, Digest& digest) {
  for (const Tensor& part :
       {made.tensor.values, made.tensor.block_scales, made.tensor.outer_scales, made.tensor.tensor_scale})
    digest.add(part);
  const auto elements = static_cast<size_t>(made.tensor.rows * made.tensor.inner);
  std::vector<BFloat16> halves(elements);
  std::vector<float> singles(elements);
  std::vector<float> product(static_cast<size_t>(made.tensor.rows * made.tensor.rows));
  dequantize(made.tensor, tensor_of(std::span(halves), {made.tensor.rows, made.tensor.inner}));
  dequantize(made.tensor, tensor_of(std::span(singles), {made.tensor.rows, made.tensor.inner}));
  gemm({made.tensor, made.tensor, tensor_of(std::span(product), {made.tensor.rows, made.tensor.rows})});
  digest.add(halves.data(), halves.size() * sizeof(BFloat16));
  digest.add(singles.data(), singles.size() * sizeof(float));
  digest.add(product.data(), product.size() * sizeof(float));
}

void print_digests() {
  const Matrix square = uneven_matrix(48, 256);
  const Matrix partial = uneven_matrix(40, 256);
  std::vector<OperandSpec> specs = {{.format = Format::bf16}};
  for (const OperandSpec& rule : every_rule()) {
    for (const OperandSpec& spec : every_rotation_of(rule)) specs.push_back(spec);
  }
  for (const OperandSpec& spec : specs) {
    const Matrix& matrix = spec.block == BlockShape::square ? square : partial;
    const Matrix transposed = matrix.transposed();
    Digest digest;
    add_operand(quantized({matrix.bf16(), false, spec, noise, signs}), digest);
    add_operand(quantized({matrix.f32(), false, spec, noise, signs}), digest);
    add_operand(quantized({transposed.bf16(), true, spec, noise, signs}), digest);
    add_operand(quantized({transposed.f32(), true, spec, noise, signs}), digest);
    std::printf("%s %s\n", digest.hex().c_str(), describe(spec).c_str());
  }
}

}  // namespace
}  // namespace nibble::test

int main() {
  std::printf("level %s\n", level());
  nibble::test::print_digests();
  return 0;
}
