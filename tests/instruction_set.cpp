// Linked into a program, this makes every NIBBLE_VECTORIZE function run the clone of a lesser machine: the compiler's
// resolvers ask __cpu_model and __cpu_features2, which libgcc fills from CPUID. Defined here, they hold no feature, or
// those of NIBBLE_TEST_LEVEL ("x86-64-v3") only.
//
// Resolvers run before the C library is ready: nothing here may call a function of another file.

#if defined(__GNUC__) && !defined(__clang__)  // others make no clones
extern "C" {
struct CpuModel {
  unsigned vendor, type, subtype, features[1];
};
CpuModel __cpu_model;
unsigned __cpu_features2[8];
int __cpu_indicator_init();
}

int __cpu_indicator_init() {
  if (__cpu_model.vendor != 0) return 0;
  __cpu_model.vendor = 1;
#if defined(NIBBLE_TEST_LEVEL)
  // The one bit that means this level: its position is the compiler's business.
  for (unsigned bit = 0; bit < 8 * 32; ++bit) {
    __cpu_features2[bit / 32] = 1u << (bit % 32);
    __asm__ volatile("" ::: "memory");
    if (__builtin_cpu_supports(NIBBLE_TEST_LEVEL) != 0) return 0;
    __cpu_features2[bit / 32] = 0;
  }
#endif
  return 0;
}
#endif
