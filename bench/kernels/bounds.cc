#include "bench/kernels/bounds.h"

#include <benchmark/benchmark.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>

#include "tests/support/host_features.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace acorn::bench {
namespace {

constexpr size_t kRounds = 100000;  // of 12 instructions

// A single stream of plain loads does not fill the queue to memory; four streams whose lines are asked for ahead, into the second
// cache, read most. GB/s on one and on two threads of a Zen 4 (400 MB, medians of 5 rounds in turn): one stream of plain loads
// 26.5 and 50.8; asked for into the first cache, 4 KiB ahead, 24.2, 47.3; into the second 27.8, 52.5; two such streams, 2 KiB
// ahead, 30.0, 56.2; four 29.7, 58.7; four, 1 KiB ahead, 31.4, 60.6. All this would only cost where data lies in a cache next to
// the core.
constexpr size_t kFarStreams = 4;
constexpr size_t kAheadBytes = 1024;
constexpr size_t kFarBytes = size_t{1} << 20;

// The i-th line that is read together, 64 bytes of a stream each; `at` of its stream has been read.
template <bool kFar>
inline __attribute__((always_inline)) const uint8_t *Line(const uint8_t *data, size_t part, size_t at, size_t i) {
  if (!kFar) return data + at + 64 * i;
  const uint8_t *line = data + i % kFarStreams * part + at + 64 * (i / kFarStreams);
  __builtin_prefetch(line + kAheadBytes, 0, 2);
  return line;
}

#if defined(__x86_64__)
template <bool kFar>
__attribute__((target("avx512f"))) void Read512(const uint8_t *data, size_t bytes) {
  __m512i sum[8] = {};
  const size_t streams = kFar ? kFarStreams : 1, part = bytes / streams;
  for (size_t at = 0; at < part; at += 512 / streams) {
#pragma GCC unroll 8
    for (size_t i = 0; i < 8; ++i) sum[i] = _mm512_xor_si512(sum[i], _mm512_load_si512(Line<kFar>(data, part, at, i)));
  }
  for (__m512i &value : sum) benchmark::DoNotOptimize(value);
}

template <bool kFar>
__attribute__((target("avx2"))) void Read256(const uint8_t *data, size_t bytes) {
  __m256i sum[8] = {};
  const size_t streams = kFar ? kFarStreams : 1, part = bytes / streams;
  for (size_t at = 0; at < part; at += 256 / streams) {
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i) {
      const auto *line = reinterpret_cast<const __m256i *>(Line<kFar>(data, part, at, i));
      sum[2 * i] = _mm256_xor_si256(sum[2 * i], _mm256_load_si256(line));
      sum[2 * i + 1] = _mm256_xor_si256(sum[2 * i + 1], _mm256_load_si256(line + 1));
    }
  }
  for (__m256i &value : sum) benchmark::DoNotOptimize(value);
}

__attribute__((target("avx512f,avx512vnni"))) void Multiply512() {
  __m512i sum[12] = {};
  __m512i a = _mm512_set1_epi32(0x01020304), b = _mm512_set1_epi32(0x04030201);
  benchmark::DoNotOptimize(a);
  benchmark::DoNotOptimize(b);
  for (size_t i = 0; i < kRounds; ++i) {
#pragma GCC unroll 12
    for (size_t j = 0; j < 12; ++j) sum[j] = _mm512_dpbusd_epi32(sum[j], a, b);
  }
  for (__m512i &value : sum) benchmark::DoNotOptimize(value);
}

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 11
#define ACORN_BENCH_AVXVNNI 1
__attribute__((target("avx2,avxvnni"))) void MultiplyVnni256() {
  __m256i sum[12] = {};
  __m256i a = _mm256_set1_epi32(0x01020304), b = _mm256_set1_epi32(0x04030201);
  benchmark::DoNotOptimize(a);
  benchmark::DoNotOptimize(b);
  for (size_t i = 0; i < kRounds; ++i) {
#pragma GCC unroll 12
    for (size_t j = 0; j < 12; ++j) sum[j] = _mm256_dpbusd_avx_epi32(sum[j], a, b);
  }
  for (__m256i &value : sum) benchmark::DoNotOptimize(value);
}
#endif

__attribute__((target("avx2"))) void Multiply256() {
  __m256i sum[12] = {};
  __m256i a = _mm256_set1_epi32(0x01020304), b = _mm256_set1_epi32(0x04030201);
  benchmark::DoNotOptimize(a);
  for (size_t i = 0; i < kRounds; ++i) {
#pragma GCC unroll 12
    for (size_t j = 0; j < 12; ++j) {
      benchmark::DoNotOptimize(b);
      sum[j] = _mm256_add_epi16(sum[j], _mm256_maddubs_epi16(a, b));
    }
  }
  for (__m256i &value : sum) benchmark::DoNotOptimize(value);
}
#elif defined(__aarch64__) && defined(__GNUC__)
__attribute__((target("arch=armv8.2-a+dotprod"))) void MultiplyDot() {
  int32x4_t sum[12] = {};
  int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(5);
  benchmark::DoNotOptimize(a);
  benchmark::DoNotOptimize(b);
  for (size_t i = 0; i < kRounds; ++i) {
#pragma GCC unroll 12
    for (size_t j = 0; j < 12; ++j) sum[j] = vdotq_s32(sum[j], a, b);
  }
  for (int32x4_t &value : sum) benchmark::DoNotOptimize(value);
}

__attribute__((target("arch=armv8.2-a+i8mm"))) void MultiplyI8mm() {
  int32x4_t sum[12] = {};
  int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(5);
  benchmark::DoNotOptimize(a);
  benchmark::DoNotOptimize(b);
  for (size_t i = 0; i < kRounds; ++i) {
#pragma GCC unroll 12
    for (size_t j = 0; j < 12; ++j) sum[j] = vmmlaq_s32(sum[j], a, b);
  }
  for (int32x4_t &value : sum) benchmark::DoNotOptimize(value);
}
#endif

template <bool kFar>
void ReadPlain(const uint8_t *data, size_t bytes) {
  uint64_t sum[8] = {};
  const size_t streams = kFar ? kFarStreams : 1, part = bytes / streams;
  for (size_t at = 0; at < part; at += 256 / streams) {
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i) {
      const uint8_t *line = Line<kFar>(data, part, at, i);
#pragma GCC unroll 8
      for (size_t j = 0; j < 8; ++j) {
        uint64_t value;
        std::memcpy(&value, line + 8 * j, 8);
        sum[j] ^= value;
      }
    }
  }
  for (uint64_t &value : sum) benchmark::DoNotOptimize(value);
}

using ReadLoop = void (*)(const uint8_t *data, size_t bytes);
template <bool kFar>
ReadLoop FastestRead() {
#if defined(__x86_64__)
  if ((test::HostFeatures() & kFeatureAvx512Vnni) != 0) return Read512<kFar>;
  if ((test::HostFeatures() & kFeatureAvx2) != 0) return Read256<kFar>;
#endif
  return ReadPlain<kFar>;
}

struct MultiplyLoop {
  void (*run)();                   // null: this machine has none
  size_t products_an_instruction;
};
MultiplyLoop FastestMultiply() {
#if defined(__x86_64__)
  const uint32_t features = test::HostFeatures();
  if ((features & kFeatureAvx512Vnni) != 0) return {Multiply512, 64};
#if defined(ACORN_BENCH_AVXVNNI)
  if ((features & kFeatureAvxVnni) != 0) return {MultiplyVnni256, 32};
#endif
  if ((features & kFeatureAvx2) != 0) return {Multiply256, 32};
#elif defined(__aarch64__) && defined(__GNUC__)
  if ((test::HostFeatures() & kFeatureI8mm) != 0) return {MultiplyI8mm, 32};
  if ((test::HostFeatures() & kFeatureNeonDot) != 0) return {MultiplyDot, 16};
#endif
  return {nullptr, 0};
}

void BenchRead(benchmark::State &state, size_t bytes) {
  const size_t part = bytes / static_cast<size_t>(state.threads()) / 4096 * 4096;
  const uint8_t *data = ColdBuffer() + part * static_cast<size_t>(state.thread_index());
  for (auto _ : state) Read(data, part);
  state.counters["GB/s"] = benchmark::Counter(1e-9 * static_cast<double>(part) * static_cast<double>(state.iterations()),
                                              benchmark::Counter::kIsRate);
}

void BenchMultiply(benchmark::State &state, const MultiplyLoop &loop) {
  for (auto _ : state) loop.run();
  const double macs = static_cast<double>(kRounds * 12 * loop.products_an_instruction) * static_cast<double>(state.iterations());
  state.counters["GMAC/s"] = benchmark::Counter(1e-9 * macs, benchmark::Counter::kIsRate);
}

// Two threads hand one line to and fro.
void BenchHandOver(benchmark::State &state) {
  static std::atomic<uint64_t> turn;
  const uint64_t own = static_cast<uint64_t>(state.thread_index());
  if (own == 0) turn = 0;
  uint64_t next = own;  // even: the first thread's
  auto begin = std::chrono::steady_clock::now();
  for (auto _ : state) {
    if (next == 0) begin = std::chrono::steady_clock::now();  // the other thread is there
    while (turn.load(std::memory_order_acquire) != next) {
    }
    turn.store(next + 1, std::memory_order_release);
    next += 2;
  }
  if (own != 0) return;
  const std::chrono::duration<double, std::nano> time = std::chrono::steady_clock::now() - begin;
  state.counters["ns"] = time.count() / static_cast<double>(next);
}

struct FreeDeleter {
  void operator()(uint8_t *data) const { std::free(data); }
};

}  // namespace

uint8_t *ColdBuffer() {
  static const std::unique_ptr<uint8_t, FreeDeleter> buffer(static_cast<uint8_t *>(std::aligned_alloc(4096, kColdBytes)));
  static const bool filled = buffer != nullptr && (std::memset(buffer.get(), 0x11, kColdBytes), true);
  if (!filled) std::abort();
  return buffer.get();
}

void Read(const uint8_t *data, size_t bytes) {
  static const ReadLoop near_loop = FastestRead<false>(), far_loop = FastestRead<true>();
  (bytes < kFarBytes ? near_loop : far_loop)(data, bytes);
}

std::vector<int> ThreadCounts() {
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  return cores > 1 ? std::vector<int>{1, cores} : std::vector<int>{1};
}

void RegisterBounds(const std::vector<size_t> &bytes) {
  for (const int threads : ThreadCounts()) {
    for (const size_t count : bytes) {
      benchmark::RegisterBenchmark(("bound/read/" + std::to_string(count)).c_str(),
                                   [count](benchmark::State &state) { BenchRead(state, count); })
          ->Threads(threads)
          ->UseRealTime();
    }
    const MultiplyLoop loop = FastestMultiply();
    if (loop.run == nullptr) continue;
    benchmark::RegisterBenchmark("bound/multiply", [loop](benchmark::State &state) { BenchMultiply(state, loop); })
        ->Threads(threads)
        ->UseRealTime();
  }
  if (ThreadCounts().back() > 1) benchmark::RegisterBenchmark("bound/hand_over", BenchHandOver)->Threads(2)->UseRealTime();
}

}  // namespace acorn::bench
