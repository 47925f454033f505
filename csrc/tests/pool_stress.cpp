// Loops of many sizes over the thread pool, for the thread sanitizer (scripts/sanitize thread):
// several pools at once, pauses long enough for threads to fall asleep, a fork.
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "../thread_pool.h"

namespace {

void nothing() {}

void check(tsc::ThreadPool& pool, int items) {
  std::vector<int> counts(items);
  std::vector<long> by_thread(pool.threads());
  pool.run(items, [&](int item, int thread) {
    counts[item]++;  // plain memory: two threads on one item would be a race
    by_thread[thread]++;
  });
  long total = 0;
  for (int count : counts)
    if (count != 1) std::abort();
  for (long count : by_thread) total += count;
  if (total != items) std::abort();
}

void stress(int threads, int loops) {
  tsc::ThreadPool pool(threads, nothing, nothing);
  for (int loop = 0; loop < loops; loop++) {
    check(pool, loop % 97);
    if (loop % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace

int main(int argc, char**) {
  std::vector<std::thread> callers;
  for (int threads : {1, 2, 3, 8}) callers.emplace_back(stress, threads, 5000);
  for (std::thread& caller : callers) caller.join();
  if (argc > 1) {  // The thread sanitizer itself does not survive a fork with threads.
    tsc::ThreadPool pool(3, nothing, nothing);
    check(pool, 50);
    const pid_t child = fork();
    pool.ensure_threads();
    check(pool, 50);
    if (child == 0) _exit(0);
    int status = 1;
    waitpid(child, &status, 0);
    if (status != 0) return 1;
  }
  std::puts("the pool held");
}
