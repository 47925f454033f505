// Vectors of sixteen with VNNI and BF16: Zen 4 and later, Sapphire Rapids and later.
// For kernels_avx512.cpp and kernels_amx.cpp.
#include <immintrin.h>

namespace {

constexpr int kWidth = 16;
constexpr int kMostRows = 8;
constexpr int kWeightOffset = 128;
typedef float vf __attribute__((vector_size(4 * kWidth)));
typedef int32_t vi __attribute__((vector_size(4 * kWidth)));
typedef uint16_t narrow __attribute__((vector_size(2 * kWidth)));

inline vf fma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
inline vf maximum(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
inline vf minimum(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
inline vf bounded(vf x) { return x; }
inline vf nearest(vf x) {
  return (vf)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline vf scale2(vf value, vf power, vf) { return (vf)_mm512_scalef_ps((__m512)value, (__m512)power); }
inline vf reciprocal(vf x) { return (vf)_mm512_rcp14_ps((__m512)x); }  // to 6e-5
inline vi maximum(vi a, vi b) { return (vi)_mm512_max_epi32((__m512i)a, (__m512i)b); }

// GCC 12 would take these three apart, number by number.
inline vi widen_i8(const void* from) {
  return (vi)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)from));
}
inline void store_i8(void* to, vi x) {
  _mm_storeu_si128((__m128i*)to, _mm512_cvtepi32_epi8((__m512i)x));
}
inline int32_t sum_of(vi x) { return _mm512_reduce_add_epi32((__m512i)x); }

inline vi dot4(vi sum, vi weight, vi x) {
  return (vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)weight, (__m512i)x);
}
inline vi dot4_nibbles(vi sum, vi weight, vi x) { return dot4(sum, weight, x); }
constexpr int kHighShift = 4;
inline vi high_nibbles(vi pair) { return pair & (int)0xf0f0f0f0; }
inline vf dot2(vf sum, vi weight, vi x) {
  return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)weight, (__m512bh)x);
}
inline narrow to_bf16(vf value) { return (narrow)_mm512_cvtneps_pbh((__m512)value); }

}  // namespace
