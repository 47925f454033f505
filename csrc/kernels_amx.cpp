// Kernels for AMX: those of AVX-512, but products of many rows run on tiles.
//
// A tile holds 16 rows of 64 bytes. One instruction multiplies a tile of activations (16 rows, 64
// bytes of depth) with a tile of weights (64 bytes of depth, 16 columns: 16 lines of a packed
// block, half as wide as the block) into a tile of 16 x 16 sums. Two tiles of rows times the two
// halves of a block keep four sums busy for four loads.
//
// bfloat16 products take tiles for any number of rows: their rounding differs from the vector
// instruction's, and a row must not notice its neighbors. Integer sums are the same either way, so
// a few rows take vectors, which do not compute 16.
#include "kernels.h"

#include "avx512.h"

#include "kernels_generic.h"

namespace {

constexpr int kTileRows = 16;
constexpr int kTileBytes = 64;
constexpr int kFewRows = 3;

// All eight tiles are whole. A constant in memory, because GCC's ldtilecfg does not tell the
// compiler how many of its bytes are read.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
const TileShapes shapes;

void begin_tiles() { _tile_loadconfig(&shapes); }
void end_tiles() { _tile_release(); }

// Tiles 0 to 3 are sums, 4 and 5 activations, 6 and 7 weights.
struct Int8 {
  static void both() {
    one();
    _tile_dpbsud(2, 5, 6);
    _tile_dpbsud(3, 5, 7);
  }
  static void one() {
    _tile_dpbsud(0, 4, 6);
    _tile_dpbsud(1, 4, 7);
  }
};
struct Bf16 {
  static void both() {
    one();
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  static void one() {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
  }
};

// `stride`, `c_stride` and `depth` in bytes.
template <class Type>
void tile_product(const uint8_t* a, size_t stride, const uint8_t* block, int depth, int rows,
                  uint8_t* c, size_t c_stride) {
  constexpr size_t line = 2 * kTileBytes;  // 32 columns of 4 bytes
  for (; rows > kTileRows; rows -= 2 * kTileRows) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    const uint8_t* weights = block;
    for (int k = 0; k < depth; k += kTileBytes, weights += kTileRows * line) {
      _tile_loadd(4, a + k, stride);
      _tile_loadd(6, weights, line);
      _tile_loadd(7, weights + kTileBytes, line);
      _tile_loadd(5, a + kTileRows * stride + k, stride);
      Type::both();
    }
    _tile_stored(0, c, c_stride);
    _tile_stored(1, c + kTileBytes, c_stride);
    _tile_stored(2, c + kTileRows * c_stride, c_stride);
    _tile_stored(3, c + kTileRows * c_stride + kTileBytes, c_stride);
    a += 2 * kTileRows * stride;
    c += 2 * kTileRows * c_stride;
  }
  if (rows > 0) {
    _tile_zero(0);
    _tile_zero(1);
    for (int k = 0; k < depth; k += kTileBytes, block += kTileRows * line) {
      _tile_loadd(4, a + k, stride);
      _tile_loadd(6, block, line);
      _tile_loadd(7, block + kTileBytes, line);
      Type::one();
    }
    _tile_stored(0, c, c_stride);
    _tile_stored(1, c + kTileBytes, c_stride);
  }
}

void tile_product_i8(const RoundedRows& a, int first, const uint8_t* block, int depth, int rows,
                     int32_t* c) {
  if (rows <= kFewRows) return product_i8(a, first, block, depth, rows, c);
  tile_product<Int8>((const uint8_t*)a.data + first * a.stride, a.stride, block, depth, rows,
                     (uint8_t*)c, kBlock * sizeof(int32_t));
}

void tile_product_bf16(const uint16_t* a, size_t stride, const uint16_t* block, int depth, int rows,
                       float* c, size_t c_stride) {
  tile_product<Bf16>((const uint8_t*)a, stride * 2, (const uint8_t*)block, depth * 2, rows,
                     (uint8_t*)c, c_stride * sizeof(float));
}

constexpr tsc::Kernels with_tiles() {
  tsc::Kernels kernels = TSC_KERNELS("amx");
  kernels.begin = begin_tiles;
  kernels.end = end_tiles;
  kernels.product_i8 = tile_product_i8;
  kernels.product_bf16 = tile_product_bf16;
  return kernels;
}

}  // namespace

namespace tsc {
extern const Kernels kernels_amx = with_tiles();
}
