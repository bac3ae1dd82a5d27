// What the operators' benches share: data, memory, and the counters of a call.
#pragma once

#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "base/checked.h"

namespace acorn::bench {

/// The same values whenever it is called. low, high: both may occur
template <typename T>
std::vector<T> Random(size_t count, int64_t low, int64_t high) {
  std::mt19937 random(1);
  std::vector<T> values(count);
  for (T &value : values) value = static_cast<T>(std::uniform_int_distribution<int64_t>(low, high)(random));
  return values;
}

struct FreeDeleter {
  void operator()(uint8_t *p) const { std::free(p); }
};

/// 64-byte aligned, as caches and scratch are.
inline std::unique_ptr<uint8_t, FreeDeleter> Aligned(size_t bytes) {
  auto *data = static_cast<uint8_t *>(std::aligned_alloc(64, AlignUp(bytes, 64)));
  if (data == nullptr) std::abort();
  return std::unique_ptr<uint8_t, FreeDeleter>(data);
}

/// elems: that a call makes; bytes: that it reads and writes; macs: multiply-adds, 0 where they are not what it is about
struct Work {
  size_t elems, bytes, macs = 0;
};

/// Calls with elems/s, GB/s and, where there are some, GMAC/s.
template <typename Function>
void Measure(benchmark::State &state, const Work &work, const Function &call) {
  for (auto _ : state) {
    call();
    benchmark::ClobberMemory();
  }
  const auto rate = benchmark::Counter::kIsIterationInvariantRate;
  state.counters["elems/s"] = benchmark::Counter(static_cast<double>(work.elems), rate);
  state.counters["GB/s"] = benchmark::Counter(1e-9 * static_cast<double>(work.bytes), rate);
  if (work.macs != 0) state.counters["GMAC/s"] = benchmark::Counter(1e-9 * static_cast<double>(work.macs), rate);
}

}  // namespace acorn::bench
