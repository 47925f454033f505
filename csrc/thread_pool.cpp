#include "thread_pool.h"

#include <system_error>

#if defined(_WIN32)
#include <process.h>
#else
#include <unistd.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace tsc {

namespace {

constexpr int kSpins = 2000;  // some 100 microseconds: longer than the gap between two loops

void pause() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

long process_id() {
#if defined(_WIN32)
  return _getpid();
#else
  return getpid();
#endif
}

uint32_t items_left(uint64_t open) { return static_cast<uint32_t>(open); }

}  // namespace

ThreadPool::ThreadPool(int threads, void (*begin)(), void (*end)())
    : threads_(threads < 1 ? 1 : threads), begin_(begin), end_(end) {
  start();
}

ThreadPool::~ThreadPool() {
  if (shared_->process != process_id()) {  // A forked child: these threads do not exist here.
    shared_.release();
    return;
  }
  {
    std::lock_guard<std::mutex> lock(shared_->mutex);
    shared_->stop = true;
  }
  shared_->wake.notify_all();
  for (std::thread& worker : shared_->workers) worker.join();
}

void ThreadPool::start() {
  shared_ = std::make_unique<Shared>();
  shared_->process = process_id();
  Shared& shared = *shared_;
  try {
    for (int thread = 1; thread < threads_; thread++)
      shared.workers.emplace_back([this, &shared, thread] { work(shared, thread); });
  } catch (const std::system_error&) {
    // The system gives no more threads: those that there are do all the work.
  }
}

void ThreadPool::ensure_threads() {
  if (shared_->process == process_id()) return;
  shared_.release();
  start();
}

// Takes items until none is left.
void ThreadPool::help(Shared& shared, int thread, void (*begin)(), void (*end)()) {
  bool begun = false;
  uint64_t open = shared.open.load(std::memory_order_acquire);
  while (items_left(open) > 0) {
    if (!shared.open.compare_exchange_weak(open, open - 1, std::memory_order_acq_rel)) continue;
    if (!begun) begin();
    begun = true;
    shared.function(shared.context, shared.items - static_cast<int>(items_left(open)), thread);
    shared.done.fetch_add(1, std::memory_order_release);
    open = shared.open.load(std::memory_order_acquire);
  }
  if (begun) end();
}

void ThreadPool::work(Shared& shared, int thread) {
  while (true) {
    for (int spin = 0; spin < kSpins && items_left(shared.open.load(std::memory_order_acquire)) == 0;
         spin++)
      pause();
    if (items_left(shared.open.load(std::memory_order_acquire)) == 0) {
      std::unique_lock<std::mutex> lock(shared.mutex);
      shared.sleeping++;
      shared.wake.wait(lock, [&] { return shared.stop || items_left(shared.open) > 0; });
      shared.sleeping--;
      if (shared.stop) return;
    }
    help(shared, thread, begin_, end_);
  }
}

void ThreadPool::run_erased(int items, Function function, void* context) {
  if (items <= 0) return;
  if (items == 1 || threads_ == 1) {
    begin_();
    for (int item = 0; item < items; item++) function(context, item, 0);
    end_();
    return;
  }
  Shared& shared = *shared_;
  shared.function = function;
  shared.context = context;
  shared.items = items;
  shared.done.store(0, std::memory_order_relaxed);
  shared.open = static_cast<uint64_t>(++loop_) << 32 | static_cast<uint32_t>(items);
  if (shared.sleeping > 0) {  // Both sequentially consistent: a thread sees the items or is seen.
    { std::lock_guard<std::mutex> lock(shared.mutex); }
    shared.wake.notify_all();
  }
  help(shared, 0, begin_, end_);
  for (int spin = 0; shared.done.load(std::memory_order_acquire) != items; spin++) {
    pause();
    // A thread that lost its core in the middle of an item: leave ours to it.
    if (spin > kSpins) std::this_thread::yield();
  }
}

}  // namespace tsc
