// Kernels for any machine: vectors of four, which compilers map to SSE2 and NEON.
#include "kernels.h"

namespace {

constexpr int kWidth = 4;
constexpr int kMostRows = 1;          // rows a product holds in registers at once
constexpr int kWeightOffset = 128;    // what dot4's weights are too large by
constexpr float kLowestPower = -126;
typedef float vf __attribute__((vector_size(4 * kWidth)));
typedef int32_t vi __attribute__((vector_size(4 * kWidth)));

inline vf fma(vf a, vf b, vf c) { return a * b + c; }
inline vf maximum(vf a, vf b) { return a > b ? a : b; }
inline vf minimum(vf a, vf b) { return a < b ? a : b; }
inline vf bounded(vf x) { return minimum(vf{} + 127.0f, maximum(vf{} + kLowestPower, x)); }
// Adding 1.5 * 2^23 rounds to a whole number.
inline vf nearest(vf x) { return (x + 12582912.0f) - 12582912.0f; }
inline vf reciprocal(vf x) { return 1.0f / x; }
inline vi maximum(vi a, vi b) { return a > b ? a : b; }

typedef int8_t bytes __attribute__((vector_size(kWidth)));
inline vi widen_i8(const void* from) {
  bytes value;
  __builtin_memcpy(&value, from, sizeof value);
  return __builtin_convertvector(value, vi);
}
inline void store_i8(void* to, vi x) {
  const bytes value = __builtin_convertvector(x, bytes);
  __builtin_memcpy(to, &value, sizeof value);
}
inline int32_t sum_of(vi x) {
  int32_t total = 0;
  for (int i = 0; i < kWidth; i++) total += x[i];
  return total;
}

// 2^power by the exponent bits; `power` is whole and within float32's exponents.
inline vf scale2(vf value, vf power, vf exponent) {
  const vi raised = (vi)value + (__builtin_convertvector(power, vi) << 23);
  return exponent < kLowestPower - vf{} ? vf{} : (vf)raised;
}

// sum + four unsigned weight bytes times four signed activation bytes, in each lane.
inline vi dot4(vi sum, vi weight, vi x) {
  for (int byte = 0; byte < 4; byte++)
    sum += ((weight >> (8 * byte)) & 255) * (x << (24 - 8 * byte) >> 24);
  return sum;
}
inline vi dot4_nibbles(vi sum, vi weight, vi x) { return dot4(sum, weight, x); }
constexpr int kHighShift = 0;
inline vi high_nibbles(vi pair) { return (pair >> 4) & 0x0f0f0f0f; }

// sum + two bfloat16 products. A bfloat16 is the upper half of a float.
inline vf dot2(vf sum, vi weight, vi x) {
  sum = fma((vf)(weight << 16), (vf)(x << 16), sum);
  return fma((vf)(weight & ~0xffff), (vf)(x & ~0xffff), sum);
}

typedef uint32_t wide __attribute__((vector_size(4 * kWidth)));
typedef uint16_t narrow __attribute__((vector_size(2 * kWidth)));
// To nearest, ties to even.
inline narrow to_bf16(vf value) {
  const wide u = (wide)value;
  return __builtin_convertvector((u + 0x7fff + ((u >> 16) & 1)) >> 16, narrow);
}

}  // namespace

#include "kernels_generic.h"

namespace tsc {
const Kernels kernels_portable = TSC_KERNELS("portable");
}
