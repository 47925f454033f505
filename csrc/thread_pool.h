// Threads that share a loop's items, tuned for loops of a few microseconds.
//
// The caller works too and never waits for a thread that has not begun. Between loops threads spin
// for a tenth of a millisecond and then sleep: an idle engine uses no processor.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace tsc {

class ThreadPool {
 public:
  // `begin` and `end` frame every thread's share of a loop.
  ThreadPool(int threads, void (*begin)(), void (*end)());
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // After a fork the child has none of the threads: they are started again. Call before loops.
  void ensure_threads();

  // Calls work(item, thread) for every item in [0, items); threads are numbered from 0, the caller.
  template <class Work>
  void run(int items, Work&& work) {
    run_erased(items, [](void* context, int item, int thread) {
      (*static_cast<std::remove_reference_t<Work>*>(context))(item, thread);
    }, &work);
  }

 private:
  using Function = void (*)(void* context, int item, int thread);

  // All that the threads touch. Left behind, not destroyed, in a forked child.
  struct Shared {
    // Upper half: the loop's number. Lower half: items not yet taken. One compare-and-swap takes an
    // item of exactly the loop that was looked at, and while an item is out its loop cannot end.
    std::atomic<uint64_t> open{0};
    std::atomic<int> done{0};
    std::atomic<int> sleeping{0};
    std::atomic<bool> stop{false};
    Function function = nullptr;
    void* context = nullptr;
    int items = 0;
    std::mutex mutex;
    std::condition_variable wake;
    std::vector<std::thread> workers;
    long process = 0;
  };

  void run_erased(int items, Function function, void* context);
  void work(Shared& shared, int thread);
  static void help(Shared& shared, int thread, void (*begin)(), void (*end)());
  void start();

  int threads_;
  void (*begin_)();
  void (*end_)();
  std::unique_ptr<Shared> shared_;
  uint32_t loop_ = 0;
};

}  // namespace tsc
