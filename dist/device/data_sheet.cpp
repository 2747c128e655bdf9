#include "dist/device/data_sheet.h"

#include <array>
#include <cctype>
#include <cstddef>

namespace nibble {
namespace {

struct Peak {
  std::string_view words;  // whole words of the name
  double teraflops;        // 0: not known
};

// The first row whose words are in the name counts.
constexpr std::array peaks = std::to_array<Peak>({
    {"MIG", 0},         // a slice of a GPU
    {"Laptop GPU", 0},  // slower than the card of the same name
    {"Max-Q Workstation", 438.9},
    {"GB300", 2500},
    {"GB200", 2500},
    {"B300", 2250},
    {"B200", 2250},
    {"B100", 1750},
    {"RTX PRO 6000 Blackwell Workstation", 503.8},
    {"RTX 5090 D", 0},
    {"RTX 5090", 209.5},
    {"RTX 5080", 112.6},
    {"RTX 5070 Ti", 87.9},
    {"RTX 5070", 61.7},
    {"GH200", 989.4},
    {"H200 NVL", 835.5},
    {"H200", 989.4},
    {"H100 80GB HBM3", 989.4},
    {"H100 PCIe", 756},
    {"H100 NVL", 835.5},
    {"H800 PCIe", 756},
    {"H800", 989.4},
    {"H20", 148},
    {"L40S", 362},
    {"L40", 181},
    {"L20", 119.5},
    {"L4", 121},
    {"RTX 6000 Ada Generation", 364.2},
    {"RTX 4090 D", 0},
    {"RTX 4090", 165.2},
    {"RTX 4080 SUPER", 0},
    {"RTX 4080", 97.5},
    {"A100", 312},
    {"A800", 312},
    {"A30", 165},
    {"A40", 149.7},
    {"A10", 125},
    {"RTX A6000", 154.8},
    {"RTX 3090 Ti", 0},
    {"RTX 3090", 71},
});

bool is_letter_or_digit(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0;
}

// Returns true if `words` are in the name, and no longer word that contains them.
bool has_words(std::string_view name, std::string_view words) {
  for (size_t at = name.find(words); at != std::string_view::npos; at = name.find(words, at + 1)) {
    const size_t end = at + words.size();
    const bool begins = at == 0 || !is_letter_or_digit(name[at - 1]);
    const bool ends = end == name.size() || !is_letter_or_digit(name[end]);
    if (begins && ends) return true;
  }
  return false;
}

}  // namespace

double data_sheet_bf16_flops(std::string_view name) {
  for (const Peak& peak : peaks) {
    if (has_words(name, peak.words)) return 1e12 * peak.teraflops;
  }
  return 0;
}

}  // namespace nibble
