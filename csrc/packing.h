// The packed model: one flat buffer in the order in which a token reads it.
//
// Each matrix is packed in *blocks* of 32 rows, one block after another, so that a thread reads one
// sequential stream. Inside a block the depth (the summed dimension) is outermost:
//
//   f32    [depth][32]
//   bf16   [depth / 2][32][2]        32-bit words that hold two neighbors in depth
//   i8     [depth / 4][32][4]        stored + 128; row scale = largest magnitude / 127
//   i4     for every 64 of depth: multipliers [2][32] bytes, then nibbles [8][32][4] bytes: a byte
//          holds depth d (low) and d + 4 (high), stored + 8
//
// The 32-bit words times 16 columns times 16 lines are at once AMX's weight tile and what VNNI's
// and BF16's dot products read, so one layout serves all.
//
// 4-bit weights have two scales: weight = row scale * multiplier * nibble, where the multiplier of
// 32 weights is a whole number from -15 to 15. Multiplier times nibble fits into 8 bits: whatever is
// computed from 4-bit weights is, in integers, what the 8-bit weights of the same value would give.
//
// A 4-bit model keeps attention and the first layer in 8 bits: nano loses 2.1% in bits-per-byte so,
// 6.1% without (docs/log.md), for 6% more bytes of the published model.
//
// Behind a matrix's blocks follow its row scales and its biases, float32, 32 for each block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels.h"

namespace tsc {

struct Config {
  int vocab, positions, width, layers, heads, inner;
  bool multi_query, tanh_gelu;
  float epsilon;

  int head_dim() const { return width / heads; }
  int kv_heads() const { return multi_query ? 1 : heads; }
  // Throws std::invalid_argument for numbers that no model has.
  void check() const;
};

// One tensor's place in the buffer. A matrix takes its bias along.
struct Entry {
  enum class Kind : int { matrix, vector, rows } kind;
  std::string weight, bias;  // names in the checkpoint; bias may be empty
  Format format;
  int out, in;
  size_t offset, bytes;
};

struct Plan {
  Config config;
  Format format;
  std::vector<Entry> entries;
  size_t bytes;

  Plan(const Config& config, Format format);
};

// A matrix as the engine reads it.
struct Matrix {
  Format format;
  int out, in, depth, blocks;  // depth: `in`, padded
  size_t block_bytes;
  const uint8_t* data;
  const float* scale;
  const float* bias;

  Matrix() = default;
  Matrix(const Entry& entry, const uint8_t* buffer);
  const uint8_t* block(int index) const { return data + index * block_bytes; }
};

size_t matrix_bytes(Format format, int out, int in);

// Writes `weight` [out, in] and `bias` [out] (or null) into its entry's place.
// Throws std::invalid_argument where a weight is not finite.
void pack(const Entry& entry, const float* weight, const float* bias, uint8_t* buffer);

// One row of a matrix as float32, [in]: an embedding.
void unpack_row(const Matrix& matrix, int row, float* out);

// A 64-bit checksum that runs at the speed of memory.
uint64_t checksum(const uint8_t* data, size_t bytes);

inline int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

inline float from_bf16(uint16_t value) {
  const uint32_t wide = static_cast<uint32_t>(value) << 16;
  float result;
  __builtin_memcpy(&result, &wide, 4);
  return result;
}
inline uint16_t to_bf16(float value) {  // to nearest, ties to even; value is finite
  uint32_t wide;
  __builtin_memcpy(&wide, &value, 4);
  return static_cast<uint16_t>((wide + 0x7fff + ((wide >> 16) & 1)) >> 16);
}

}  // namespace tsc
