// Which kernels this machine can run, asked of the processor and of the operating system.
#include "instruction_sets.h"

#include <initializer_list>
#include <stdexcept>

#if defined(TSC_X86)
#include <cpuid.h>
#include <immintrin.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace tsc {

namespace {

#if defined(TSC_X86)

struct Leaf {
  unsigned a = 0, b = 0, c = 0, d = 0;
  Leaf(unsigned leaf, unsigned subleaf) { __get_cpuid_count(leaf, subleaf, &a, &b, &c, &d); }
};
bool bit(unsigned value, int number) { return value >> number & 1; }

// Register states that the operating system saves: XCR0.
__attribute__((target("xsave"))) unsigned long long saved_states() {
  return bit(Leaf(1, 0).c, 27) ? _xgetbv(0) : 0;
}

bool has_avx2() {
  const Leaf basic(1, 0), extended(7, 0);
  return (saved_states() & 0x6) == 0x6 && bit(basic.c, 12) && bit(extended.b, 5);  // FMA, AVX2
}

bool has_avx512() {
  const Leaf extended(7, 0), more(7, 1);
  const bool foundation = bit(extended.b, 16) && bit(extended.b, 17) && bit(extended.b, 30) &&
                          bit(extended.b, 31);  // F, DQ, BW, VL
  return has_avx2() && (saved_states() & 0xe6) == 0xe6 && foundation && bit(extended.c, 11) &&
         bit(more.a, 5);  // VNNI, BF16
}

bool has_amx() {
#if defined(__linux__)
  const Leaf extended(7, 0);
  if (!has_avx512() || (saved_states() & 0x60000) != 0x60000 || !bit(extended.d, 22) ||
      !bit(extended.d, 24) || !bit(extended.d, 25))  // BF16, TILE, INT8
    return false;
  constexpr int request_permission = 0x1023, tile_data = 18;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
  return false;  // Elsewhere a process gets its tiles in other ways, not tried here.
#endif
}

#endif

bool always() { return true; }

struct Choice {
  const Kernels* kernels;
  bool (*supported)();
};

// Fastest first.
const std::initializer_list<Choice> kChoices = {
#if defined(TSC_X86)
    {&kernels_amx, has_amx},
    {&kernels_avx512, has_avx512},
    {&kernels_avx2, has_avx2},
#endif
    {&kernels_portable, always},
};

}  // namespace

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const Choice& choice : kChoices)
    if (choice.supported()) names.push_back(choice.kernels->name);
  return names;
}

const Kernels& choose_kernels(const std::string& name) {
  for (const Choice& choice : kChoices)
    if ((name.empty() || name == choice.kernels->name) && choice.supported())
      return *choice.kernels;
  throw std::invalid_argument("this machine does not run the instruction set " + name);
}

}  // namespace tsc
