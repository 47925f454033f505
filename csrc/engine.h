// The forward pass: several sequences of different lengths through all layers in one call.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "instruction_sets.h"
#include "packing.h"
#include "thread_pool.h"

namespace tsc {

// Aligned memory, zeroed: by calloc, which knows that fresh pages from the system are zeros.
template <class T>
class Buffer {
 public:
  explicit Buffer(size_t count = 0)
      : memory_(count ? std::calloc(count * sizeof(T) + kAlign, 1) : nullptr), size_(count) {
    if (count && !memory_) throw std::bad_alloc();
    const auto address = reinterpret_cast<uintptr_t>(memory_.get());
    data_ = reinterpret_cast<T*>((address + kAlign - 1) / kAlign * kAlign);
  }
  T* data() const { return data_; }
  size_t size() const { return size_; }
  T& operator[](size_t index) const { return data_[index]; }

 private:
  static constexpr size_t kAlign = 64;
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<void, Free> memory_;
  T* data_;
  size_t size_;
};

// Keys and values of one sequence, in pages of kPage tokens that copies share until they write.
struct Sequence {
  int length = 0;
  std::vector<std::shared_ptr<Buffer<uint8_t>>> pages;
};

// One sequence's share of a forward pass.
struct Request {
  int slot;
  const int32_t* ids;
  int count;
};

// Not for two threads at a time; a lock makes a second one wait rather than crash.
class Engine {
 public:
  // `buffer` holds a packed model (plan.bytes, aligned to 64) and must outlive the engine.
  // Throws std::invalid_argument where its scales are damaged.
  Engine(const Plan& plan, const uint8_t* buffer, int threads,
               const std::string& instruction_set);

  int allocate();
  void release(int slot);
  int length(int slot);
  void truncate(int slot, int length);
  void copy(int source, int target);
  size_t cache_bytes();

  // Appends each request's ids to its slot. Writes logits [rows, vocab]: of every id, or of each
  // request's last. Requests name different slots and have been checked to fit.
  void forward(const std::vector<Request>& requests, bool all_logits, float* logits);

  const char* instruction_set() const { return kernels_.name; }
  int threads() const { return pool_.threads(); }

 private:
  struct Layer {
    const float *norm1_weight, *norm1_bias, *norm2_weight, *norm2_bias;
    Matrix attention_in, attention_out, inner_in, inner_out;
  };
  // A token on its way through the layers.
  struct Row {
    Sequence* sequence;
    int position;
    int token;
    float* logits;  // null where nobody asks
  };
  // Activations as the weights' format wants them: the left operand of products.
  struct Operand {
    size_t stride = 0;
    Buffer<float> f32;
    Buffer<uint16_t> bf16;
    Buffer<int8_t> i8;
    Buffer<float> scale;
    Buffer<int32_t> offset, group_sum;
    RoundedRows rounded{};
  };
  // Queries of a few consecutive tokens that share keys and values.
  struct AttentionBlock {
    const Sequence* sequence;
    int row, tokens, position, kv_head;
    int query;  // row of its first query in the queries' buffer
    int last() const { return position + tokens - 1; }
    int pages() const { return last() / kPage + 1; }
  };
  // What softmax over one page, or several, has come to, for each query of a block.
  struct Partial {
    float *values, *max, *sum;
  };
  struct Scratch {
    Buffer<int32_t> sums;    // one product, before `finish`
    Buffer<float> columns;   // the last block's columns, where the output has fewer
    Buffer<uint8_t> widened; // a 4-bit block in 8 bits
    Buffer<float> scores, f32_probabilities, page, total;
    Buffer<uint16_t> probabilities;
  };

  void read_weights(const Plan& plan, const uint8_t* buffer);
  void make_buffers();

  Sequence& sequence(int slot);
  void reserve(Sequence& sequence, int length);
  size_t page_bytes() const;
  template <class T>
  T* keys(const Sequence& sequence, int page, int layer, int kv_head) const;
  template <class T>
  T* values(const Sequence& sequence, int page, int layer, int kv_head) const;

  void forward_rows(const std::vector<Row>& rows);
  template <class Work>
  void each_row(int rows, Work&& work);
  void embed(const std::vector<Row>& rows);
  void shape_operand(int depth);
  void normalize(int rows, const float* weight, const float* bias);
  void prepare(int row, const float* x, int depth);
  void prepare_all(int rows, const float* x, size_t stride, int depth);
  void linear(const Matrix& matrix, int rows, Finish finish, float* out, size_t stride);
  void linear_block(const Matrix& matrix, int block, int rows, Finish finish, float* out,
                    size_t stride, Scratch& scratch);
  void multiply(const Matrix& matrix, const uint8_t* weights, bool widened, int first, int some,
                Scratch& scratch);
  void logits(const std::vector<Row>& rows);

  template <class T>
  void split(const std::vector<Row>& rows, int layer);
  template <class T>
  void attend(const std::vector<Row>& rows, int layer);
  template <class T>
  void attend_page(const AttentionBlock& block, int layer, int page, Partial out, Scratch& scratch);
  void merge(const AttentionBlock& block, Partial total, Partial page);
  void write(const AttentionBlock& block, Partial total);
  std::vector<AttentionBlock> attention_blocks(const std::vector<Row>& rows) const;
  Partial partial(float* memory) const;

  Config config_;
  Format format_;
  const Kernels& kernels_;
  ThreadPool pool_;
  std::mutex mutex_;

  const uint8_t* positions_;
  std::vector<Layer> layers_;
  const float *last_norm_weight_, *last_norm_bias_;
  Matrix head_;

  std::map<int, Sequence> sequences_;
  int next_slot_ = 0;

  // Sizes in elements. `group`: queries of a token that share one key.
  int head_dim_, padded_head_, group_, block_tokens_, block_rows_;
  size_t width_stride_, inner_stride_, qkv_stride_;
  Operand operand_;
  Buffer<float> hidden_, normed_, qkv_, mixed_, inner_, f32_queries_;
  Buffer<uint16_t> queries_;
  Buffer<float> partials_;
  std::vector<Scratch> scratch_;
};

}  // namespace tsc
