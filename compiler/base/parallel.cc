#include "base/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace acorn::compiler {
namespace {

std::atomic<int> g_threads{0};

int AllCores() {
  const unsigned cores = std::thread::hardware_concurrency();
  return cores == 0 ? 1 : static_cast<int>(cores);
}

}  // namespace

int ThreadCount() {
  const int threads = g_threads.load();
  return threads > 0 ? threads : AllCores();
}

void SetThreadCount(int threads) { g_threads.store(threads); }

void ParallelFor(int64_t tasks, const std::function<void(int64_t task)> &body) {
  const int64_t threads = std::min<int64_t>(ThreadCount(), tasks);
  if (threads <= 1) {
    for (int64_t task = 0; task < tasks; ++task) body(task);
    return;
  }
  std::atomic<int64_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto work = [&] {
    try {
      for (int64_t task = next.fetch_add(1); task < tasks; task = next.fetch_add(1)) body(task);
    } catch (...) {
      next.store(tasks);
      const std::lock_guard<std::mutex> lock(failure_mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  std::vector<std::thread> helpers;
  for (int64_t i = 1; i < threads; ++i) helpers.emplace_back(work);
  work();
  for (std::thread &helper : helpers) helper.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace acorn::compiler
