#include "probe.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "instruction_sets.h"
#include "thread_pool.h"

namespace tsc {

double stream_probe(const uint8_t* data, size_t bytes, int threads, int passes,
                    const std::string& instruction_set) {
  const Kernels& kernels = choose_kernels(instruction_set);
  ThreadPool pool(threads, kernels.begin, kernels.end);
  // One row of activations against one block as long as a thread's whole part: nothing but reading
  // and the dot product.
  const size_t part = bytes / threads / (kBlock * kDepth) * (kBlock * kDepth);
  const std::vector<int8_t> x(part / kBlock, 1);
  const RoundedRows rows{x.data(), 0, nullptr, nullptr, nullptr, 0};
  double best = 0;
  for (int pass = 0; pass < passes; pass++) {
    const auto start = std::chrono::steady_clock::now();
    pool.run(threads, [&](int item, int) {
      int32_t sums[kRows * kBlock];
      kernels.product_i8(rows, 0, data + item * part, static_cast<int>(part / kBlock), 1, sums);
    });
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    best = std::max(best, static_cast<double>(part) * threads / took.count());
  }
  return best;
}

}  // namespace tsc
