// What an instruction set offers the engine: a table of functions, one table for each.
//
// Everything that is heavy is one operation, the *block product*: some rows of activations times
// one packed block of 32 weight rows. Linear layers, queries times keys and probabilities times
// values are all made of it. The rest is work on single rows: norms, rounding, softmax, GELU.
//
// Batch invariance rests on two rules that every function here keeps: a row's result depends on
// that row alone, and sums run in an order that the number of rows does not change.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tsc {

constexpr int kBlock = 32;   // weight rows (or keys, or head dimensions) of a packed block
constexpr int kDepth = 64;   // the summed dimension is padded to a multiple of this
constexpr int kGroup = 32;   // weights of a row that share a 4-bit scale
constexpr int kPage = 256;   // tokens of a cache page: attention sums page by page
constexpr int kRows = 32;    // rows that a product may write are rounded up to this

// How numbers are stored; also how activations are fed to a product.
enum class Format : int { f32, bf16, i8, i4 };

// What happens to the numbers of a linear layer on their way out.
enum class Finish : int { store, gelu, gelu_tanh, add };

// Activations rounded to 8 bits: value = scale * integer.
struct RoundedRows {
  const int8_t* data;          // [rows, stride]
  size_t stride;
  const float* scale;          // [rows]
  const int32_t* offset;       // [rows]: what product_i8 adds to the true sum (weights are stored + 128)
  const int32_t* group_sum;    // [rows, groups]: sums of kGroup integers each
  size_t groups;
};

struct Kernels {
  const char* name;

  // Called by a thread before and after it uses products: AMX has tiles to set up.
  void (*begin)();
  void (*end)();

  // c[r, 0..32) = sum over depth of a[r, :] * block. `c` has kBlock columns and room for `rows`
  // rounded up to kRows, and rows of `a` may be read up to there. depth: a multiple of 32.
  void (*product_f32)(const float* a, size_t stride, const float* block, int depth, int rows,
                      float* c, size_t c_stride);
  void (*product_bf16)(const uint16_t* a, size_t stride, const uint16_t* block, int depth, int rows,
                       float* c, size_t c_stride);
  void (*product_i8)(const RoundedRows& a, int first, const uint8_t* block, int depth, int rows,
                     int32_t* c);
  // The same sums from 4-bit weights; the true ones, without `offset`.
  void (*product_i4)(const RoundedRows& a, int first, const uint8_t* block, int depth, int rows,
                     int32_t* c);
  // A 4-bit block as the 8-bit block that holds the same integers.
  void (*widen_i4)(const uint8_t* block, int depth, uint8_t* out);

  // c + bias, or c * row scale * column scale + bias, then `finish`, into 32 columns of `out`.
  void (*finish_f32)(Finish finish, const float* c, int rows, const float* bias, float* out,
                     size_t stride);
  void (*finish_i32)(Finish finish, const int32_t* c, int rows, const float* row_scale,
                     const int32_t* row_offset, const float* scale, const float* bias, float* out,
                     size_t stride);

  void (*layer_norm)(const float* x, const float* weight, const float* bias, float epsilon,
                     int width, float* out);
  // Rounds `padded` numbers (a multiple of kDepth) to 8 bits by their largest magnitude.
  void (*round_i8)(const float* x, int padded, int8_t* out, float* scale, int32_t* offset,
                   int32_t* group_sum);
  // bfloat16 of `factor` times `count` (a multiple of kBlock) numbers.
  void (*round_bf16)(const float* x, float factor, int count, uint16_t* out);

  // 2^(score - max) of the first `valid` scores, 0 up to `padded`; the max and the sum.
  void (*softmax_f32)(float* scores, int valid, int padded, float* out, float* max, float* sum);
  void (*softmax_bf16)(float* scores, int valid, int padded, uint16_t* out, float* max, float* sum);
  // Takes one page's softmax-weighted values into those of the pages before it.
  void (*merge)(float* values, float* max, float* sum, const float* page_values, float page_max,
                float page_sum, int width);
};

extern const Kernels kernels_portable;
#if defined(TSC_X86)
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
extern const Kernels kernels_amx;
#endif

}  // namespace tsc
