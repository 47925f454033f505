// Packing, as packing.h draws it.
#include "packing.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <system_error>
#include <thread>

namespace tsc {

namespace {

constexpr size_t kAlign = 64;
constexpr int kMostMultiplier = 15;
constexpr size_t kPairBytes = 2 * kBlock + 8 * kBlock * 4;  // 4-bit: 64 of depth

size_t align(size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

size_t block_bytes(Format format, int depth) {
  switch (format) {
    case Format::f32: return size_t{4} * depth * kBlock;
    case Format::bf16: return size_t{2} * depth * kBlock;
    case Format::i8: return size_t{1} * depth * kBlock;
    case Format::i4: return depth / kDepth * kPairBytes;
  }
  throw std::invalid_argument("unknown format");
}

// To the nearest whole number, ties to even, for magnitudes below 2^22. std::nearbyint is a call
// on a compiler's basic x86.
float nearest(float x) {
  constexpr float magic = 12582912;  // 1.5 * 2^23
  return (x + magic) - magic;
}

float largest_magnitude(const float* values, int count) {
  float most = 0;
  for (int i = 0; i < count; i++) most = std::max(most, std::fabs(values[i]));
  return most;
}

// ---- One row of weights [depth] into column `lane` of its block; returns the row's scale.

float pack_f32(const float* w, int depth, int lane, uint8_t* block) {
  float* out = reinterpret_cast<float*>(block);
  for (int k = 0; k < depth; k++) out[k * kBlock + lane] = w[k];
  return 1;
}

float pack_bf16(const float* w, int depth, int lane, uint8_t* block) {
  uint16_t* out = reinterpret_cast<uint16_t*>(block);
  for (int k = 0; k < depth; k++) out[(k / 2 * kBlock + lane) * 2 + k % 2] = to_bf16(w[k]);
  return 1;
}

float pack_i8(const float* w, int depth, int lane, uint8_t* block) {
  const float scale = largest_magnitude(w, depth) / 127;
  const float inverse = scale > 0 ? 1 / scale : 0;
  for (int k = 0; k < depth; k += 4)
    for (int byte = 0; byte < 4; byte++) {
      const float rounded = nearest(w[k + byte] * inverse);
      block[(k / 4 * kBlock + lane) * 4 + byte] =
          static_cast<uint8_t>(std::min(127.0f, std::max(-127.0f, rounded)) + 128);
    }
  return scale;
}

float to_nibble(float weight, float inverse) {
  return std::min(7.0f, std::max(-8.0f, nearest(weight * inverse)));
}

float squared_error(const float* w, float step) {
  const float inverse = 1 / step;
  float errors[8] = {};  // side by side, so that the compiler makes vectors of them
  for (int k = 0; k < kGroup; k += 8)
    for (int i = 0; i < 8; i++) {
      const float error = w[k + i] - step * to_nibble(w[k + i], inverse);
      errors[i] += error * error;
    }
  float total = 0;
  for (float error : errors) total += error;
  return total;
}

// The multiplier of 32 weights that leaves the least squared error. Nibbles reach further below
// zero than above, so the sign is chosen too.
int best_multiplier(const float* w, float scale) {
  const int widest = static_cast<int>(std::ceil(largest_magnitude(w, kGroup) / (7 * scale)));
  int best = 1;
  float least = std::numeric_limits<float>::max();
  // Clipping the largest weight a little may serve the others.
  for (int m = std::max(1, widest * 3 / 5); m <= std::min(kMostMultiplier, widest); m++)
    for (int multiplier : {m, -m}) {
      const float error = squared_error(w, scale * multiplier);
      if (error < least) least = error, best = multiplier;
    }
  return best;
}

float pack_i4(const float* w, int depth, int lane, uint8_t* block) {
  const float scale = largest_magnitude(w, depth) / (8 * kMostMultiplier);
  for (int k = 0; k < depth; k += kDepth, block += kPairBytes)
    for (int half = 0; half < 2; half++) {
      const float* group = w + k + half * kGroup;
      const int multiplier = scale > 0 ? best_multiplier(group, scale) : 1;
      const float inverse = scale > 0 ? 1 / (scale * multiplier) : 0;
      block[half * kBlock + lane] = static_cast<uint8_t>(multiplier);
      uint8_t* nibbles = block + 2 * kBlock + half * 4 * kBlock * 4;
      for (int step = 0; step < 4; step++)
        for (int byte = 0; byte < 4; byte++) {
          const int low = static_cast<int>(to_nibble(group[8 * step + byte], inverse)) + 8;
          const int high = static_cast<int>(to_nibble(group[8 * step + byte + 4], inverse)) + 8;
          nibbles[(step * kBlock + lane) * 4 + byte] = static_cast<uint8_t>(low | high << 4);
        }
    }
  return scale;
}

float pack_row(Format format, const float* w, int depth, int lane, uint8_t* block) {
  switch (format) {
    case Format::f32: return pack_f32(w, depth, lane, block);
    case Format::bf16: return pack_bf16(w, depth, lane, block);
    case Format::i8: return pack_i8(w, depth, lane, block);
    case Format::i4: return pack_i4(w, depth, lane, block);
  }
  throw std::invalid_argument("unknown format");
}

void check_finite(const Entry& entry, const float* values, size_t count) {
  // A sum of zeros, but for the product of a zero and what is not finite: fast to compute.
  float sum = 0;
  for (size_t i = 0; i < count; i++) sum += values[i] * 0.0f;
  if (sum != 0 || std::isnan(sum))
    throw std::invalid_argument("tensor " + entry.weight + " holds a number that is not finite");
}

// Blocks [first, last) of a matrix.
void pack_blocks(const Entry& entry, const float* weight, const float* bias, uint8_t* to,
                 int first, int last) {
  const int depth = round_up(entry.in, kDepth), blocks = (entry.out + kBlock - 1) / kBlock;
  const size_t bytes = block_bytes(entry.format, depth);
  float* scales = reinterpret_cast<float*>(to + blocks * bytes);
  float* biases = scales + blocks * kBlock;
  std::vector<float> row(depth);
  for (int o = first * kBlock; o < last * kBlock; o++) {
    const bool real = o < entry.out;  // rows behind the last are zeros
    if (real) std::memcpy(row.data(), weight + size_t(o) * entry.in, sizeof(float) * entry.in);
    else std::fill(row.begin(), row.end(), 0.0f);
    scales[o] = pack_row(entry.format, row.data(), depth, o % kBlock, to + o / kBlock * bytes);
    biases[o] = real && bias ? bias[o] : 0;
  }
}

void pack_matrix(const Entry& entry, const float* weight, const float* bias, uint8_t* to) {
  const int blocks = (entry.out + kBlock - 1) / kBlock;
  const int threads = std::clamp<int>(std::thread::hardware_concurrency(), 1, blocks);
  std::vector<std::thread> helpers;
  for (int i = 0; i < threads; i++) {
    const int first = blocks * i / threads, last = blocks * (i + 1) / threads;
    try {
      helpers.emplace_back(pack_blocks, entry, weight, bias, to, first, last);
    } catch (const std::system_error&) {  // no more threads from the system
      pack_blocks(entry, weight, bias, to, first, last);
    }
  }
  for (std::thread& helper : helpers) helper.join();
}

}  // namespace

void Config::check() const {
  const auto within = [](int value, int most) { return value >= 1 && value <= most; };
  if (!within(vocab, 1 << 24) || !within(positions, 1 << 24) || !within(width, 1 << 16) ||
      !within(layers, 1 << 12) || !within(heads, width) || !within(inner, 1 << 18) ||
      width % heads != 0 || !(epsilon > 0) || !std::isfinite(epsilon))
    throw std::invalid_argument("a model of impossible size");
}

size_t matrix_bytes(Format format, int out, int in) {
  const size_t blocks = (out + kBlock - 1) / kBlock;
  return blocks * block_bytes(format, round_up(in, kDepth)) + blocks * kBlock * 2 * sizeof(float);
}

Plan::Plan(const Config& config, Format format) : config(config), format(format), bytes(0) {
  config.check();
  const auto add = [&](Entry entry) {
    if (entry.kind == Entry::Kind::matrix)
      entry.bytes = matrix_bytes(entry.format, entry.out, entry.in);
    else
      entry.bytes = size_t(entry.out) * entry.in * (entry.format == Format::bf16 ? 2 : 4);
    entry.offset = bytes;
    bytes = align(bytes + entry.bytes);
    entries.push_back(entry);
  };
  const auto matrix = [&](const std::string& name, Format format, int out, int in) {
    add({Entry::Kind::matrix, name + ".weight", name + ".bias", format, out, in, 0, 0});
  };
  const auto norm = [&](const std::string& name) {
    for (const char* part : {".weight", ".bias"})
      add({Entry::Kind::vector, name + part, "", Format::f32, 1, config.width, 0, 0});
  };
  // A position's row is added to an embedding that is rounded more coarsely: 16 bits do.
  const Format positions = format == Format::f32 ? Format::f32 : Format::bf16;
  add({Entry::Kind::rows, "transformer.wpe.weight", "", positions, config.positions, config.width,
       0, 0});
  const int width = config.width, kv = config.kv_heads() * config.head_dim();
  // Where 4 bits cost most for the bytes they save, there are 8: attention, and the first layer.
  const Format careful = format == Format::i4 ? Format::i8 : format;
  for (int layer = 0; layer < config.layers; layer++) {
    const std::string block = "transformer.h." + std::to_string(layer);
    norm(block + ".ln_1");
    matrix(block + ".attn.c_attn", careful, width + 2 * kv, width);
    matrix(block + ".attn.c_proj", careful, width, width);
    norm(block + ".ln_2");
    const Format inner = layer == 0 ? careful : format;
    matrix(block + ".mlp.c_fc", inner, config.inner, width);
    matrix(block + ".mlp.c_proj", inner, width, config.inner);
  }
  norm("transformer.ln_f");
  add({Entry::Kind::matrix, "transformer.wte.weight", "", format, config.vocab, width, 0, 0});
}

Matrix::Matrix(const Entry& entry, const uint8_t* buffer)
    : format(entry.format),
      out(entry.out),
      in(entry.in),
      depth(round_up(entry.in, kDepth)),
      blocks((entry.out + kBlock - 1) / kBlock),
      block_bytes(tsc::block_bytes(entry.format, depth)),
      data(buffer + entry.offset),
      scale(reinterpret_cast<const float*>(data + blocks * block_bytes)),
      bias(scale + blocks * kBlock) {}

void pack(const Entry& entry, const float* weight, const float* bias, uint8_t* buffer) {
  const size_t count = size_t(entry.out) * entry.in;
  check_finite(entry, weight, count);
  if (bias) check_finite(entry, bias, entry.out);
  uint8_t* to = buffer + entry.offset;
  if (entry.kind == Entry::Kind::matrix) return pack_matrix(entry, weight, bias, to);
  if (entry.format == Format::f32) {
    std::memcpy(to, weight, count * sizeof(float));
    return;
  }
  uint16_t* narrow = reinterpret_cast<uint16_t*>(to);
  for (size_t i = 0; i < count; i++) narrow[i] = to_bf16(weight[i]);
}

void unpack_row(const Matrix& matrix, int row, float* out) {
  const uint8_t* block = matrix.block(row / kBlock);
  const int lane = row % kBlock;
  const float scale = matrix.scale[row];
  switch (matrix.format) {
    case Format::f32:
      for (int k = 0; k < matrix.in; k++)
        out[k] = reinterpret_cast<const float*>(block)[k * kBlock + lane];
      return;
    case Format::bf16:
      for (int k = 0; k < matrix.in; k++)
        out[k] = from_bf16(
            reinterpret_cast<const uint16_t*>(block)[(k / 2 * kBlock + lane) * 2 + k % 2]);
      return;
    case Format::i8:
      for (int k = 0; k < matrix.in; k++)
        out[k] = scale * static_cast<float>(block[(k / 4 * kBlock + lane) * 4 + k % 4] - 128);
      return;
    case Format::i4:
      for (int k = 0; k < matrix.in; k++) {
        const uint8_t* pair = block + k / kDepth * kPairBytes;
        const int half = k % kDepth / kGroup, step = k % kGroup / 8, high = k % 8 / 4;
        const uint8_t byte =
            pair[2 * kBlock + ((half * 4 + step) * kBlock + lane) * 4 + k % 4];
        const int value = (high ? byte >> 4 : byte & 15) - 8;
        out[k] = scale * static_cast<float>(value * static_cast<int8_t>(pair[half * kBlock + lane]));
      }
      return;
  }
}

uint64_t checksum(const uint8_t* data, size_t bytes) {
  // Eight independent multiply-and-shift chains over 64-bit words, then the rest and the length.
  constexpr uint64_t prime = 0x9e3779b97f4a7c15u;
  uint64_t lanes[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  size_t at = 0;
  for (; at + 64 <= bytes; at += 64)
    for (int lane = 0; lane < 8; lane++) {
      uint64_t word;
      std::memcpy(&word, data + at + 8 * lane, 8);
      lanes[lane] = (lanes[lane] ^ word) * prime;
      lanes[lane] ^= lanes[lane] >> 29;
    }
  uint64_t total = bytes;
  for (uint64_t lane : lanes) total = (total ^ lane) * prime, total ^= total >> 32;
  for (; at < bytes; at++) total = (total ^ data[at]) * prime, total ^= total >> 32;
  return total;
}

}  // namespace tsc
