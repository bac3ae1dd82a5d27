// Benches of everything that is not a matrix product, for every variant of this machine.
// Elementwise kernels report elements per ns; attention the time of one (query row and head, key) pair, and the multiply-adds
// of scores and values together (the 16-bit weights of the values count once).
#include <benchmark/benchmark.h>

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels/add/kernel.h"
#include "kernels/append/kernel.h"
#include "kernels/attention/kernel.h"
#include "kernels/conv/kernel.h"
#include "kernels/glu/kernel.h"
#include "kernels/hadamard/kernel.h"
#include "kernels/layernorm/kernel.h"
#include "kernels/rmsnorm/kernel.h"
#include "kernels/rotate/kernel.h"
#include "kernels/scan/kernel.h"
#include "tests/support/host_features.h"

namespace acorn {
namespace {

template <typename T>
std::vector<T> Random(size_t count, int64_t low, int64_t high) {
  std::mt19937 random(1);
  std::vector<T> values(count);
  for (T &value : values) value = static_cast<T>(std::uniform_int_distribution<int64_t>(low, high)(random));
  return values;
}

constexpr size_t kRows = 8;  // of an elementwise call; all in L1 or L2, as in a chunk of prefill

template <typename Function>
void Elements(benchmark::State &state, size_t per_call, const Function &call) {
  for (auto _ : state) {
    call();
    benchmark::ClobberMemory();
  }
  state.counters["elems"] = benchmark::Counter(static_cast<double>(per_call), benchmark::Counter::kIsIterationInvariantRate);
}

void RmsNorm(benchmark::State &state, const rmsnorm::Kernel &kernel) {
  const auto n = static_cast<size_t>(state.range(0));
  const auto x = Random<int16_t>(kRows * n, -9000, 9000), gamma = Random<int16_t>(n, -32767, 32767);
  std::vector<int8_t> y(kRows * n);
  const rmsnorm::Args args = {y.data(), x.data(), n, n, kRows, 1, n, gamma.data(), 1000, 1500000000, 24, 0};
  Elements(state, kRows * n, [&] { kernel.s8(args); });
}

void LayerNorm(benchmark::State &state, const layernorm::Kernel &kernel) {
  const auto n = static_cast<size_t>(state.range(0));
  const auto x = Random<int16_t>(kRows * n, -9000, 9000), gamma = Random<int16_t>(n, -32767, 32767);
  const auto bias = Random<int32_t>(n, -1000000, 1000000);
  std::vector<int8_t> y(kRows * n);
  const layernorm::Args args = {y.data(), x.data(), n, n, kRows, 1, n, gamma.data(), bias.data(), 1000, 30, 0};
  Elements(state, kRows * n, [&] { kernel.s8(args); });
}

void Conv(benchmark::State &state, const conv::Kernel &kernel) {
  const auto n = static_cast<size_t>(state.range(0));
  constexpr size_t kTaps = 4;
  const auto x = Random<int16_t>(kRows * n, -9000, 9000), weights = Random<int16_t>(kTaps * n, -8000, 8000);
  const auto table = Random<int16_t>(conv::kTableElems, 0, 32767);
  const auto bias = Random<int32_t>(n, -1000000, 1000000), factors = Random<int32_t>(n, 1 << 29, 1 << 30);
  std::vector<int16_t> y(kRows * n), history((kTaps - 1) * n);
  const conv::Args args = {y.data(),    x.data(),       history.data(), n,  n,  n,           kRows, n, kTaps, weights.data(),
                           bias.data(), factors.data(), factors.data(), 43, 30, table.data()};
  Elements(state, kRows * n, [&] { kernel.run(args); });
}

// One head; an element is one of the state that a token changes.
void Scan(benchmark::State &state, const scan::Kernel &kernel) {
  const auto channels = static_cast<size_t>(state.range(0)), n = static_cast<size_t>(state.range(1));
  const auto x = Random<int16_t>(kRows * channels, -9000, 9000), b = Random<int16_t>(kRows * n, -9000, 9000);
  const auto table = Random<int32_t>(scan::kTableElems, 0, 1 << 23);
  std::vector<int16_t> y(kRows * channels), dt(kRows, 100);
  std::vector<int32_t> kept(channels * n);
  const scan::Head head = {1 << 20, 16, -(1 << 17), table.data(), 1000, 1 << 28, 3 << 28, 28, 111 << 20, 20};
  const scan::Args args = {y.data(), x.data(), b.data(), b.data(), dt.data(), channels, channels, n, n, 1, channels, channels,
                           kept.data(), n, kRows, channels, n, head, 1 << 20, 30};
  Elements(state, kRows * channels * n, [&] { kernel.run(args); });
}

void Glu(benchmark::State &state, const glu::Kernel &kernel) {
  const auto n = static_cast<size_t>(state.range(0));
  const auto gate = Random<int16_t>(kRows * n, -32767, 32767), up = gate, table = Random<int16_t>(glu::kTableElems, 0, 32767);
  std::vector<int16_t> y(kRows * n);
  const glu::Args args = {y.data(), gate.data(), up.data(), n, n, n, kRows, n, table.data(), 1 << 30, 30, 20};
  Elements(state, kRows * n, [&] { kernel.run(args); });
}

void Hadamard(benchmark::State &state, const hadamard::Kernel &kernel) {
  const auto n = static_cast<size_t>(state.range(0)), block = static_cast<size_t>(state.range(1));
  const auto x = Random<int16_t>(kRows * n, -32767, 32767);
  std::vector<int8_t> y(kRows * n);
  const hadamard::Args args = {y.data(), x.data(), n, n, kRows, n, block, 1 << 30, 42, 0};
  Elements(state, kRows * n, [&] { kernel.s8(args); });
}

void Add(benchmark::State &state, const add::Kernel &kernel) {
  const auto n = static_cast<size_t>(state.range(0));
  const auto a = Random<int16_t>(kRows * n, -32767, 32767), b = a;
  std::vector<int16_t> y(kRows * n);
  const add::Args args = {y.data(), a.data(), b.data(), n, n, n, kRows, n, 1 << 30, 1 << 29, 30};
  Elements(state, kRows * n, [&] { kernel.run(args); });
}

void Rotate(benchmark::State &state, const rotate::Kernel &kernel) {
  const auto n = static_cast<size_t>(state.range(0)), head_dim = static_cast<size_t>(state.range(1));
  const auto x = Random<int16_t>(kRows * n, -32767, 32767), cosine = Random<int16_t>(kRows * head_dim / 2, -16384, 16384);
  const auto multiplier = Random<int32_t>(n / head_dim, 1 << 30, 2147483647);
  std::vector<int8_t> y(kRows * n);
  const rotate::Args args = {y.data(),      x.data(),          n, n, kRows, n / head_dim, head_dim, head_dim / 2, cosine.data(),
                             cosine.data(), multiplier.data(), 53, nullptr, 1};
  Elements(state, kRows * n, [&] { kernel.s8(args); });
}

void Append(benchmark::State &state, const append::Kernel &kernel) {
  const auto kv_heads = static_cast<size_t>(state.range(0)), head_dim = static_cast<size_t>(state.range(1));
  const auto bits = static_cast<size_t>(state.range(2));
  const size_t width = kv_heads * head_dim, capacity = 64;
  const auto k = Random<int8_t>(kRows * width, -127, 127);
  const auto v = Random<int16_t>(kRows * width, -32767, 32767);
  const auto multiplier = Random<int32_t>(kv_heads, 1 << 30, 2147483647);
  std::vector<uint8_t> k_cache(kv_cache::CacheBytes(capacity, kv_heads, head_dim, bits));
  std::vector<int8_t> v_cache(k_cache.size());
  const append::Args args = {k_cache.data(), v_cache.data(),    capacity, 3,        kRows,
                             kv_heads,       head_dim,          head_dim, head_dim, bits, k.data(), v.data(),
                             width,          width,             multiplier.data(), 40};
  Elements(state, 2 * kRows * width, [&] { kernel.run(args); });
}

/// range: query rows, keys that the last of them sees, heads of a KV head, head_dim, bits of the cache
void Attention(benchmark::State &state, const attention::Kernel &kernel) {
  const auto m = static_cast<size_t>(state.range(0)), rows = static_cast<size_t>(state.range(1));
  const auto heads = static_cast<size_t>(state.range(2)), head_dim = static_cast<size_t>(state.range(3));
  const auto bits = static_cast<size_t>(state.range(4));
  const auto q = Random<int8_t>(m * heads * head_dim, -127, 127);
  const auto k = Random<uint8_t>(kv_cache::HeadBytes(rows, head_dim, bits) + 64, 1, 255);
  const auto v = Random<int8_t>(kv_cache::HeadBytes(rows, head_dim, bits) + 64, -127, 127);
  std::vector<uint8_t> scratch(attention::ScratchBytes(rows, head_dim) + 64);
  std::vector<int8_t> y(q.size());
  const std::vector<int32_t> exp_multiplier(heads, 1 << 30), out_multiplier(heads, 1 << 30);
  const auto align = [](const auto *p) {
    return const_cast<std::decay_t<decltype(*p)> *>(p) + (64 - reinterpret_cast<uintptr_t>(p) % 64);
  };
  const size_t stride = heads * head_dim;
  const attention::Args args = {y.data(),
                                q.data(),
                                stride,
                                stride,
                                m,
                                heads,
                                head_dim,
                                head_dim,
                                head_dim,
                                head_dim,
                                stride,
                                bits,
                                0,
                                0,
                                kv_cache::PaddedRows(rows),
                                rows - m,
                                attention::kNoWindow,
                                nullptr,
                                0,
                                align(k.data()),
                                align(v.data()),
                                exp_multiplier.data(),
                                out_multiplier.data(),
                                31,
                                30,
                                0,
                                align(scratch.data())};
  for (auto _ : state) {
    kernel.run(args);
    benchmark::ClobberMemory();
  }
  size_t pairs = 0;
  for (size_t row = 0; row < m; ++row) pairs += heads * (rows - m + row + 1);
  const auto per_call = static_cast<double>(pairs);
  using benchmark::Counter;
  state.counters["pair"] = Counter(per_call, Counter::kIsIterationInvariantRate | Counter::kInvert);
  state.counters["MAC"] = Counter(per_call * 2 * static_cast<double>(head_dim), Counter::kIsIterationInvariantRate);
}

template <typename Kernel>
benchmark::internal::Benchmark *Register(const char *family, const Kernel &kernel,
                                         void (*bench)(benchmark::State &, const Kernel &)) {
  return benchmark::RegisterBenchmark((std::string(family) + "/" + kernel.name).c_str(),
                                      [bench, &kernel](benchmark::State &state) { bench(state, kernel); });
}

template <typename Kernel, typename Shapes>
void RegisterAll(const char *family, Span<const Kernel> kernels, void (*bench)(benchmark::State &, const Kernel &),
                 const Shapes &shapes) {
  for (const Kernel &kernel : kernels) {
    if ((kernel.needs & ~test::HostFeatures()) == 0) shapes(Register(family, kernel, bench));
  }
}

void RegisterFamilies() {
  const auto widths = [](auto *bench) {
    for (int64_t n : {576, 1536, 2048, 8192}) bench->Arg(n);
  };
  const auto blocks = [](auto *bench) {
    for (int64_t block : {1, 8, 32, 64, 128, 1024}) bench->Args({8192, block});
  };
  const auto heads = [](auto *bench) { bench->Args({576, 64})->Args({2048, 128}); };
  const auto kv_heads = [](auto *bench) {
    for (int64_t bits : {8, 4}) bench->Args({3, 64, bits})->Args({4, 64, bits})->Args({8, 128, bits});
  };
  const auto contexts = [](auto *bench) {
    bench->ArgNames({"m", "keys", "heads", "head_dim", "bits"});
    for (int64_t bits : {8, 4}) {
      for (int64_t keys : {64, 1024, 8192}) {
        for (int64_t group : {1, 3, 8}) bench->Args({1, keys, group, 64, bits});
        bench->Args({1, keys, 1, 128, bits});
      }
      for (int64_t keys : {128, 1024, 8192}) {
        bench->Args({16, keys, 3, 64, bits})->Args({128, keys, 3, 64, bits})->Args({16, keys, 4, 128, bits});
      }
    }
  };
  RegisterAll("rmsnorm", rmsnorm::Kernels(), RmsNorm, widths);
  RegisterAll("layernorm", layernorm::Kernels(), LayerNorm, widths);
  RegisterAll("glu", glu::Kernels(), Glu, widths);
  RegisterAll("conv", conv::Kernels(), Conv, [](auto *bench) { bench->Arg(640)->Arg(4352); });
  RegisterAll("scan", scan::Kernels(), Scan, [](auto *bench) { bench->Args({32, 64})->Args({64, 128}); });
  RegisterAll("add", add::Kernels(), Add, widths);
  RegisterAll("hadamard", hadamard::Kernels(), Hadamard, blocks);
  RegisterAll("rotate", rotate::Kernels(), Rotate, heads);
  RegisterAll("append", append::Kernels(), Append, kv_heads);
  RegisterAll("attention", attention::Kernels(), Attention, contexts);
}

}  // namespace
}  // namespace acorn

int main(int argc, char **argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  acorn::RegisterFamilies();
  benchmark::RunSpecifiedBenchmarks();
}
