// Matrix kernels on the shapes of bench/shapes/*.txt, every variant this machine has, beside two bounds taken in the same run: a
// read of memory and a loop of the fastest multiply instruction on registers.
//
// Up to 8 rows the weights come from memory, as in decode and in passes that verify guesses: a bench walks copies of the matrix
// that together exceed the caches. More rows use one copy, as in prefill. More than 4 go through in calls of 128 channels.
// GB/s counts the bytes of packed weights; GMAC/s counts m * n * k: both of the rows and columns in use, where a shape names
// fewer than it stores.
//   gemm_bench --benchmark_filter='down_decode|bound' --benchmark_repetitions=5 --benchmark_report_aggregates_only
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "acorn_schema/layout.h"
#include "acorn_schema/layout_xnnpack.h"
#include "bench/kernels/bounds.h"
#include "bench/kernels/shapes.h"
#include "kernels/gemm.h"
#include "kernels/gemm_s8_w2g/kernel.h"
#include "kernels/gemm_s8_w4/kernel.h"
#include "kernels/gemm_s8_w4g/kernel.h"
#include "kernels/gemm_s8_w8/kernel.h"
#include "tests/support/host_features.h"

namespace acorn {
namespace {

constexpr size_t kMostColdRows = 8, kMostStreamedRows = 4;  // the latter as kStreamRows of ops/linear_tile.h
constexpr size_t kChannelsPerCall = 128;

struct Shape {
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

size_t PackedBytes(const Shape &shape, Layout layout) {
  if (layout == Layout::kC4) return c4::PackedBytes(shape.format, shape.n, shape.k);
  return XnnPackedBytes({shape.format, layout, shape.n, shape.k, shape.k});
}

// Threads share the channels of each copy: thread t takes the t-th part, in multiples of a tile.
void BenchGemm(benchmark::State &state, const GemmKernel &kernel, const Shape &shape) {
  const size_t threads = static_cast<size_t>(state.threads()), thread = static_cast<size_t>(state.thread_index());
  const size_t packed_bytes = (PackedBytes(shape, kernel.layout) + 63) / 64 * 64;
  if (packed_bytes > bench::kColdBytes) {
    state.SkipWithError("the matrix is larger than the benches' memory");
    return;
  }
  const bool cold = shape.m <= kMostColdRows;
  const size_t copies = cold ? std::max<size_t>(1, bench::kColdBytes / packed_bytes) : 1;
  const size_t tiles = (shape.used_n + kernel.nr - 1) / kernel.nr;
  const size_t begin = tiles * thread / threads * kernel.nr,
               end = std::min(shape.used_n, tiles * (thread + 1) / threads * kernel.nr);
  const size_t step = shape.m <= kMostStreamedRows ? end - begin : kChannelsPerCall;

  uint8_t *weights = bench::ColdBuffer();
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

Span<const GemmKernel> KernelsOf(WeightFormat format) {
  if (format == WeightFormat::kW8) return gemm_s8_w8::Kernels();
  if (format == WeightFormat::kW4) return gemm_s8_w4::Kernels();
  if (format == WeightFormat::kW2G32) return gemm_s8_w2g::Kernels();
  return gemm_s8_w4g::Kernels();
}

void RegisterShape(const bench::Shape &row) {
  const std::vector<size_t> &numbers = row.numbers;
  const size_t m = numbers[0], n = numbers[1], k = numbers[2];
  const Shape shape = {m, n, k, row.format, numbers.size() > 3 ? numbers[3] : n, numbers.size() > 3 ? numbers[4] : k};
  for (const GemmKernel &kernel : KernelsOf(shape.format)) {
    if ((kernel.needs & ~test::HostFeatures()) != 0) continue;
    const std::string name = row.model + "/" + row.name + "/" + kernel.name;
    auto run = [&kernel, shape](benchmark::State &state) { BenchGemm(state, kernel, shape); };
    auto *registered = benchmark::RegisterBenchmark(name.c_str(), run)->UseRealTime();
    for (const int threads : bench::ThreadCounts()) registered->Threads(threads);
  }
}

}  // namespace
}  // namespace acorn

int main(int argc, char **argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  acorn::bench::RegisterBounds({acorn::bench::kColdBytes});
  for (const acorn::bench::Shape &row : acorn::bench::ReadShapes()) {
    if (row.kind == "gemm") acorn::RegisterShape(row);
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
