// Kernels for AVX2 with FMA: x86 since 2013.
#include "kernels.h"

#include <immintrin.h>

namespace {

constexpr int kWidth = 8;
constexpr int kMostRows = 2;
constexpr int kWeightOffset = 0;
constexpr float kLowestPower = -126;
typedef float vf __attribute__((vector_size(4 * kWidth)));
typedef int32_t vi __attribute__((vector_size(4 * kWidth)));

inline vf fma(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
inline vf maximum(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
inline vf minimum(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
inline vf bounded(vf x) { return minimum(vf{} + 127.0f, maximum(vf{} + kLowestPower, x)); }
inline vf nearest(vf x) {
  return (vf)_mm256_round_ps((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline vf reciprocal(vf x) { return 1.0f / x; }
inline vi maximum(vi a, vi b) { return (vi)_mm256_max_epi32((__m256i)a, (__m256i)b); }

// GCC 12 would take these apart, number by number.
inline vi widen_i8(const void* from) {
  return (vi)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)from));
}
inline void store_i8(void* to, vi x) {
  const __m128i low = _mm256_castsi256_si128((__m256i)x);
  const __m128i high = _mm256_extracti128_si256((__m256i)x, 1);
  const __m128i words = _mm_packs_epi32(low, high);
  _mm_storel_epi64((__m128i*)to, _mm_packs_epi16(words, words));
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

// vpmaddubsw adds pairs in 16 bits and saturates. |weight| times the activation with the weight's
// sign stays below 2 * 127 * 127, which fits.
inline vi dot4(vi sum, vi weight, vi x) {
  const __m256i w = _mm256_xor_si256((__m256i)weight, _mm256_set1_epi8(-128));
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8((__m256i)x, w));
  return sum + (vi)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
inline vi dot4_nibbles(vi sum, vi weight, vi x) {
  const __m256i pairs = _mm256_maddubs_epi16((__m256i)weight, (__m256i)x);
  return sum + (vi)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
constexpr int kHighShift = 0;
inline vi high_nibbles(vi pair) { return (pair >> 4) & 0x0f0f0f0f; }

inline vf dot2(vf sum, vi weight, vi x) {
  sum = fma((vf)(weight << 16), (vf)(x << 16), sum);
  return fma((vf)(weight & ~0xffff), (vf)(x & ~0xffff), sum);
}

typedef uint32_t wide __attribute__((vector_size(4 * kWidth)));
typedef uint16_t narrow __attribute__((vector_size(2 * kWidth)));
inline narrow to_bf16(vf value) {
  const wide u = (wide)value;
  const __m256i upper = (__m256i)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
  return (narrow)_mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
}

}  // namespace

#include "kernels_generic.h"

namespace tsc {
extern const Kernels kernels_avx2 = TSC_KERNELS("avx2");
}
