// The forward pass. Names of sizes are those of the architecture; a *row* is one token on its way
// through the layers, whichever sequence it belongs to.
#include "engine.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

namespace tsc {

namespace {

constexpr int kChunk = 512;       // rows that pass through the layers together
constexpr int kAttentionRows = 96;  // queries that share a page's keys while these are in cache
// From so many rows on, 4-bit weights are widened once instead of for every few of them.
constexpr int kWidenRows = 8;
// Rows a power of two apart would meet in the same few cache sets: a line more between them.
constexpr int kLine = 64;

// Columns a thread takes at once: long enough to be a stream, short enough to share evenly.
int grain(int blocks, int threads) { return std::max(1, blocks / (threads * 4)); }

}  // namespace

Engine::Engine(const Plan& plan, const uint8_t* buffer, int threads,
               const std::string& instruction_set)
    : config_(plan.config),
      format_(plan.format),
      kernels_(choose_kernels(instruction_set)),
      pool_(threads, kernels_.begin, kernels_.end) {
  read_weights(plan, buffer);
  head_dim_ = config_.head_dim();
  padded_head_ = round_up(head_dim_, kBlock);
  group_ = config_.heads / config_.kv_heads();
  block_tokens_ = std::max(1, kAttentionRows / group_);
  block_rows_ = round_up(block_tokens_ * group_, kRows);
  make_buffers();
}

// Entries in the order in which Plan made them.
void Engine::read_weights(const Plan& plan, const uint8_t* buffer) {
  size_t next = 0;
  const auto entry = [&]() -> const Entry& { return plan.entries[next++]; };
  const auto vector = [&] { return reinterpret_cast<const float*>(buffer + entry().offset); };
  const auto matrix = [&] {
    const Matrix result(entry(), buffer);
    for (int i = 0; i < result.blocks * kBlock; i++)
      if (!std::isfinite(result.scale[i]) || result.scale[i] < 0)
        throw std::invalid_argument("a packed weight's scale is damaged");
    return result;
  };
  positions_ = buffer + entry().offset;
  for (int i = 0; i < config_.layers; i++) {
    Layer layer;
    layer.norm1_weight = vector();
    layer.norm1_bias = vector();
    layer.attention_in = matrix();
    layer.attention_out = matrix();
    layer.norm2_weight = vector();
    layer.norm2_bias = vector();
    layer.inner_in = matrix();
    layer.inner_out = matrix();
    layers_.push_back(layer);
  }
  last_norm_weight_ = vector();
  last_norm_bias_ = vector();
  head_ = matrix();
}

void Engine::make_buffers() {
  const auto padded = [](int columns) { return size_t(round_up(columns, kDepth)) + kLine / 4; };
  width_stride_ = padded(config_.width);
  inner_stride_ = padded(config_.inner);
  qkv_stride_ = padded(config_.width + 2 * config_.kv_heads() * head_dim_);

  hidden_ = Buffer<float>(kChunk * width_stride_);
  normed_ = Buffer<float>(kChunk * width_stride_);
  mixed_ = Buffer<float>(kChunk * width_stride_);
  qkv_ = Buffer<float>(kChunk * qkv_stride_);
  inner_ = Buffer<float>(kChunk * inner_stride_);
  const size_t queries = (size_t(kChunk) * config_.heads + kRows) * padded_head_;
  const size_t deepest = round_up(std::max(config_.width, config_.inner), kDepth);
  const size_t numbers = kChunk * (deepest + kLine);  // of the operand, at its widest
  if (format_ == Format::f32) {
    f32_queries_ = Buffer<float>(queries);
    operand_.f32 = Buffer<float>(numbers);
  } else {
    queries_ = Buffer<uint16_t>(queries);
  }
  if (format_ == Format::bf16) operand_.bf16 = Buffer<uint16_t>(numbers);
  if (format_ == Format::i8 || format_ == Format::i4) {
    const size_t groups = deepest / kGroup;
    operand_.i8 = Buffer<int8_t>(numbers);
    operand_.scale = Buffer<float>(kChunk);
    operand_.offset = Buffer<int32_t>(kChunk);
    operand_.group_sum = Buffer<int32_t>(kChunk * groups);
    operand_.rounded = {operand_.i8.data(),     0, operand_.scale.data(), operand_.offset.data(),
                        operand_.group_sum.data(), groups};
  }
  for (int thread = 0; thread < pool_.threads(); thread++) {
    Scratch scratch;
    scratch.sums = Buffer<int32_t>(kRows * kBlock);
    scratch.columns = Buffer<float>(kRows * kBlock);
    if (format_ == Format::i4) scratch.widened = Buffer<uint8_t>(deepest * kBlock);
    scratch.scores = Buffer<float>(kRows * kPage);
    if (format_ == Format::f32) scratch.f32_probabilities = Buffer<float>(kRows * kPage);
    else scratch.probabilities = Buffer<uint16_t>(kRows * kPage);
    scratch.page = Buffer<float>(block_rows_ * (padded_head_ + 2));
    scratch.total = Buffer<float>(block_rows_ * (padded_head_ + 2));
    scratch_.push_back(std::move(scratch));
  }
}

// ---- Slots.

int Engine::allocate() {
  std::lock_guard<std::mutex> lock(mutex_);
  sequences_[next_slot_];
  return next_slot_++;
}

void Engine::release(int slot) {
  std::lock_guard<std::mutex> lock(mutex_);
  sequence(slot);
  sequences_.erase(slot);
}

int Engine::length(int slot) {
  std::lock_guard<std::mutex> lock(mutex_);
  return sequence(slot).length;
}

void Engine::truncate(int slot, int length) {
  std::lock_guard<std::mutex> lock(mutex_);
  Sequence& sequence = this->sequence(slot);
  if (length < 0 || length > sequence.length) throw std::invalid_argument("truncation to more");
  sequence.length = length;
  sequence.pages.resize((length + kPage - 1) / kPage);
}

void Engine::copy(int source, int target) {
  std::lock_guard<std::mutex> lock(mutex_);
  const Sequence copied = sequence(source);
  sequence(target) = copied;
}

size_t Engine::cache_bytes() {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<const void*> pages;  // counted once, however many sequences share them
  for (const auto& [slot, sequence] : sequences_)
    for (const auto& page : sequence.pages) pages.push_back(page.get());
  std::sort(pages.begin(), pages.end());
  return page_bytes() * (std::unique(pages.begin(), pages.end()) - pages.begin());
}

Sequence& Engine::sequence(int slot) {
  const auto found = sequences_.find(slot);
  if (found == sequences_.end()) throw std::out_of_range("slot " + std::to_string(slot));
  return found->second;
}

// Pages for `length` tokens; those to be written belong to this sequence alone.
void Engine::reserve(Sequence& sequence, int length) {
  if (sequence.length % kPage != 0) {
    std::shared_ptr<Buffer<uint8_t>>& last = sequence.pages[sequence.length / kPage];
    if (last.use_count() > 1) {
      auto own = std::make_shared<Buffer<uint8_t>>(page_bytes());
      std::memcpy(own->data(), last->data(), page_bytes());
      last = own;
    }
  }
  while (static_cast<int>(sequence.pages.size()) * kPage < length)
    sequence.pages.push_back(std::make_shared<Buffer<uint8_t>>(page_bytes()));
}

// A page holds, for each layer and each head of keys: keys in blocks of 32 tokens, then values in
// blocks of 32 dimensions, each packed like weights (packing.h), so that queries times keys and
// probabilities times values are block products.
size_t Engine::page_bytes() const {
  const size_t number = format_ == Format::f32 ? sizeof(float) : sizeof(uint16_t);
  return size_t{2} * config_.layers * config_.kv_heads() * kPage * padded_head_ * number;
}

template <class T>
T* Engine::keys(const Sequence& sequence, int page, int layer, int kv_head) const {
  const size_t index = size_t(layer) * config_.kv_heads() + kv_head;
  T* start = reinterpret_cast<T*>(sequence.pages[page]->data());
  return start + 2 * index * kPage * padded_head_;
}

template <class T>
T* Engine::values(const Sequence& sequence, int page, int layer, int kv_head) const {
  return keys<T>(sequence, page, layer, kv_head) + kPage * padded_head_;
}

// ---- The pass.

void Engine::forward(const std::vector<Request>& requests, bool all_logits, float* logits) {
  std::lock_guard<std::mutex> lock(mutex_);
  pool_.ensure_threads();
  for (const Request& request : requests) {
    Sequence& sequence = this->sequence(request.slot);
    reserve(sequence, sequence.length + request.count);
  }
  std::vector<Row> rows;
  const auto flush = [&] {
    forward_rows(rows);
    for (const Row& row : rows) row.sequence->length = row.position + 1;
    rows.clear();
  };
  for (const Request& request : requests) {
    Sequence& sequence = this->sequence(request.slot);
    const int before = sequence.length;
    for (int i = 0; i < request.count; i++) {
      const bool wanted = all_logits || i == request.count - 1;
      rows.push_back({&sequence, before + i, request.ids[i], wanted ? logits : nullptr});
      if (wanted) logits += config_.vocab;
      if (rows.size() == kChunk) flush();
    }
  }
  if (!rows.empty()) flush();
}

void Engine::forward_rows(const std::vector<Row>& rows) {
  const int count = static_cast<int>(rows.size());
  const Finish activation = config_.tanh_gelu ? Finish::gelu_tanh : Finish::gelu;
  embed(rows);
  for (int i = 0; i < config_.layers; i++) {
    const Layer& layer = layers_[i];
    normalize(count, layer.norm1_weight, layer.norm1_bias);
    linear(layer.attention_in, count, Finish::store, qkv_.data(), qkv_stride_);
    if (format_ == Format::f32) split<float>(rows, i), attend<float>(rows, i);
    else split<uint16_t>(rows, i), attend<uint16_t>(rows, i);
    prepare_all(count, mixed_.data(), width_stride_, layer.attention_out.depth);
    linear(layer.attention_out, count, Finish::add, hidden_.data(), width_stride_);
    normalize(count, layer.norm2_weight, layer.norm2_bias);
    linear(layer.inner_in, count, activation, inner_.data(), inner_stride_);
    prepare_all(count, inner_.data(), inner_stride_, layer.inner_out.depth);
    linear(layer.inner_out, count, Finish::add, hidden_.data(), width_stride_);
  }
  logits(rows);
}

template <class Work>
void Engine::each_row(int rows, Work&& work) {
  const int step = std::max(1, rows / (pool_.threads() * 4));
  pool_.run((rows + step - 1) / step, [&](int item, int) {
    for (int r = item * step; r < std::min(rows, (item + 1) * step); r++) work(r);
  });
}

void Engine::embed(const std::vector<Row>& rows) {
  each_row(static_cast<int>(rows.size()), [&](int r) {
    float* x = hidden_.data() + r * width_stride_;
    unpack_row(head_, rows[r].token, x);
    const size_t at = size_t(rows[r].position) * config_.width;
    for (int i = 0; i < config_.width; i++)
      x[i] += format_ == Format::f32
                  ? reinterpret_cast<const float*>(positions_)[at + i]
                  : from_bf16(reinterpret_cast<const uint16_t*>(positions_)[at + i]);
  });
}

// Rows of the operand lie as close as their depth allows: fewer pages for tiles to reach into.
void Engine::shape_operand(int depth) {
  const int number = format_ == Format::f32 ? 4 : format_ == Format::bf16 ? 2 : 1;
  operand_.stride = operand_.rounded.stride = depth + kLine / number;
}

// Norms the residual stream into the operand.
void Engine::normalize(int rows, const float* weight, const float* bias) {
  shape_operand(round_up(config_.width, kDepth));
  each_row(rows, [&](int r) {
    float* out = normed_.data() + r * width_stride_;
    kernels_.layer_norm(hidden_.data() + r * width_stride_, weight, bias, config_.epsilon,
                        config_.width, out);
    prepare(r, out, round_up(config_.width, kDepth));
  });
}

// Row r of the operand: x rounded as the weights' format asks.
void Engine::prepare(int r, const float* x, int depth) {
  switch (format_) {
    case Format::f32:
      std::memcpy(operand_.f32.data() + r * operand_.stride, x, depth * sizeof(float));
      return;
    case Format::bf16:
      return kernels_.round_bf16(x, 1, depth, operand_.bf16.data() + r * operand_.stride);
    case Format::i8:
    case Format::i4:
      return kernels_.round_i8(x, depth, operand_.i8.data() + r * operand_.stride,
                               &operand_.scale[r], &operand_.offset[r],
                               &operand_.group_sum[r * operand_.rounded.groups]);
  }
}

void Engine::prepare_all(int rows, const float* x, size_t stride, int depth) {
  shape_operand(depth);
  each_row(rows, [&](int r) { prepare(r, x + r * stride, depth); });
}

// out = finish(operand * matrix + bias), a run of blocks for a thread at a time.
void Engine::linear(const Matrix& matrix, int rows, Finish finish, float* out, size_t stride) {
  const int step = grain(matrix.blocks, pool_.threads());
  pool_.run((matrix.blocks + step - 1) / step, [&](int item, int thread) {
    const int end = std::min(matrix.blocks, (item + 1) * step);
    for (int block = item * step; block < end; block++)
      linear_block(matrix, block, rows, finish, out, stride, scratch_[thread]);
  });
}

void Engine::linear_block(const Matrix& matrix, int block, int rows, Finish finish, float* out,
                          size_t stride, Scratch& scratch) {
  const uint8_t* weights = matrix.block(block);
  const float *scale = matrix.scale + block * kBlock, *bias = matrix.bias + block * kBlock;
  // Where the output ends inside this block, it takes a detour. Only logits do: they are stored.
  const int columns = static_cast<int>(std::min<size_t>(kBlock, stride - block * kBlock));
  const bool whole = columns == kBlock;
  const bool widened = matrix.format == Format::i4 && rows > kWidenRows;
  if (widened) kernels_.widen_i4(weights, matrix.depth, scratch.widened.data());
  for (int first = 0; first < rows; first += kRows) {
    const int some = std::min(kRows, rows - first);
    // While many rows pass through this block, the next one is fetched, a part at a time.
    if (rows > 2 * kRows) {
      const size_t part = matrix.block_bytes * kRows / rows;
      const uint8_t* next = weights + matrix.block_bytes + first / kRows * part;
      for (size_t at = 0; at < part; at += kLine) __builtin_prefetch(next + at, 0, 2);
    }
    multiply(matrix, weights, widened, first, some, scratch);
    float* target = whole ? out + first * stride + block * kBlock : scratch.columns.data();
    const size_t target_stride = whole ? stride : kBlock;
    const int32_t* sums = scratch.sums.data();
    if (matrix.format == Format::f32 || matrix.format == Format::bf16) {
      kernels_.finish_f32(finish, reinterpret_cast<const float*>(sums), some, bias, target,
                          target_stride);
    } else {
      const bool shifted = matrix.format == Format::i8 || widened;
      kernels_.finish_i32(finish, sums, some, operand_.rounded.scale + first,
                          shifted ? operand_.rounded.offset + first : nullptr, scale, bias, target,
                          target_stride);
    }
    if (!whole)
      for (int r = 0; r < some; r++)
        std::memcpy(out + (first + r) * stride + block * kBlock, target + r * kBlock,
                    columns * sizeof(float));
  }
}

// `some` rows of the operand from `first` on times a block's weights, into scratch.sums.
void Engine::multiply(const Matrix& matrix, const uint8_t* weights, bool widened, int first,
                      int some, Scratch& scratch) {
  int32_t* sums = scratch.sums.data();
  float* products = reinterpret_cast<float*>(sums);
  const size_t at = first * operand_.stride;
  switch (matrix.format) {
    case Format::f32:
      return kernels_.product_f32(operand_.f32.data() + at, operand_.stride,
                                  reinterpret_cast<const float*>(weights), matrix.depth, some,
                                  products, kBlock);
    case Format::bf16:
      return kernels_.product_bf16(operand_.bf16.data() + at, operand_.stride,
                                   reinterpret_cast<const uint16_t*>(weights), matrix.depth, some,
                                   products, kBlock);
    case Format::i8:
      return kernels_.product_i8(operand_.rounded, first, weights, matrix.depth, some, sums);
    case Format::i4:
      if (widened) weights = scratch.widened.data();
      return (widened ? kernels_.product_i8 : kernels_.product_i4)(
          operand_.rounded, first, weights, matrix.depth, some, sums);
  }
}

void Engine::logits(const std::vector<Row>& rows) {
  // Logits of one pass lie one behind the other, so rows that want them are one operand.
  float* out = nullptr;
  std::vector<int> wanted;
  for (int r = 0; r < static_cast<int>(rows.size()); r++)
    if (rows[r].logits) {
      if (!out) out = rows[r].logits;
      wanted.push_back(r);
    }
  if (!out) return;
  shape_operand(head_.depth);
  each_row(static_cast<int>(wanted.size()), [&](int i) {
    float* normed = normed_.data() + i * width_stride_;
    kernels_.layer_norm(hidden_.data() + wanted[i] * width_stride_, last_norm_weight_,
                        last_norm_bias_, config_.epsilon, config_.width, normed);
    prepare(i, normed, head_.depth);
  });
  linear(head_, static_cast<int>(wanted.size()), Finish::store, out, config_.vocab);
}

// ---- Attention.

namespace {

inline void put(float* to, float value) { *to = value; }
inline void put(uint16_t* to, float value) { *to = to_bf16(value); }

// Where depth d of column `lane` lies in a packed block.
template <class T>
inline size_t place(int d, int lane) {
  return sizeof(T) == 4 ? size_t(d) * kBlock + lane
                        : (size_t(d / 2) * kBlock + lane) * 2 + d % 2;
}

}  // namespace

// Takes apart what c_attn gave: queries, scaled, to their operand; keys and values to their pages.
template <class T>
void Engine::split(const std::vector<Row>& rows, int layer) {
  const int count = static_cast<int>(rows.size()), kv_heads = config_.kv_heads();
  // Softmax is computed in powers of two.
  const float factor = 1.44269504f / std::sqrt(static_cast<float>(head_dim_));
  T* queries;
  if constexpr (sizeof(T) == 4) queries = f32_queries_.data();
  else queries = queries_.data();
  each_row(count, [&](int r) {
    const Sequence& sequence = *rows[r].sequence;
    const int page = rows[r].position / kPage, token = rows[r].position % kPage;
    const float* x = qkv_.data() + r * qkv_stride_;
    for (int kv = 0; kv < kv_heads; kv++) {
      T* query = queries + (size_t(kv) * count + r) * group_ * padded_head_;
      if (sizeof(T) == 2 && head_dim_ == padded_head_)
        kernels_.round_bf16(x, factor, group_ * head_dim_, reinterpret_cast<uint16_t*>(query));
      else
        for (int i = 0; i < group_ * head_dim_; i++)
          put(query + i / head_dim_ * padded_head_ + i % head_dim_, x[i] * factor);
      x += group_ * head_dim_;
      T* key = keys<T>(sequence, page, layer, kv) + token / kBlock * kBlock * padded_head_;
      for (int d = 0; d < head_dim_; d++) put(key + place<T>(d, token % kBlock), x[d]);
      x += head_dim_;
      T* value = values<T>(sequence, page, layer, kv);
      for (int d = 0; d < head_dim_; d++)
        put(value + d / kBlock * kBlock * kPage + place<T>(token, d % kBlock), x[d]);
      x += head_dim_;
    }
  });
}

std::vector<Engine::AttentionBlock> Engine::attention_blocks(const std::vector<Row>& rows) const {
  std::vector<AttentionBlock> blocks;
  const int count = static_cast<int>(rows.size());
  for (int start = 0, end; start < count; start = end) {
    for (end = start + 1; end < count && end < start + block_tokens_ &&
                          rows[end].sequence == rows[start].sequence;)
      end++;
    for (int kv = 0; kv < config_.kv_heads(); kv++)
      blocks.push_back({rows[start].sequence, start, end - start, rows[start].position, kv,
                        (kv * count + start) * group_});
  }
  return blocks;
}

// Softmax is taken page by page and the pages' results are merged in order, whether one thread
// goes through all pages of a block or several share them: the sums are the same, bit for bit.
template <class T>
void Engine::attend(const std::vector<Row>& rows, int layer) {
  const std::vector<AttentionBlock> blocks = attention_blocks(rows);
  const int count = static_cast<int>(blocks.size());
  int most_pages = 1;
  for (const AttentionBlock& block : blocks) most_pages = std::max(most_pages, block.pages());
  const size_t size = block_rows_ * (padded_head_ + 2);
  if (most_pages > 1 && count < 2 * pool_.threads()) {  // Few blocks, much to read: share pages.
    const size_t needed = size * count * most_pages;
    if (partials_.size() < needed) partials_ = Buffer<float>(needed + needed / 2);
    float* memory = partials_.data();
    pool_.run(count * most_pages, [&](int item, int thread) {
      const AttentionBlock& block = blocks[item / most_pages];
      const int page = item % most_pages;
      if (page < block.pages())
        attend_page<T>(block, layer, page, partial(memory + item * size), scratch_[thread]);
    });
    for (int i = 0; i < count; i++) {
      const Partial total = partial(memory + size * i * most_pages);
      for (int page = 1; page < blocks[i].pages(); page++)
        merge(blocks[i], total, partial(memory + size * (i * most_pages + page)));
      write(blocks[i], total);
    }
    return;
  }
  pool_.run(count, [&](int item, int thread) {
    Scratch& scratch = scratch_[thread];
    const Partial total = partial(scratch.total.data()), one = partial(scratch.page.data());
    attend_page<T>(blocks[item], layer, 0, total, scratch);
    for (int page = 1; page < blocks[item].pages(); page++) {
      attend_page<T>(blocks[item], layer, page, one, scratch);
      merge(blocks[item], total, one);
    }
    write(blocks[item], total);
  });
}

Engine::Partial Engine::partial(float* memory) const {
  float* max = memory + block_rows_ * padded_head_;
  return {memory, max, max + block_rows_};
}

template <class T>
void Engine::attend_page(const AttentionBlock& block, int layer, int page, Partial out,
                         Scratch& scratch) {
  const T* key = keys<T>(*block.sequence, page, layer, block.kv_head);
  const T* value = values<T>(*block.sequence, page, layer, block.kv_head);
  const T* query;
  T* probabilities;
  if constexpr (sizeof(T) == 4) {
    query = f32_queries_.data();
    probabilities = scratch.f32_probabilities.data();
  } else {
    query = queries_.data();
    probabilities = scratch.probabilities.data();
  }
  query += size_t(block.query) * padded_head_;
  const auto product = [&](int rows, const T* a, size_t stride, const T* b, int depth, float* c,
                           size_t c_stride) {
    if constexpr (sizeof(T) == 4) kernels_.product_f32(a, stride, b, depth, rows, c, c_stride);
    else kernels_.product_bf16(a, stride, b, depth, rows, c, c_stride);
  };
  const int queries = block.tokens * group_, start = page * kPage;
  float* scores = scratch.scores.data();
  for (int first = 0; first < queries; first += kRows) {
    const int rows = std::min(kRows, queries - first);
    // Tokens of this page that the query in row r of these sees.
    const auto seen = [&](int r) {
      return std::clamp(block.position + (first + r) / group_ + 1 - start, 0, kPage);
    };
    const int padded = round_up(seen(rows - 1), kBlock);
    for (int k = 0; k < padded; k += kBlock)
      product(rows, query + first * padded_head_, padded_head_, key + k * padded_head_,
              padded_head_, scores + k, kPage);
    for (int r = 0; r < rows; r++) {
      float *max = out.max + first + r, *sum = out.sum + first + r;
      T* to = probabilities + r * kPage;
      if constexpr (sizeof(T) == 4)
        kernels_.softmax_f32(scores + r * kPage, seen(r), padded, to, max, sum);
      else
        kernels_.softmax_bf16(scores + r * kPage, seen(r), padded, to, max, sum);
    }
    for (int d = 0; d < padded_head_; d += kBlock)
      product(rows, probabilities, kPage, value + d * kPage, padded,
              out.values + first * padded_head_ + d, padded_head_);
  }
}

void Engine::merge(const AttentionBlock& block, Partial total, Partial page) {
  for (int r = 0; r < block.tokens * group_; r++)
    kernels_.merge(total.values + r * padded_head_, total.max + r, total.sum + r,
                   page.values + r * padded_head_, page.max[r], page.sum[r], padded_head_);
}

// Divides by the sums and puts each head's values into its columns.
void Engine::write(const AttentionBlock& block, Partial total) {
  for (int r = 0; r < block.tokens * group_; r++) {
    const int head = block.kv_head * group_ + r % group_;
    float* out = mixed_.data() + (block.row + r / group_) * width_stride_ + head * head_dim_;
    const float* values = total.values + r * padded_head_;
    const float factor = 1 / total.sum[r];
    for (int d = 0; d < head_dim_; d++) out[d] = values[d] * factor;
  }
}

}  // namespace tsc
