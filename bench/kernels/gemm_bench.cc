// Matrix kernels on the shapes of bench/shapes/*.txt, every variant this machine has, beside two bounds taken in the same run: a
// plain read of memory and a loop of the fastest multiply instruction on registers.
//
// Up to 4 rows the weights come from memory, as in decode: a bench walks copies of the matrix that together exceed the caches.
// More rows use one copy, as in prefill, in calls of 128 channels.
// GB/s counts the bytes of packed weights; GMAC/s counts m * n * k: both of the rows and columns in use, where a shape names fewer
// than it stores.
//   gemm_bench --benchmark_filter='down_decode|bound' --benchmark_repetitions=5 --benchmark_report_aggregates_only
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "acorn_schema/layout.h"
#include "acorn_schema/layout_xnnpack.h"
#include "kernels/gemm.h"
#include "kernels/gemm_s8_w2g/kernel.h"
#include "kernels/gemm_s8_w4/kernel.h"
#include "kernels/gemm_s8_w4g/kernel.h"
#include "kernels/gemm_s8_w8/kernel.h"
#include "tests/support/host_features.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace acorn {
namespace {

constexpr size_t kColdBytes = size_t{384} << 20;  // more than the caches of the machines we measure on
constexpr size_t kMostColdRows = 4;
constexpr size_t kChannelsPerCall = 128;

struct Shape {
  std::string name;
  size_t m, n, k;
  WeightFormat format;
  size_t used_n, used_k;  // the first rows and columns
};

struct FreeDeleter {
  void operator()(uint8_t *p) const { std::free(p); }
};
using Bytes = std::unique_ptr<uint8_t, FreeDeleter>;

Bytes Allocate(size_t bytes) {
  const size_t rounded = (bytes + 4095) / 4096 * 4096;
  uint8_t *data = static_cast<uint8_t *>(std::aligned_alloc(4096, rounded));
  if (data == nullptr) std::abort();
  std::memset(data, 0x11, rounded);  // as float32 words, which the per-channel layouts contain, 0x11111111 is a normal number
  return Bytes(data);
}

// One buffer for all cold benches: copies of a matrix, as many as fit.
uint8_t *ColdBuffer() {
  static const Bytes buffer = Allocate(kColdBytes);
  return buffer.get();
}

size_t PackedBytes(const Shape &shape, Layout layout) {
  if (layout == Layout::kC4) return c4::PackedBytes(shape.format, shape.n, shape.k);
  return XnnPackedBytes({shape.format, layout, shape.n, shape.k, shape.k});
}

// Threads share the channels of each copy: thread t takes the t-th part, in multiples of a tile.
void BenchGemm(benchmark::State &state, const GemmKernel &kernel, const Shape &shape) {
  const size_t threads = static_cast<size_t>(state.threads()), thread = static_cast<size_t>(state.thread_index());
  const size_t packed_bytes = (PackedBytes(shape, kernel.layout) + 63) / 64 * 64;
  const bool cold = shape.m <= kMostColdRows;
  const size_t copies = cold ? std::max<size_t>(1, kColdBytes / packed_bytes) : 1;
  const size_t tiles = (shape.used_n + kernel.nr - 1) / kernel.nr;
  const size_t begin = tiles * thread / threads * kernel.nr,
               end = std::min(shape.used_n, tiles * (thread + 1) / threads * kernel.nr);
  const size_t step = cold ? end - begin : kChannelsPerCall;

  uint8_t *weights = ColdBuffer();
  const Bytes x = Allocate(shape.m * shape.k), scratch = Allocate(kernel.scratch_bytes(shape.m, shape.k));
  const Bytes acc = Allocate(shape.m * step * sizeof(int32_t));
  size_t copy = 0;
  for (auto _ : state) {
    for (size_t n = begin; n < end; n += step) {
      const size_t n_end = std::min(n + step, end);
      GemmArgs args = {};
      args.x = reinterpret_cast<const int8_t *>(x.get());
      args.x_stride = shape.used_k;
      args.w = weights + copy * packed_bytes;
      args.m = shape.m;
      args.k = shape.used_k;
      args.k_stored = shape.k;
      args.group = GroupSize(shape.format);
      args.n_begin = n;
      args.n_end = n_end;
      args.n = shape.n;
      args.acc = reinterpret_cast<int32_t *>(acc.get());
      args.acc_stride = n_end - n;
      args.scratch = scratch.get();
      kernel.run(args);
      benchmark::ClobberMemory();
    }
    copy = copy + 1 == copies ? 0 : copy + 1;
  }
  const double runs = static_cast<double>(state.iterations()) / static_cast<double>(threads);
  const auto rate = benchmark::Counter::kIsRate;
  const double share = static_cast<double>(shape.used_n * shape.used_k) / static_cast<double>(shape.n * shape.k);
  state.counters["GB/s"] = benchmark::Counter(1e-9 * share * static_cast<double>(packed_bytes) * runs, rate);
  state.counters["GMAC/s"] = benchmark::Counter(1e-9 * static_cast<double>(shape.m * shape.used_n * shape.used_k) * runs, rate);
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) void Read512(const uint8_t *data, size_t bytes) {
  __m512i sum[8] = {};
  for (size_t i = 0; i < bytes; i += 512) {
    for (size_t j = 0; j < 8; ++j) sum[j] = _mm512_xor_si512(sum[j], _mm512_load_si512(data + i + 64 * j));
  }
  for (__m512i &value : sum) benchmark::DoNotOptimize(value);
}

__attribute__((target("avx512f,avx512vnni"))) void Multiply512(size_t rounds) {
  __m512i sum[12] = {};
  __m512i a = _mm512_set1_epi32(0x01020304), b = _mm512_set1_epi32(0x04030201);
  benchmark::DoNotOptimize(a);
  benchmark::DoNotOptimize(b);
  for (size_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (size_t j = 0; j < 12; ++j) sum[j] = _mm512_dpbusd_epi32(sum[j], a, b);
  }
  for (__m512i &value : sum) benchmark::DoNotOptimize(value);
}

__attribute__((target("avx2"))) void Multiply256(size_t rounds) {
  __m256i sum[12] = {};
  __m256i a = _mm256_set1_epi32(0x01020304), b = _mm256_set1_epi32(0x04030201);
  benchmark::DoNotOptimize(a);
  for (size_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (size_t j = 0; j < 12; ++j) {
      benchmark::DoNotOptimize(b);
      sum[j] = _mm256_add_epi16(sum[j], _mm256_maddubs_epi16(a, b));
    }
  }
  for (__m256i &value : sum) benchmark::DoNotOptimize(value);
}
#endif

void ReadPlain(const uint8_t *data, size_t bytes) {
  uint64_t sum[8] = {};
  for (size_t i = 0; i < bytes; i += 64) {
    for (size_t j = 0; j < 8; ++j) {
      uint64_t value;
      std::memcpy(&value, data + i + 8 * j, 8);
      sum[j] ^= value;
    }
  }
  for (uint64_t &value : sum) benchmark::DoNotOptimize(value);
}

void BenchRead(benchmark::State &state) {
  const size_t threads = static_cast<size_t>(state.threads()), part = kColdBytes / threads / 4096 * 4096;
  const uint8_t *data = ColdBuffer() + part * static_cast<size_t>(state.thread_index());
  for (auto _ : state) {
#if defined(__x86_64__)
    if ((test::HostFeatures() & kFeatureAvx512Vnni) != 0) {
      Read512(data, part);
      continue;
    }
#endif
    ReadPlain(data, part);
  }
  state.counters["GB/s"] = benchmark::Counter(1e-9 * static_cast<double>(part) * static_cast<double>(state.iterations()),
                                              benchmark::Counter::kIsRate);
}

#if defined(__x86_64__)
void BenchMultiply(benchmark::State &state) {
  constexpr size_t kRounds = 100000;
  const bool wide = (test::HostFeatures() & kFeatureAvx512Vnni) != 0;
  for (auto _ : state) wide ? Multiply512(kRounds) : Multiply256(kRounds);
  const double macs = static_cast<double>(kRounds) * 12 * (wide ? 64 : 32) * static_cast<double>(state.iterations());
  state.counters["GMAC/s"] = benchmark::Counter(1e-9 * macs, benchmark::Counter::kIsRate);
}
#endif

WeightFormat FormatOf(const std::string &name) {
  if (name == "w8") return WeightFormat::kW8;
  if (name == "w4") return WeightFormat::kW4;
  if (name == "w4g32") return WeightFormat::kW4G32;
  if (name == "w4g64") return WeightFormat::kW4G64;
  if (name == "w4g128") return WeightFormat::kW4G128;
  if (name == "w2g32") return WeightFormat::kW2G32;
  std::fprintf(stderr, "unknown weight format %s\n", name.c_str());
  std::exit(2);
}

Span<const GemmKernel> KernelsOf(WeightFormat format) {
  if (format == WeightFormat::kW8) return gemm_s8_w8::Kernels();
  if (format == WeightFormat::kW4) return gemm_s8_w4::Kernels();
  if (format == WeightFormat::kW2G32) return gemm_s8_w2g::Kernels();
  return gemm_s8_w4g::Kernels();
}

void RegisterShape(const std::string &model, const Shape &shape) {
  for (const GemmKernel &kernel : KernelsOf(shape.format)) {
    if ((kernel.needs & ~test::HostFeatures()) != 0) continue;
    const std::string name = model + "/" + shape.name + "/" + kernel.name;
    auto bench = [&kernel, shape](benchmark::State &state) { BenchGemm(state, kernel, shape); };
    for (int threads : {1, 2}) benchmark::RegisterBenchmark(name.c_str(), bench)->Threads(threads)->UseRealTime();
  }
}

void RegisterFile(const std::filesystem::path &path) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream fields(line);
    Shape shape;
    std::string format;
    if (!(fields >> shape.name >> shape.m >> shape.n >> shape.k >> format)) {
      std::fprintf(stderr, "%s: not a shape: %s\n", path.c_str(), line.c_str());
      std::exit(2);
    }
    shape.format = FormatOf(format);
    shape.used_n = shape.n;
    shape.used_k = shape.k;
    fields >> shape.used_n >> shape.used_k;
    RegisterShape(path.stem().string(), shape);
  }
}

void RegisterAll() {
  for (int threads : {1, 2}) {
    benchmark::RegisterBenchmark("bound/read", BenchRead)->Threads(threads)->UseRealTime();
#if defined(__x86_64__)
    benchmark::RegisterBenchmark("bound/multiply", BenchMultiply)->Threads(threads)->UseRealTime();
#endif
  }
  std::vector<std::filesystem::path> files;
  for (const auto &entry : std::filesystem::directory_iterator(ACORN_SHAPES_DIR)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  for (const auto &file : files) RegisterFile(file);
}

}  // namespace
}  // namespace acorn

int main(int argc, char **argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  acorn::RegisterAll();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
