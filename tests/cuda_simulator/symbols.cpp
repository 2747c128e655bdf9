// Names of functions, read from this program's own file.
#include <cxxabi.h>
#include <elf.h>
#include <link.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <vector>

#include "accesses.h"

namespace simulator {
namespace {

int read_base(dl_phdr_info* info, size_t /*size*/, void* base) {
  *static_cast<uintptr_t*>(base) = info->dlpi_addr;
  return 1;  // the program itself comes first
}

template <class T>
const T* at(const std::vector<char>& file, size_t offset) {
  return reinterpret_cast<const T*>(file.data() + offset);
}

const char* find_symbol(const std::vector<char>& file, uintptr_t address) {
  const auto* const header = at<Elf64_Ehdr>(file, 0);
  const auto* const sections = at<Elf64_Shdr>(file, header->e_shoff);
  for (size_t i = 0; i < header->e_shnum; ++i) {
    if (sections[i].sh_type != SHT_SYMTAB) continue;
    const auto* const symbols = at<Elf64_Sym>(file, sections[i].sh_offset);
    for (size_t k = 0; k < sections[i].sh_size / sizeof(Elf64_Sym); ++k) {
      if (ELF64_ST_TYPE(symbols[k].st_info) != STT_FUNC || symbols[k].st_value != address) continue;
      return at<char>(file, sections[sections[i].sh_link].sh_offset + symbols[k].st_name);
    }
  }
  return nullptr;
}

}  // namespace

std::string name_of_function(const void* function) {
  std::ifstream self("/proc/self/exe", std::ios::binary);
  const std::vector<char> file{std::istreambuf_iterator<char>(self), {}};
  uintptr_t base = 0;
  dl_iterate_phdr(read_base, &base);
  const char* const symbol =
      file.size() < sizeof(Elf64_Ehdr) ? nullptr : find_symbol(file, reinterpret_cast<uintptr_t>(function) - base);
  if (symbol == nullptr) return "a kernel without a name";
  const std::unique_ptr<char, void (*)(void*)> readable(abi::__cxa_demangle(symbol, nullptr, nullptr, nullptr),
                                                        std::free);
  return readable == nullptr ? symbol : readable.get();
}

}  // namespace simulator
