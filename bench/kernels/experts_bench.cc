#include "bench/kernels/experts_bench.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "acorn_schema/expert_record.h"
#include "base/checked.h"
#include "bench/kernels/bounds.h"
#include "bench/kernels/measure.h"
#include "ops/op.h"
#include "tests/support/host_features.h"

namespace acorn::bench {
namespace {

constexpr uint64_t kFileBlock = 16 << 10;  // on which records begin (schema/FORMAT.md)
constexpr size_t kChunks = 16;             // whose routes differ
constexpr uint32_t kBlock = 128;           // of the Hadamard transform before down, as files have
enum : uint32_t { kIn, kRouter, kOut, kValues };

/// One set of experts, all of them in memory, and the step that visits it. Each visit finds its expert in another place than the
/// one before, so that none comes from a cache: in a model the experts of other layers have passed through it since.
class Experts {
 public:
  Experts(size_t m, size_t experts, size_t top_k, const expert::Shape &shape)
      : m_(m),
        record_bytes_(expert::RecordBytes(shape)),
        stride_(AlignUp(record_bytes_, kFileBlock)),
        places_(kColdBytes / stride_),
        x_(Aligned(m * AlignUp(shape.hidden, 64))),
        y_(Aligned(m * shape.hidden * sizeof(int16_t))),
        logits_(Random<int32_t>(kChunks * m * experts, -100000, 100000)),
        glu_table_(Random<int16_t>(glu::kTableElems, 0, 32767)),
        // 0x11111111, which fills the benches' memory, times itself then has 15 bits.
        records_(experts, ExpertRecord{0, 0, shape, 42, 42, 42}) {
    const auto x = Random<int8_t>(m * AlignUp(shape.hidden, 64), -127, 127);
    std::copy(x.begin(), x.end(), x_.get());

    set_.hidden = shape.hidden;
    set_.layout = shape.layout;
    set_.count = static_cast<uint32_t>(experts);
    set_.formats = 1u << static_cast<uint32_t>(shape.format) | 1u << static_cast<uint32_t>(shape.down_format);
    set_.slices = 1;
    set_.ends[0] = shape.ffn;
    set_.bytes[0] = stride_;
    set_.records = Span<ExpertRecord>(records_.data(), records_.size());
    graph_.expert_sets = Span<ExpertSet>(&set_, 1);

    op_.in = {kIn, 0, shape.hidden};
    op_.router = {kRouter, 0, set_.count};
    op_.out = {kOut, 0, shape.hidden};
    op_.top_k = static_cast<uint32_t>(top_k);
    op_.slices = 1;
    op_.ffn = shape.ffn;
    op_.scoring = Scoring::kSoftmaxOfChosen;
    op_.octaves = {1 << 20, 24};
    op_.glu_index = {1 << 30, 30};
    op_.glu_table = glu_table_.data();
    op_.glu_shift = 20;
    op_.block = kBlock;
    op_.down_factor = {1 << 30, 42};

    const OpNeeds needs = Needs(op_, set_, PlanContext{&kernels_, 1, m, {}});
    step_scratch_ = Aligned(needs.step_bytes);
    thread_scratch_ = Aligned(needs.thread_bytes);
    values_[kIn] = {x_.get(), AlignUp(shape.hidden, 64)};
    values_[kRouter].row_bytes = experts * sizeof(int32_t);
    values_[kOut] = {y_.get(), shape.hidden * sizeof(int16_t)};
    context_.graph = &graph_;
    context_.kernels = &kernels_;
    context_.values = values_;
    context_.step_scratch = step_scratch_.get();
    context_.thread_scratch = thread_scratch_.get();
    context_.thread_scratch_bytes = needs.thread_bytes;
    context_.experts.ctx = this;
    context_.experts.begin = Begin;
    context_.experts.next = Next;
    context_.experts.release = [](void *, size_t) {};
    context_.experts.end = [](void *) {};
    context_.m = m;
  }

  /// The next chunk, whose routes are others.
  void Run() {
    const size_t of_chunk = m_ * set_.count;
    values_[kRouter].data = reinterpret_cast<uint8_t *>(logits_.data() + chunk_ * of_chunk);
    chunk_ = chunk_ + 1 == kChunks ? 0 : chunk_ + 1;
    if (acorn::Run(op_, context_) != Status::kOk) std::abort();
  }

  /// Of the records visited so far.
  double bytes_read() const { return static_cast<double>(visits_) * static_cast<double>(record_bytes_); }

 private:
  static Status Begin(void *ctx, uint32_t, Span<const uint32_t> wanted, Span<const uint32_t>, uint32_t) {
    auto *self = static_cast<Experts *>(ctx);
    self->wanted_ = wanted;
    self->next_ = 0;
    return Status::kOk;
  }

  static Status Next(void *ctx, bool, size_t *index, const uint8_t **record) {
    auto *self = static_cast<Experts *>(ctx);
    *index = self->next_;
    if (self->next_ == self->wanted_.size()) return Status::kOk;
    ++self->next_;
    *record = self->memory_ + self->visits_++ % self->places_ * self->stride_;
    return Status::kOk;
  }

  const uint8_t *memory_ = ColdBuffer();
  size_t m_;
  uint64_t record_bytes_, stride_, places_;
  std::unique_ptr<uint8_t, FreeDeleter> x_, y_, step_scratch_, thread_scratch_;
  std::vector<int32_t> logits_;  // [kChunks, m, experts]
  std::vector<int16_t> glu_table_;
  std::vector<ExpertRecord> records_;
  KernelSet kernels_ = SelectKernels(test::HostFeatures());
  ExpertSet set_ = {};
  Graph graph_ = {};
  ExpertsOp op_ = {};
  Place values_[kValues] = {};
  RunContext context_ = {};
  Span<const uint32_t> wanted_;
  size_t next_ = 0, chunk_ = 0;
  uint64_t visits_ = 0;
};

/// range: rows, experts, of which a token visits, hidden, inner channels
void BenchExperts(benchmark::State &state, WeightFormat format) {
  const auto at = [&](size_t index) { return static_cast<size_t>(state.range(index)); };
  const size_t m = at(0), top_k = at(2), hidden = at(3), ffn = at(4);
  const expert::Shape shape = {static_cast<uint32_t>(hidden), static_cast<uint32_t>(ffn), format, format, Layout::kX16C8};
  if (top_k > at(1) || ffn % kBlock != 0 || AlignUp(expert::RecordBytes(shape), kFileBlock) > kColdBytes) {
    state.SkipWithError("more experts a token than there are, inner channels not in blocks of 128, or larger than the memory");
    return;
  }
  Experts experts(m, at(1), top_k, shape);
  for (auto _ : state) experts.Run();
  const auto per_call = benchmark::Counter::kIsIterationInvariantRate;
  state.counters["elems/s"] = benchmark::Counter(static_cast<double>(m * hidden), per_call);
  state.counters["GB/s"] = benchmark::Counter(1e-9 * experts.bytes_read(), benchmark::Counter::kIsRate);
  const size_t macs = m * top_k * expert::kParts * hidden * ffn;
  state.counters["GMAC/s"] = benchmark::Counter(1e-9 * static_cast<double>(macs), per_call);
}

}  // namespace

void RegisterExperts(const Shape &shape) {
  const WeightFormat format = shape.format;
  const Layout layout = GroupSize(format) != 0 ? Layout::kC4 : Layout::kX16C8;
  const GemmKernel *kernel = SelectGemm(format, layout, test::HostFeatures());
  const std::string name = shape.model + "/experts/" + shape.format_name + "/" + kernel->name;
  benchmark::RegisterBenchmark(name.c_str(), [format](benchmark::State &state) { BenchExperts(state, format); })
      ->Args({shape.numbers.begin(), shape.numbers.end()});
}

}  // namespace acorn::bench
