// Benches of everything that is not a matrix product, on the shapes of bench/shapes/*.txt, for every variant of this machine,
// beside bounds taken in the same run: a read of what fits the cache next to each core, of all of memory, and products.
// GB/s counts what a call reads and writes, elems/s what it makes: rows as in a chunk of prefill, in the caches. Attention
// reports the time of one (query row and head, key) pair, and the multiply-adds of scores and values together (the 16-bit weights
// of the values count once); convolution and scan multiply-adds too. Attention in parts, which is what threads share in long
// decode steps, reads its keys and values from memory. Experts are a whole operator (experts_bench.h).
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "acorn_schema/layout_xnnpack.h"
#include "bench/kernels/bounds.h"
#include "bench/kernels/experts_bench.h"
#include "bench/kernels/measure.h"
#include "bench/kernels/shapes.h"
#include "kernels/add/kernel.h"
#include "kernels/append/kernel.h"
#include "kernels/attention/kernel.h"
#include "kernels/conv/kernel.h"
#include "kernels/embed/kernel.h"
#include "kernels/glu/kernel.h"
#include "kernels/hadamard/kernel.h"
#include "kernels/layernorm/kernel.h"
#include "kernels/lut_u8/kernel.h"
#include "kernels/requantise/kernel.h"
#include "kernels/rmsnorm/kernel.h"
#include "kernels/rotate/kernel.h"
#include "kernels/scan/kernel.h"
#include "ops/route.h"
#include "tests/support/host_features.h"

namespace acorn {
namespace {

constexpr size_t kRows = 8;               // of an elementwise call; all in L1 or L2, as in a chunk of prefill
constexpr size_t kNearBytes = 64 << 10;   // for each core: what lies in the cache next to it
constexpr size_t kRequantiseRows = 128;   // as a tile of prefill leaves them

using bench::Aligned;
using bench::Measure;
using bench::Random;
using bench::Work;
using benchmark::Counter;

/// bytes: of an element of the output
void RmsNorm(benchmark::State &state, rmsnorm::Run run, size_t bytes) {
  const auto n = static_cast<size_t>(state.range(0));
  const auto x = Random<int16_t>(kRows * n, -9000, 9000), gamma = Random<int16_t>(n, -32767, 32767);
  std::vector<int16_t> y(kRows * n);
  const rmsnorm::Args args = {y.data(), x.data(), n, n, kRows, 1, n, gamma.data(), 1000, 1500000000, 24, 0};
  Measure(state, {kRows * n, (2 + bytes) * kRows * n + 2 * n}, [&] { run(args); });
}

void LayerNorm(benchmark::State &state, layernorm::Run run, size_t bytes) {
  const auto n = static_cast<size_t>(state.range(0));
  const auto x = Random<int16_t>(kRows * n, -9000, 9000), gamma = Random<int16_t>(n, -32767, 32767);
  const auto bias = Random<int32_t>(n, -1000000, 1000000);
  std::vector<int16_t> y(kRows * n);
  const layernorm::Args args = {y.data(), x.data(), n, n, kRows, 1, n, gamma.data(), bias.data(), 1000, 30, 0};
  Measure(state, {kRows * n, (2 + bytes) * kRows * n + 6 * n}, [&] { run(args); });
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
  Measure(state, {kRows * n, 4 * kRows * n + (2 * kTaps + 12) * n, kRows * kTaps * n}, [&] { kernel.run(args); });
}

// One head; an element is one of the state that a token changes, with a product for the change and one for what it gives.
void Scan(benchmark::State &state, const scan::Kernel &kernel) {
  const auto channels = static_cast<size_t>(state.range(0)), n = static_cast<size_t>(state.range(1));
  const auto x = Random<int16_t>(kRows * channels, -9000, 9000), b = Random<int16_t>(kRows * n, -9000, 9000);
  const auto table = Random<int32_t>(scan::kTableElems, 0, 1 << 23);
  std::vector<int16_t> y(kRows * channels), dt(kRows, 100);
  std::vector<int32_t> kept(channels * n);
  const scan::Head head = {1 << 20, 16, -(1 << 17), table.data(), 1000, 1 << 28, 3 << 28, 28, 111 << 20, 20};
  const scan::Args args = {y.data(), x.data(), b.data(), b.data(), dt.data(), channels, channels, n, n, 1, channels, channels,
                           kept.data(), n, kRows, channels, n, head, 1 << 20, 30};
  const size_t state_elems = channels * n;
  const Work work = {kRows * state_elems, 8 * state_elems + 2 * kRows * (2 * channels + 2 * n + 1), 2 * kRows * state_elems};
  Measure(state, work, [&] { kernel.run(args); });
}

void Glu(benchmark::State &state, const glu::Kernel &kernel) {
  const auto n = static_cast<size_t>(state.range(0));
  const auto gate = Random<int16_t>(kRows * n, -32767, 32767), up = gate, table = Random<int16_t>(glu::kTableElems, 0, 32767);
  std::vector<int16_t> y(kRows * n);
  const glu::Args args = {y.data(), gate.data(), up.data(), n, n, n, kRows, n, table.data(), 1 << 30, 30, 20};
  Measure(state, {kRows * n, 6 * kRows * n}, [&] { kernel.run(args); });
}

void Hadamard(benchmark::State &state, hadamard::Run run, size_t bytes) {
  const auto n = static_cast<size_t>(state.range(0)), block = static_cast<size_t>(state.range(1));
  const auto x = Random<int16_t>(kRows * n, -32767, 32767);
  std::vector<int16_t> y(kRows * n);
  const hadamard::Args args = {y.data(), x.data(), n, n, kRows, n, block, 1 << 30, 42, 0};
  Measure(state, {kRows * n, (2 + bytes) * kRows * n}, [&] { run(args); });
}

void Add(benchmark::State &state, const add::Kernel &kernel) {
  const auto n = static_cast<size_t>(state.range(0));
  const auto a = Random<int16_t>(kRows * n, -32767, 32767), b = a;
  std::vector<int16_t> y(kRows * n);
  const add::Args args = {y.data(), a.data(), b.data(), n, n, n, kRows, n, 1 << 30, 1 << 29, 30};
  Measure(state, {kRows * n, 6 * kRows * n}, [&] { kernel.run(args); });
}

void Rotate(benchmark::State &state, rotate::Run run, size_t bytes) {
  const auto n = static_cast<size_t>(state.range(0)), head_dim = static_cast<size_t>(state.range(1));
  const auto x = Random<int16_t>(kRows * n, -32767, 32767), cosine = Random<int16_t>(kRows * head_dim / 2, -16384, 16384);
  const auto multiplier = Random<int32_t>(n / head_dim, 1 << 30, 2147483647);
  std::vector<int16_t> y(kRows * n);
  const rotate::Args args = {y.data(),      x.data(),          n, n, kRows, n / head_dim, head_dim, head_dim / 2, cosine.data(),
                             cosine.data(), multiplier.data(), 53, nullptr, 1};
  Measure(state, {kRows * n, (2 + bytes) * kRows * n + 2 * kRows * head_dim}, [&] { run(args); });
}

/// bytes: of a new value
void Append(benchmark::State &state, append::Run run, size_t bytes) {
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
  Measure(state, {2 * kRows * width, kRows * width * (1 + bytes + bits / 4)}, [&] { run(args); });
}

void Fill(uint8_t *to, size_t bytes) {
  const auto values = Random<uint8_t>(bytes, 1, 255);
  std::copy(values.begin(), values.end(), to);
}

/// Query rows of the heads of one KV head, and how attention takes them; keys, values and scratch are whose they are.
struct Queries {
  std::vector<int8_t> q, y;
  std::vector<int32_t> exp_multiplier, out_multiplier;
  attention::Args args = {};

  Queries(size_t m, size_t heads, size_t head_dim, size_t bits)
      : q(Random<int8_t>(m * heads * head_dim, -127, 127)),
        y(q.size()),
        exp_multiplier(heads, 1 << 30),
        out_multiplier(heads, 1 << 30) {
    args.y = y.data();
    args.q = args.sink_q = q.data();
    args.y_stride = args.q_stride = args.sink_q_stride = args.run_step = heads * head_dim;
    args.m = m;
    args.heads = heads;
    args.head_dim = args.k_dim = args.v_dim = args.run = head_dim;
    args.bits = bits;
    args.window = attention::kNoWindow;
    args.exp_multiplier = exp_multiplier.data();
    args.out_multiplier = out_multiplier.data();
    args.exp_shift = 31;
    args.out_shift = 30;
  }
};

/// pairs: of query rows and heads with the keys that they see
void MeasureAttention(benchmark::State &state, const attention::Kernel &kernel, Queries *queries, size_t rows, size_t pairs) {
  attention::Args &args = queries->args;
  const size_t bytes = kv_cache::HeadBytes(rows, args.head_dim, args.bits);
  const auto k = Aligned(bytes), v = Aligned(bytes);
  const auto scratch = Aligned(attention::ScratchBytes(attention::KeyRows(args.sinks, args.first_key + args.m), args.head_dim));
  Fill(k.get(), bytes);
  Fill(v.get(), bytes);
  args.k = k.get();
  args.v = reinterpret_cast<const int8_t *>(v.get());
  args.scratch = scratch.get();
  for (auto _ : state) {
    kernel.run(args);
    benchmark::ClobberMemory();
  }
  const auto per_call = static_cast<double>(pairs);
  const auto rate = Counter::kIsIterationInvariantRate;
  state.counters["pair"] = Counter(per_call, rate | Counter::kInvert);
  state.counters["GB/s"] = Counter(1e-9 * static_cast<double>(2 * bytes), rate);
  state.counters["GMAC/s"] = Counter(1e-9 * per_call * 2 * static_cast<double>(args.head_dim), rate);
}

/// range: query rows, keys that the last of them sees, heads of a KV head, head_dim, bits of the cache
void Attention(benchmark::State &state, const attention::Kernel &kernel) {
  const auto m = static_cast<size_t>(state.range(0)), rows = static_cast<size_t>(state.range(1));
  const auto heads = static_cast<size_t>(state.range(2));
  Queries queries(m, heads, static_cast<size_t>(state.range(3)), static_cast<size_t>(state.range(4)));
  queries.args.ring_rows = kv_cache::PaddedRows(rows);
  queries.args.first_key = rows - m;
  MeasureAttention(state, kernel, &queries, rows, heads * (m * (rows - m) + m * (m + 1) / 2));
}

/// A ring that has turned, and four sinks.  range: query rows, window, heads of a KV head, head_dim, bits of the cache
void AttentionWindow(benchmark::State &state, const attention::Kernel &kernel) {
  constexpr size_t kSinks = 4, kBefore = 5;  // keys of the first tile that the first row no longer sees
  const auto m = static_cast<size_t>(state.range(0)), window = static_cast<size_t>(state.range(1));
  const auto heads = static_cast<size_t>(state.range(2));
  Queries queries(m, heads, static_cast<size_t>(state.range(3)), static_cast<size_t>(state.range(4)));
  attention::Args &args = queries.args;
  args.sinks = kSinks;
  args.window = window;
  args.first_key = window - 1 + kBefore;
  args.ring_rows = kv_cache::PaddedRows(args.first_key + m);
  args.first_slot = args.ring_rows / 2 / kv_cache::kTileRows * kv_cache::kTileRows;
  MeasureAttention(state, kernel, &queries, kv_cache::PaddedRows(kSinks) + args.ring_rows, m * heads * (kSinks + window));
}

enum class PartStep { kScores, kValues, kJoin };

/// One token's keys in two parts, as two threads share them, by one thread; KV head after KV head, so that keys and values come
/// from memory.  range: keys, heads of a KV head, head_dim
void AttentionParts(benchmark::State &state, const attention::Kernel &kernel, PartStep step) {
  constexpr size_t kParts = 2, kMultiple = 64;
  const auto keys = static_cast<size_t>(state.range(0)), heads = static_cast<size_t>(state.range(1));
  const auto head_dim = static_cast<size_t>(state.range(2));
  Queries queries(1, heads, head_dim, 8);
  attention::Args &args = queries.args;
  args.ring_rows = kv_cache::PaddedRows(keys);
  args.first_key = keys - 1;
  const size_t bytes = kv_cache::HeadBytes(keys, head_dim, 8), stride = AlignUp(bytes, 64);
  const size_t kv_heads = bench::kColdBytes / (2 * stride), half = AlignUp(keys / kParts, kMultiple);
  const auto scores = Aligned(attention::PartScoreBytes(heads, keys)), rows = Aligned(attention::QueryBytes(head_dim));
  const auto num = Aligned(kParts * heads * kv_cache::PaddedDim(head_dim) * sizeof(int64_t));
  std::vector<uint64_t> den(kParts * heads);
  std::vector<int32_t> largest(kParts * heads);
  attention::Part part = {0, kParts, 0, 0, reinterpret_cast<int8_t *>(rows.get()), largest.data(), den.data(),
                          reinterpret_cast<int64_t *>(num.get())};
  args.scratch = scores.get();
  args.part = &part;
  size_t kv_head = 0;
  const auto run_parts = [&](attention::Run run) {
    args.k = bench::ColdBuffer() + 2 * kv_head * stride;
    args.v = reinterpret_cast<const int8_t *>(args.k + stride);
    kv_head = kv_head + 1 == kv_heads ? 0 : kv_head + 1;
    for (part.index = 0; part.index < kParts; ++part.index) {
      part.begin = part.index * half;
      part.end = part.index == 0 ? half : keys;
      run(args);
    }
  };
  run_parts(kernel.score_part);
  run_parts(kernel.value_part);  // writes over the scores; again, it takes as long and sums something else
  const size_t sum_bytes = kParts * heads * (kv_cache::PaddedDim(head_dim) * sizeof(int64_t) + sizeof(uint64_t));
  if (step == PartStep::kJoin) return Measure(state, {heads * head_dim, sum_bytes}, [&] { attention::Join(args); });
  const attention::Run run = step == PartStep::kScores ? kernel.score_part : kernel.value_part;
  Measure(state, {heads * keys, bytes, heads * keys * head_dim}, [&] { run_parts(run); });
}

void LutU8(benchmark::State &state, const lut_u8::Kernel &kernel) {
  const auto n = static_cast<size_t>(state.range(0));
  const auto x = Random<uint8_t>(kRows * n, 0, 255), table = Random<uint8_t>(256, 0, 255);
  std::vector<uint8_t> y(kRows * n);
  const lut_u8::Args args = {y.data(), x.data(), table.data(), kRows * n};
  Measure(state, {kRows * n, 2 * kRows * n}, [&] { kernel.run(args); });
}

/// range: channels, then the shift: 36 as in most layers, 24 where sums need more than 32 bits behind it
void Requantise(benchmark::State &state, requantise::Function function, size_t sums, size_t output_bytes) {
  const size_t m = kRequantiseRows, n = static_cast<size_t>(state.range(0));
  const auto acc = Random<int32_t>(m * n, -(1 << 21), 1 << 21), low = acc;
  const std::vector<int32_t> bias(n, 5), multiplier(n, 1 << 20);
  std::vector<int32_t> y(m * n);
  const requantise::Args args = {y.data(), acc.data(),  low.data(), n, n, m, n, bias.data(), multiplier.data(),
                                 static_cast<int32_t>(state.range(1)), 0};
  Measure(state, {m * n, m * n * (4 * sums + output_bytes) + 8 * n}, [&] { function(args); });
}

/// Rows of a table that no cache holds, far from each other.
void Embed(benchmark::State &state, WeightFormat format) {
  const auto n = static_cast<size_t>(state.range(0)), k = static_cast<size_t>(state.range(1));
  const Layout layout = format == WeightFormat::kW8 || format == WeightFormat::kW4 ? Layout::kX16C8 : Layout::kC4;
  const size_t packed = layout == Layout::kC4 ? c4::PackedBytes(format, n, k) : XnnPackedBytes({format, layout, n, k, k});
  if (packed > bench::kColdBytes) {
    state.SkipWithError("the table is larger than the benches' memory");
    return;
  }
  auto tokens = Random<int32_t>(4096, 0, static_cast<int64_t>(n) - 1);
  const std::vector<int32_t> multiplier(n, 1 << 20);
  std::vector<int16_t> y(kRows * k);
  embed::Args args = {y.data(), k, tokens.data(), kRows, bench::ColdBuffer(), n, k, k, format, layout, multiplier.data(), 30};
  const size_t row_bytes = packed / n;
  Measure(state, {kRows * k, kRows * (row_bytes + 2 * k + 4)}, [&] {
    args.tokens = args.tokens + kRows == tokens.data() + tokens.size() ? tokens.data() : args.tokens + kRows;
    embed::Run(args);
  });
}

/// range: experts, of which a token visits
void Routes(benchmark::State &state) {
  const auto experts = static_cast<size_t>(state.range(0)), top_k = static_cast<size_t>(state.range(1));
  const auto logits = Random<int32_t>(kRows * experts, -100000, 100000);
  std::vector<Route> routes(kRows * top_k);
  ExpertsOp op = {};
  op.top_k = static_cast<uint32_t>(top_k);
  op.scoring = Scoring::kSoftmaxOfChosen;
  op.octaves = {1 << 20, 24};
  Measure(state, {kRows * top_k, kRows * (4 * experts + sizeof(Route) * top_k)}, [&] {
    for (size_t row = 0; row < kRows; ++row) RouteToken(&routes[row * top_k], &logits[row * experts], experts, op);
  });
}

benchmark::internal::Benchmark *Register(const bench::Shape &shape, const std::string &variant,
                                         const std::function<void(benchmark::State &)> &run) {
  const std::string name = shape.model + "/" + shape.kind + "/" + variant;
  auto *registered = benchmark::RegisterBenchmark(name.c_str(), run);
  if (shape.kind != "requantise") registered->Args({shape.numbers.begin(), shape.numbers.end()});
  return registered;
}

template <typename Kernel>
void RegisterKernels(const bench::Shape &shape, Span<const Kernel> kernels, void (*run)(benchmark::State &, const Kernel &)) {
  for (const Kernel &kernel : kernels) {
    if ((kernel.needs & ~test::HostFeatures()) != 0) continue;
    Register(shape, kernel.name, [run, &kernel](benchmark::State &state) { run(state, kernel); });
  }
}

/// One of a kernel's functions, and the bytes of an element of what it makes (of append: of what it takes).
template <typename Kernel, typename Run>
struct Function {
  const char *name;
  Run Kernel::*run;
  size_t bytes;
};

template <typename Kernel, typename Run>
void RegisterFunctions(const bench::Shape &shape, void (*bench)(benchmark::State &, Run, size_t), Span<const Kernel> kernels,
                       const Function<Kernel, Run> (&functions)[2]) {
  for (const Kernel &kernel : kernels) {
    if ((kernel.needs & ~test::HostFeatures()) != 0) continue;
    for (const auto &function : functions) {
      const Run run = kernel.*function.run;
      Register(shape, std::string(function.name) + "/" + kernel.name,
               [bench, run, bytes = function.bytes](benchmark::State &state) { bench(state, run, bytes); });
    }
  }
}

void RegisterParts(const bench::Shape &shape) {
  constexpr struct {
    const char *name;
    PartStep step;
  } kSteps[] = {{"scores", PartStep::kScores}, {"values", PartStep::kValues}, {"join", PartStep::kJoin}};
  for (const attention::Kernel &kernel : attention::Kernels()) {
    if ((kernel.needs & ~test::HostFeatures()) != 0 || kernel.score_part == nullptr) continue;
    for (const auto &row : kSteps) {
      Register(shape, std::string(row.name) + "/" + kernel.name,
               [&kernel, step = row.step](benchmark::State &state) { AttentionParts(state, kernel, step); });
    }
  }
}

void RegisterRequantise(const bench::Shape &shape) {
  for (const requantise::Kernel &kernel : requantise::Kernels()) {
    if ((kernel.needs & ~test::HostFeatures()) != 0) continue;
    const struct {
      const char *name;
      requantise::Function function;
      size_t sums, output_bytes;
    } functions[] = {{"s8", kernel.s8, 1, 1},
                     {"s16", kernel.s16, 1, 2},
                     {"s32", kernel.s32, 1, 4},
                     {"two_row_s8", kernel.two_row_s8, 2, 1},
                     {"two_row_s16", kernel.two_row_s16, 2, 2},
                     {"two_row_s32", kernel.two_row_s32, 2, 4}};
    for (const auto &row : functions) {
      Register(shape, std::string(row.name) + "/" + kernel.name,
               [row](benchmark::State &state) { Requantise(state, row.function, row.sums, row.output_bytes); })
          ->ArgNames({"", "shift"})
          ->Args({static_cast<int64_t>(shape.numbers[0]), 36})
          ->Args({static_cast<int64_t>(shape.numbers[0]), 24});
    }
  }
}

void RegisterShape(const bench::Shape &shape) {
  const std::string &kind = shape.kind;
  if (kind == "rmsnorm") {
    RegisterFunctions(shape, RmsNorm, rmsnorm::Kernels(),
                      {{"s8", &rmsnorm::Kernel::s8, 1}, {"s16", &rmsnorm::Kernel::s16, 2}});
  }
  if (kind == "layernorm") {
    RegisterFunctions(shape, LayerNorm, layernorm::Kernels(),
                      {{"s8", &layernorm::Kernel::s8, 1}, {"s16", &layernorm::Kernel::s16, 2}});
  }
  if (kind == "glu") RegisterKernels(shape, glu::Kernels(), Glu);
  if (kind == "conv") RegisterKernels(shape, conv::Kernels(), Conv);
  if (kind == "scan") RegisterKernels(shape, scan::Kernels(), Scan);
  if (kind == "add") RegisterKernels(shape, add::Kernels(), Add);
  if (kind == "hadamard") {
    RegisterFunctions(shape, Hadamard, hadamard::Kernels(),
                      {{"s8", &hadamard::Kernel::s8, 1}, {"s15", &hadamard::Kernel::s15, 2}});
  }
  if (kind == "rotate") {
    RegisterFunctions(shape, Rotate, rotate::Kernels(),
                      {{"s8", &rotate::Kernel::s8, 1}, {"s16", &rotate::Kernel::s16, 2}});
  }
  if (kind == "append") {
    RegisterFunctions(shape, Append, append::Kernels(),
                      {{"run", &append::Kernel::run, 2}, {"copy", &append::Kernel::copy, 1}});
  }
  if (kind == "attention") RegisterKernels(shape, attention::Kernels(), Attention);
  if (kind == "attention_window") RegisterKernels(shape, attention::Kernels(), AttentionWindow);
  if (kind == "attention_parts") RegisterParts(shape);
  if (kind == "lut_u8") RegisterKernels(shape, lut_u8::Kernels(), LutU8);
  if (kind == "requantise") RegisterRequantise(shape);
  if (kind == "experts") bench::RegisterExperts(shape);
  if (kind == "route") Register(shape, "portable", Routes);
  if (kind == "embed") {
    const WeightFormat format = shape.format;
    Register(shape, "portable", [format](benchmark::State &state) { Embed(state, format); });
  }
}

}  // namespace
}  // namespace acorn

int main(int argc, char **argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  const auto cores = static_cast<size_t>(acorn::bench::ThreadCounts().back());
  acorn::bench::RegisterBounds({acorn::kNearBytes * cores, acorn::bench::kColdBytes});
  for (const acorn::bench::Shape &shape : acorn::bench::ReadShapes()) acorn::RegisterShape(shape);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
