// The requantise epilogue on prefill's shapes, every variant this machine has. G/s counts output elements.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/requantise/kernel.h"
#include "tests/support/host_features.h"

namespace acorn {
namespace {

void Bench(benchmark::State &state, requantise::Function function, int32_t shift) {
  const size_t m = 128, n = static_cast<size_t>(state.range(0));
  std::vector<int32_t> acc(m * n), low(m * n), bias(n, 5), multiplier(n, 1 << 20), y(m * n);
  for (size_t i = 0; i < acc.size(); ++i) acc[i] = low[i] = static_cast<int32_t>(i * 2654435761u) >> 10;
  for (auto _ : state) {
    function({y.data(), acc.data(), low.data(), n, n, m, n, bias.data(), multiplier.data(), shift, 0});
    benchmark::ClobberMemory();
  }
  state.counters["G/s"] = benchmark::Counter(1e-9 * static_cast<double>(m * n * static_cast<size_t>(state.iterations())),
                                             benchmark::Counter::kIsRate);
}

void RegisterAll() {
  for (const requantise::Kernel &kernel : requantise::Kernels()) {
    if ((kernel.needs & ~test::HostFeatures()) != 0) continue;
    const struct {
      const char *name;
      requantise::Function function;
    } functions[] = {{"s8", kernel.s8}, {"s16", kernel.s16}, {"s32", kernel.s32}, {"two_row_s16", kernel.two_row_s16}};
    for (const auto &entry : functions) {
      for (const int32_t shift : {36, 24}) {
        const std::string name = std::string(entry.name) + "/shift" + std::to_string(shift) + "/" + kernel.name;
        const requantise::Function function = entry.function;
        benchmark::RegisterBenchmark(name.c_str(),
                                     [function, shift](benchmark::State &state) { Bench(state, function, shift); })
            ->Arg(128)
            ->Arg(1536);
      }
    }
  }
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
