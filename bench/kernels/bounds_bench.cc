// The bounds alone, for measurements of whole programs: a read of as many bytes as a token takes, products,
// and a line's way from core to core.
//   acorn_bench_bounds [BYTES...] [--benchmark_...]      default: one read beyond the caches
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "bench/kernels/bounds.h"

int main(int argc, char **argv) {
  benchmark::Initialize(&argc, argv);
  std::vector<size_t> bytes;
  for (int i = 1; i < argc; ++i) {
    char *end = nullptr;
    const unsigned long long count = std::strtoull(argv[i], &end, 10);
    if (*end != 0 || count < 65536) {
      std::fprintf(stderr, "acorn_bench_bounds: %s: bytes, 65536 and up, are wanted\n", argv[i]);
      return 2;
    }
    bytes.push_back(count < acorn::bench::kColdBytes ? count : acorn::bench::kColdBytes);  // more is no slower
  }
  if (bytes.empty()) bytes.push_back(acorn::bench::kColdBytes);
  acorn::bench::RegisterBounds(bytes);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
