// The kernels, written once over the compiler's vector extension (GCC and Clang).
//
// Each kernels_*.cpp defines `kWidth`, the vector types and a handful of operations that only
// intrinsics reach, then includes this file: see kernels_portable.cpp for the list. Everything is
// in an unnamed namespace and nothing from the standard library is used, so that the linker cannot
// merge a function compiled for AVX-512 into one that an older machine runs.
//
// Floating-point contraction is off (see CMakeLists.txt): what is fused is written `fma`.

namespace {

using tsc::Finish;
using tsc::kBlock;
using tsc::kDepth;
using tsc::kGroup;
using tsc::RoundedRows;

constexpr int kVectors = kBlock / kWidth;  // vectors that hold a block's 32 columns

typedef int16_t vi16 __attribute__((vector_size(4 * kWidth)));

template <class V>
inline V load(const void* from) {
  V value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}
template <class V>
inline void store(void* to, V value) {
  __builtin_memcpy(to, &value, sizeof value);
}
inline vf splat(float x) { return x - vf{}; }
inline vi splat(int32_t x) { return x - vi{}; }
inline int32_t word(const void* from) {  // 4 bytes of activations, to be broadcast
  int32_t value;
  __builtin_memcpy(&value, from, 4);
  return value;
}
inline vi bits(vf x) { return (vi)x; }
inline vf floats(vi x) { return (vf)x; }

// Lanes are added in one fixed order.
inline float sum_of(vf x) {
  float total = 0;
  for (int i = 0; i < kWidth; i++) total += x[i];
  return total;
}

// ---- Block products. R rows at a time; each (row, column) sum is one chain over the depth.

template <int R>
void rows_f32(const float* a, size_t stride, const float* block, int depth, float* c,
              size_t c_stride) {
  vf sum[R][kVectors] = {};
  for (int k = 0; k < depth; k++, block += kBlock)
    for (int v = 0; v < kVectors; v++) {
      const vf weight = load<vf>(block + v * kWidth);
      for (int r = 0; r < R; r++) sum[r][v] = fma(weight, splat(a[r * stride + k]), sum[r][v]);
    }
  for (int r = 0; r < R; r++)
    for (int v = 0; v < kVectors; v++) store(c + r * c_stride + v * kWidth, sum[r][v]);
}

template <int R>
void rows_bf16(const uint16_t* a, size_t stride, const uint16_t* block, int depth, float* c,
               size_t c_stride) {
  vf sum[R][kVectors] = {};
  for (int k = 0; k < depth; k += 2, block += 2 * kBlock)
    for (int v = 0; v < kVectors; v++) {
      const vi weight = load<vi>(block + 2 * v * kWidth);
      for (int r = 0; r < R; r++)
        sum[r][v] = dot2(sum[r][v], weight, splat(word(a + r * stride + k)));
    }
  for (int r = 0; r < R; r++)
    for (int v = 0; v < kVectors; v++) store(c + r * c_stride + v * kWidth, sum[r][v]);
}

template <int R>
void rows_i8(const int8_t* a, size_t stride, const uint8_t* block, int depth, int32_t* c) {
  // Integer sums are exact in any order: two chains for each hide the instruction's latency.
  vi sum[2][R][kVectors] = {};
  for (int k = 0; k < depth; k += 8)
    for (int half = 0; half < 2; half++, block += 4 * kBlock)
      for (int v = 0; v < kVectors; v++) {
        const vi weight = load<vi>(block + 4 * v * kWidth);
        for (int r = 0; r < R; r++)
          sum[R == 1 ? half : 0][r][v] = dot4(sum[R == 1 ? half : 0][r][v], weight,
                                              splat(word(a + r * stride + k + 4 * half)));
      }
  for (int r = 0; r < R; r++)
    for (int v = 0; v < kVectors; v++)
      store(c + r * kBlock + v * kWidth, R == 1 ? sum[0][r][v] + sum[1][r][v] : sum[0][r][v]);
}

// Nibbles and their groups' multipliers lie as packing.h says. Multipliers are integers, and so
// these are the sums of the 8-bit block that widen_i4 makes, exactly.
template <int R>
void rows_i4(const int8_t* a, size_t stride, const int32_t* group_sum, size_t groups,
             const uint8_t* block, int depth, int32_t* c) {
  vi sum[R][kVectors] = {};
  for (int k = 0; k < depth; k += kDepth) {
    const uint8_t* multipliers = block;
    block += 2 * kBlock;
    for (int half = 0; half < 2; half++) {
      const int start = k + half * kGroup;
      // Two chains for each sum: of low nibbles, which are stored + 8, and of high ones, which may
      // be left where they are, kHighShift bits too high.
      vi low[R][kVectors], high[R][kVectors] = {};
      for (int r = 0; r < R; r++)
        for (int v = 0; v < kVectors; v++)
          low[r][v] = splat(-8 * group_sum[r * groups + start / kGroup]);
      for (int step = 0; step < kGroup; step += 8, block += 4 * kBlock)
        for (int v = 0; v < kVectors; v++) {
          const vi pair = load<vi>(block + 4 * v * kWidth);
          const vi lows = pair & 0x0f0f0f0f, highs = high_nibbles(pair);
          for (int r = 0; r < R; r++) {
            const int8_t* x = a + r * stride + start + step;
            low[r][v] = dot4_nibbles(low[r][v], lows, splat(word(x)));
            high[r][v] = dot4_nibbles(high[r][v], highs, splat(word(x + 4)));
          }
        }
      for (int v = 0; v < kVectors; v++) {
        const vi multiplier =
            widen_i8(multipliers + half * kBlock + v * kWidth);
        for (int r = 0; r < R; r++)
          sum[r][v] += multiplier * (low[r][v] + (high[r][v] >> kHighShift));
      }
    }
  }
  for (int r = 0; r < R; r++)
    for (int v = 0; v < kVectors; v++) store(c + r * kBlock + v * kWidth, sum[r][v]);
}

// Calls f(first row, number) with as many rows as the registers hold (8, 4 or 2), then the rest by
// one; the number is a constant to the compiler.
template <int R>
struct Count {
  static constexpr int value = R;
};
template <int R>
constexpr int at_most() {
  return R < kMostRows ? R : kMostRows;
}
template <int Most = kMostRows, class F>
inline void split_rows(int rows, F f) {
  int at = 0;
  for (; rows - at >= Most; at += Most) f(at, Count<Most>());
  for (; rows - at >= at_most<4>(); at += at_most<4>()) f(at, Count<at_most<4>()>());
  for (; rows - at >= at_most<2>(); at += at_most<2>()) f(at, Count<at_most<2>()>());
  for (; rows - at >= 1; at += 1) f(at, Count<1>());
}

void product_f32(const float* a, size_t stride, const float* block, int depth, int rows, float* c,
                 size_t c_stride) {
  split_rows(rows, [=](int at, auto count) {
    rows_f32<count.value>(a + at * stride, stride, block, depth, c + at * c_stride, c_stride);
  });
}
void product_bf16(const uint16_t* a, size_t stride, const uint16_t* block, int depth, int rows,
                  float* c, size_t c_stride) {
  split_rows(rows, [=](int at, auto count) {
    rows_bf16<count.value>(a + at * stride, stride, block, depth, c + at * c_stride, c_stride);
  });
}
void product_i8(const RoundedRows& a, int first, const uint8_t* block, int depth, int rows,
                int32_t* c) {
  split_rows(rows, [&](int at, auto count) {
    rows_i8<count.value>(a.data + (first + at) * a.stride, a.stride, block, depth,
                         c + at * kBlock);
  });
}
void product_i4(const RoundedRows& a, int first, const uint8_t* block, int depth, int rows,
                int32_t* c) {
  split_rows<at_most<4>()>(rows, [&](int at, auto count) {
    rows_i4<count.value>(a.data + (first + at) * a.stride, a.stride,
                         a.group_sum + (first + at) * a.groups, a.groups, block, depth,
                         c + at * kBlock);
  });
}

void widen_i4(const uint8_t* block, int depth, uint8_t* out) {
  // Two bytes of a word at a time, in 16 bits: (nibble - 8) * multiplier + 128 is 8 to 248.
  for (int k = 0; k < depth; k += kDepth) {
    const uint8_t* multipliers = block;
    block += 2 * kBlock;
    for (int half = 0; half < 2; half++) {
      vi16 multiplier[kVectors], offset[kVectors];
      for (int v = 0; v < kVectors; v++) {
        const vi wide = widen_i8(multipliers + half * kBlock + v * kWidth);
        multiplier[v] = (vi16)((wide & 0xffff) | (wide << 16));
        offset[v] = 128 - 8 * multiplier[v];
      }
      for (int step = 0; step < kGroup; step += 8, block += 4 * kBlock)
        for (int nibble = 0; nibble < 2; nibble++)
          for (int v = 0; v < kVectors; v++, out += 4 * kWidth) {
            const vi pair = load<vi>(block + 4 * v * kWidth) >> (4 * nibble);
            const vi16 even = (vi16)(pair & 0x000f000f) * multiplier[v] + offset[v];
            const vi16 odd = (vi16)((pair >> 8) & 0x000f000f) * multiplier[v] + offset[v];
            store(out, (vi)even | ((vi)odd << 8));
          }
    }
  }
}

// ---- Functions of one number, a vector at a time.

// How exact a function has to be: to float32's last places, or to 1e-4, which is lost in what is
// rounded to 8 or 16 bits right after.
enum class Exactness { full, rough };

// 2^x, 0 where float32 has no normal numbers left. A NaN stays one.
template <Exactness E>
inline vf exp2_of(vf x) {
  const vf y = bounded(x);  // to what scale2 can do
  const vf whole = nearest(y), f = y - whole;
  vf p;
  if (E == Exactness::full) {
    p = splat(1.535336188319500e-4f);  // Cephes
    p = fma(p, f, splat(1.339887440266574e-3f));
    p = fma(p, f, splat(9.618437357674640e-3f));
    p = fma(p, f, splat(5.550332471162809e-2f));
    p = fma(p, f, splat(2.402264791363012e-1f));
    p = fma(p, f, splat(6.931472028550421e-1f));
    p = fma(p, f, splat(1.0f));
  } else {
    p = splat(5.5171627551e-2f);  // least largest relative error: 7.5e-5
    p = fma(p, f, splat(2.4261114001e-1f));
    p = fma(p, f, splat(6.9326096773e-1f));
    p = fma(p, f, splat(9.9992805719e-1f));
  }
  return scale2(p, whole, x);
}

template <Exactness E>
inline vf gelu_tanh_of(vf x) {
  // x * (1 + tanh u) / 2 = x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3); e^y = 2^(y log2 e).
  const vf inner = x * fma(x * x, splat(0.044715f), splat(1.0f));
  const vf below = exp2_of<E>(inner * -2.302208198f) + 1.0f;
  return E == Exactness::full ? x / below : x * reciprocal(below);
}

inline vf gelu_of(vf x) {
  // x * (1 + erf(x / sqrt 2)) / 2, erf by the rational approximation that numpy_decoder.py names.
  const vf z = minimum(maximum(x * 0.70710678118f, splat(-4.0f)), splat(4.0f));
  const vf s = z * z;
  vf p = splat(-2.72614225801306e-10f);
  p = fma(p, s, splat(2.77068142495902e-08f));
  p = fma(p, s, splat(-2.10102402082508e-06f));
  p = fma(p, s, splat(-5.69250639462346e-05f));
  p = fma(p, s, splat(-7.34990630326855e-04f));
  p = fma(p, s, splat(-2.95459980854025e-03f));
  p = fma(p, s, splat(-1.60960333262415e-02f));
  vf q = splat(-1.45660718464996e-05f);
  q = fma(q, s, splat(-2.13374055278905e-04f));
  q = fma(q, s, splat(-1.68282697438203e-03f));
  q = fma(q, s, splat(-7.37332916720468e-03f));
  q = fma(q, s, splat(-1.42647390514189e-02f));
  const vf half = x * 0.5f;
  return fma(half, z * p / q, half);
}

// ---- What follows a product.

template <Finish F, Exactness E>
inline void finish_vector(vf value, float* out) {
  if (F == Finish::gelu) value = gelu_of(value);
  if (F == Finish::gelu_tanh) value = gelu_tanh_of<E>(value);
  if (F == Finish::add) value += load<vf>(out);
  store(out, value);
}

template <Finish F>
void finish_f32_as(const float* c, int rows, const float* bias, float* out, size_t stride) {
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < kVectors; v++) {
      const int at = v * kWidth;
      finish_vector<F, Exactness::full>(load<vf>(c + r * kBlock + at) + load<vf>(bias + at),
                                        out + r * stride + at);
    }
}

template <Finish F>
void finish_i32_as(const int32_t* c, int rows, const float* row_scale, const int32_t* row_offset,
                   const float* scale, const float* bias, float* out, size_t stride) {
  for (int r = 0; r < rows; r++) {
    const vf own = splat(row_scale[r]);
    const vi offset = splat(row_offset ? row_offset[r] : 0);
    for (int v = 0; v < kVectors; v++) {
      const int at = v * kWidth;
      const vi sum = load<vi>(c + r * kBlock + at) - offset;
      const vf value = __builtin_convertvector(sum, vf) * own;
      finish_vector<F, Exactness::rough>(fma(value, load<vf>(scale + at), load<vf>(bias + at)),
                                         out + r * stride + at);
    }
  }
}

void finish_f32(Finish finish, const float* c, int rows, const float* bias, float* out,
                size_t stride) {
  switch (finish) {
    case Finish::store: return finish_f32_as<Finish::store>(c, rows, bias, out, stride);
    case Finish::gelu: return finish_f32_as<Finish::gelu>(c, rows, bias, out, stride);
    case Finish::gelu_tanh: return finish_f32_as<Finish::gelu_tanh>(c, rows, bias, out, stride);
    case Finish::add: return finish_f32_as<Finish::add>(c, rows, bias, out, stride);
  }
}

void finish_i32(Finish finish, const int32_t* c, int rows, const float* row_scale,
                const int32_t* row_offset, const float* scale, const float* bias, float* out,
                size_t stride) {
  const auto as = [=](auto f) {
    finish_i32_as<static_cast<Finish>(f.value)>(c, rows, row_scale, row_offset, scale, bias, out,
                                                stride);
  };
  switch (finish) {
    case Finish::store: return as(Count<static_cast<int>(Finish::store)>());
    case Finish::gelu: return as(Count<static_cast<int>(Finish::gelu)>());
    case Finish::gelu_tanh: return as(Count<static_cast<int>(Finish::gelu_tanh)>());
    case Finish::add: return as(Count<static_cast<int>(Finish::add)>());
  }
}

// ---- Rows.

void layer_norm(const float* x, const float* weight, const float* bias, float epsilon, int width,
                float* out) {
  const int whole = width / kWidth * kWidth;  // what is left is done one by one
  vf sums = {};
  for (int i = 0; i < whole; i += kWidth) sums += load<vf>(x + i);
  float total = sum_of(sums);
  for (int i = whole; i < width; i++) total += x[i];
  const float mean = total / width;
  vf squares = {};
  for (int i = 0; i < whole; i += kWidth) {
    const vf d = load<vf>(x + i) - mean;
    squares = fma(d, d, squares);
  }
  float variance = sum_of(squares);
  for (int i = whole; i < width; i++) variance += (x[i] - mean) * (x[i] - mean);
  const float factor = 1.0f / __builtin_sqrtf(variance / width + epsilon);
  for (int i = 0; i < whole; i += kWidth)
    store(out + i,
          fma((load<vf>(x + i) - mean) * factor, load<vf>(weight + i), load<vf>(bias + i)));
  for (int i = whole; i < width; i++) out[i] = (x[i] - mean) * factor * weight[i] + bias[i];
}

void round_i8(const float* x, int padded, int8_t* out, float* scale, int32_t* offset,
              int32_t* group_sum) {
  // Magnitudes compare like their bits, and so a NaN is the largest and stays in the scale.
  vi most = {};
  for (int i = 0; i < padded; i += kWidth) most = maximum(most, load<vi>(x + i) & 0x7fffffff);
  int32_t largest = 0;
  for (int i = 0; i < kWidth; i++) largest = most[i] > largest ? most[i] : largest;
  float magnitude;
  __builtin_memcpy(&magnitude, &largest, 4);
  *scale = magnitude / 127.0f;
  // A magnitude so small that its reciprocal overflows is rounded to zero.
  const float inverse = magnitude < 1e-30f ? 0.0f : 127.0f / magnitude;
  const vf magic = splat(12582912.0f);
  int32_t total = 0;
  for (int group = 0; group < padded; group += kGroup) {
    vi sums = {};
    for (int i = group; i < group + kGroup; i += kWidth) {
      const vi rounded = bits(load<vf>(x + i) * inverse + magic) - bits(magic);
      sums += rounded;
      store_i8(out + i, rounded);
    }
    group_sum[group / kGroup] = sum_of(sums);
    total += group_sum[group / kGroup];
  }
  *offset = kWeightOffset * total;
}

void round_bf16(const float* x, float factor, int count, uint16_t* out) {
  for (int i = 0; i < count; i += kWidth) store(out + i, to_bf16(load<vf>(x + i) * factor));
}

inline void put(float* out, vf value) { store(out, value); }
inline void put(uint16_t* out, vf value) { store(out, to_bf16(value)); }

// Scores of a page without a single valid one: low, but finite, so that no inf - inf arises.
constexpr float kLowest = -1e30f;

template <Exactness E, class T>
void softmax(float* scores, int valid, int padded, T* out, float* max, float* sum) {
  if (valid <= 0) {
    for (int i = 0; i < padded; i++) out[i] = 0;
    *max = kLowest;
    *sum = 0;
    return;
  }
  for (int i = valid; i < padded; i++) scores[i] = kLowest;
  vf most = splat(kLowest);
  for (int i = 0; i < padded; i += kWidth) most = maximum(most, load<vf>(scores + i));
  float largest = most[0];
  for (int i = 1; i < kWidth; i++) largest = most[i] > largest ? most[i] : largest;
  vf sums = {};
  for (int i = 0; i < padded; i += kWidth) {
    const vf p = exp2_of<E>(load<vf>(scores + i) - largest);
    sums += p;
    put(out + i, p);
  }
  *max = largest;
  *sum = sum_of(sums);
}

void softmax_f32(float* scores, int valid, int padded, float* out, float* max, float* sum) {
  softmax<Exactness::full>(scores, valid, padded, out, max, sum);
}
void softmax_bf16(float* scores, int valid, int padded, uint16_t* out, float* max, float* sum) {
  softmax<Exactness::rough>(scores, valid, padded, out, max, sum);
}

void merge(float* values, float* max, float* sum, const float* page_values, float page_max,
           float page_sum, int width) {
  const float most = page_max > *max ? page_max : *max;
  const vf before = exp2_of<Exactness::full>(splat(*max - most));
  const vf page = exp2_of<Exactness::full>(splat(page_max - most));
  for (int i = 0; i < width; i += kWidth)
    store(values + i, fma(load<vf>(page_values + i), page, load<vf>(values + i) * before));
  *sum = page_sum * page[0] + *sum * before[0];
  *max = most;
}

void nothing() {}

}  // namespace

#define TSC_KERNELS(NAME)                                                                      \
  {                                                                                            \
    NAME, nothing, nothing, product_f32, product_bf16, product_i8, product_i4, widen_i4,       \
        finish_f32, finish_i32, layer_norm, round_i8, round_bf16, softmax_f32, softmax_bf16,   \
        merge                                                                                  \
  }
