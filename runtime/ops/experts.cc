// Routed experts: each token visits a few of a set. Every expert that a chunk needs is visited once, in the order in which they
// are there, several together while their tokens fit; sums are exact, so that no order shows in the result. An expert is a row of
// slices of its inner channels, of which the step uses the first ones: their inner edges lie side by side, their outputs are added.
#include "base/debug.h"
#include "ops/linear_tile.h"
#include "ops/route.h"

namespace acorn {
namespace {

constexpr size_t kMostTogether = 64;  // experts of a batch

// Where everything lies in the step's scratch.
struct Workspace {
  Route *routes;     // [m, top_k]
  uint32_t *first;   // [experts + 1], of `tokens`
  uint32_t *tokens;  // [m * top_k], by expert
  uint16_t *weights;  // [m * top_k], Q15
  uint32_t *wanted, *uses;  // [experts]
  int64_t *sums;     // [m, hidden], Q15
  // of a batch
  int8_t *x;  // [rows, hidden]
  int16_t *gate, *up;  // [rows, ffn]
  int8_t *down_in;     // [rows, ffn]
};

// Tokens times experts that a batch holds: an expert has m at most, and those of a single token fit together.
size_t BatchRows(size_t m, size_t top_k) { return m > top_k ? m : top_k; }

struct Strides {
  size_t hidden, ffn;  // elements from row to row of s8 rows; of s16 rows the same
};
Strides StridesOf(const ExpertsOp &op) {
  return {static_cast<size_t>(AlignUp(op.in.width, 64)), static_cast<size_t>(AlignUp(op.ffn, 64))};
}

// Lays the workspace out from `base` on; with a null base it only counts. Returns its bytes.
uint64_t LayOut(uint8_t *base, size_t m, const ExpertsOp &op, Workspace *out) {
  uint64_t used = 0;
  const auto take = [&](uint64_t bytes) {
    uint8_t *at = base == nullptr ? nullptr : base + used;
    used += AlignUp(bytes, 64);
    return at;
  };
  const uint64_t entries = uint64_t{m} * op.top_k, rows = BatchRows(m, op.top_k), experts = op.router.width;
  const Strides strides = StridesOf(op);
  Workspace work;
  work.routes = reinterpret_cast<Route *>(take(entries * sizeof(Route)));
  work.first = reinterpret_cast<uint32_t *>(take((experts + 1) * sizeof(uint32_t)));
  work.tokens = reinterpret_cast<uint32_t *>(take(entries * sizeof(uint32_t)));
  work.weights = reinterpret_cast<uint16_t *>(take(entries * sizeof(uint16_t)));
  work.wanted = reinterpret_cast<uint32_t *>(take(experts * sizeof(uint32_t)));
  work.uses = reinterpret_cast<uint32_t *>(take(experts * sizeof(uint32_t)));
  work.sums = reinterpret_cast<int64_t *>(take(uint64_t{m} * strides.hidden * sizeof(int64_t)));
  work.x = reinterpret_cast<int8_t *>(take(rows * strides.hidden));
  work.gate = reinterpret_cast<int16_t *>(take(rows * strides.ffn * sizeof(int16_t)));
  work.up = reinterpret_cast<int16_t *>(take(rows * strides.ffn * sizeof(int16_t)));
  work.down_in = reinterpret_cast<int8_t *>(take(rows * strides.ffn));
  if (out != nullptr) *out = work;
  return used;
}

// Several matrices share the threads: each gets its part of the tasks of one.
Cut CutOfMany(size_t rows, size_t n, uint32_t threads, size_t matrices) {
  constexpr size_t kNr = 16;  // every kernel's nr divides it
  if (rows > kStreamRows) return CutOf(rows, n, kNr, threads);
  const size_t tasks = threads == 1 ? 1 : CeilDiv(size_t{threads} * 4, matrices);
  const size_t channels = CeilDiv(CeilDiv(n, kNr), tasks) * kNr;
  return {channels < kStreamChannels ? channels : kStreamChannels, rows};
}

uint64_t ProductBytes(const Cut &cut) { return AlignUp(cut.row_block * cut.task_channels * sizeof(int16_t), 64); }

// An expert that is at hand, with its tokens of the chunk.
struct Visit {
  size_t index;          // in `wanted`
  const uint8_t *bytes;  // of its first slice; the others follow as in the file
  const ExpertRecord *slices;
  size_t entry, rows;  // of work.tokens
  size_t row;          // first of the batch's rows
};

class Visitor {
 public:
  Visitor(const ExpertsOp &op, const RunContext &context)
      : op_(op), context_(context), set_(context.graph->expert_sets[op.set]), strides_(StridesOf(op)) {
    LayOut(context.step_scratch, context.m, op, &work_);
  }

  Status Run() {
    Route();
    const RoutingHook &hook = context_.routing_hook;
    if (hook.run != nullptr) hook.run(hook.ctx, op_.set, work_.routes, context_.m, op_.top_k);
    Sort();
    StartSums();
    const ExpertSource &source = context_.experts;
    Status status = source.begin(source.ctx, op_.set, Span<const uint32_t>(work_.wanted, wanted_),
                                 Span<const uint32_t>(work_.uses, wanted_), static_cast<uint32_t>(context_.m));
    const ExpertForecast &forecast = context_.forecast;
    if (status == Status::kOk && forecast.guess != nullptr) forecast.guess(forecast.ctx, context_, op_.set, work_.routes, op_.top_k);
    while (status == Status::kOk) {
      bool done = false;
      status = Gather(&done);
      if (status != Status::kOk || (done && count_ == 0) || IsStopped(context_, 0)) break;
      Compute();
      for (size_t i = 0; i < count_; ++i) source.release(source.ctx, batch_[i].index);
    }
    source.end(source.ctx);
    if (status == Status::kOk) Finish();
    return status;
  }

 private:
  void Route() {
    const int32_t *logits = Elements<int32_t>(context_, op_.router);
    const size_t stride = Stride<int32_t>(context_, op_.router), experts = op_.router.width;
    ForRows(context_, experts * op_.top_k, [&](size_t first, size_t rows, uint32_t) {
      for (size_t r = first; r < first + rows; ++r) {
        acorn::Route *routes = work_.routes + r * op_.top_k;
        if (context_.dials.drop_q15 == 0 && context_.dials.bonus_q16 == 0) {
          RouteToken(routes, logits + r * stride, experts, op_);
        } else {
          RouteWithDials(routes, logits + r * stride, experts, op_, context_.dials, context_.experts);
        }
      }
    });
  }

  // The tokens of each expert, in order.
  void Sort() {
    const size_t experts = op_.router.width, entries = context_.m * op_.top_k;
    for (size_t e = 0; e <= experts; ++e) work_.first[e] = 0;
    for (size_t i = 0; i < entries; ++i) {
      if (work_.routes[i].expert != kNoExpert) ++work_.first[work_.routes[i].expert + 1];
    }
    for (size_t e = 0; e < experts; ++e) {
      if (work_.first[e + 1] != 0) {
        work_.wanted[wanted_] = static_cast<uint32_t>(e);
        work_.uses[wanted_++] = work_.first[e + 1];
      }
      work_.first[e + 1] += work_.first[e];
    }
    // first[e] moves to its end, which is where the next one starts.
    for (size_t i = 0; i < entries; ++i) {
      if (work_.routes[i].expert == kNoExpert) continue;
      const uint32_t place = work_.first[work_.routes[i].expert]++;
      work_.tokens[place] = static_cast<uint32_t>(i / op_.top_k);
      work_.weights[place] = work_.routes[i].weight;
    }
    for (size_t e = experts; e > 0; --e) work_.first[e] = work_.first[e - 1];
    work_.first[0] = 0;
  }

  void StartSums() {
    const bool shared = op_.shared.width != 0, gated = op_.shared_gate.width != 0;
    ForRows(context_, set_.hidden, [&](size_t first, size_t rows, uint32_t) {
      for (size_t r = first; r < first + rows; ++r) {
        int64_t *sums = work_.sums + r * strides_.hidden;
        if (!shared) {
          __builtin_memset(sums, 0, set_.hidden * sizeof(int64_t));
          continue;
        }
        const int16_t *y = Elements<int16_t>(context_, op_.shared) + r * Stride<int16_t>(context_, op_.shared);
        const int32_t weight =
            gated ? SigmoidQ15(Elements<int32_t>(context_, op_.shared_gate)[r * Stride<int32_t>(context_, op_.shared_gate)],
                               op_.shared_octaves)
                  : 1 << 15;
        for (size_t c = 0; c < set_.hidden; ++c) sums[c] = weight * y[c];
      }
    });
  }

  // The next batch: at least one expert, then those that are there and whose tokens fit.
  Status Gather(bool *done) {
    const ExpertSource &source = context_.experts;
    const size_t limit = BatchRows(context_.m, op_.top_k);
    size_t rows = 0;
    count_ = 0;
    if (kept_) batch_[count_++] = left_over_;
    kept_ = false;
    if (count_ != 0) {
      batch_[0].row = 0;
      rows = batch_[0].rows;
    }
    while (count_ < kMostTogether && !IsStopped(context_, 0)) {
      Visit visit = {};
      ACORN_TRY(source.next(source.ctx, count_ == 0, &visit.index, &visit.bytes));
      if (visit.index == wanted_) {
        *done = count_ == 0;
        break;
      }
      const uint32_t expert = work_.wanted[visit.index];
      visit.slices = set_.slices_of(expert);
      visit.entry = work_.first[expert];
      visit.rows = work_.first[expert + 1] - visit.entry;
      visit.row = rows;
      if (rows + visit.rows > limit) {
        left_over_ = visit;
        kept_ = true;
        break;
      }
      rows += visit.rows;
      batch_[count_++] = visit;
    }
    rows_ = rows;
    return Status::kOk;
  }

  Tile TileOf(const Visit &visit, size_t slice, size_t part) const {
    const ExpertRecord &record = visit.slices[slice];
    const expert::Matrix matrix = expert::MatrixOf(record.shape, part);
    const expert::Place place = expert::PlaceOf(record.shape, part);
    const uint8_t *bytes = visit.bytes + (record.offset - visit.slices[0].offset);
    Tile tile = {};
    tile.kernel = SelectGemm(matrix.format, matrix.layout, context_.kernels->features);
    tile.finish = context_.kernels->requantise->s16;
    tile.weights = bytes + place.weights;
    tile.n = matrix.n;
    tile.k = tile.k_stored = matrix.k;
    tile.group = GroupSize(matrix.format);
    tile.k_panel = tile.group != 0 ? 0 : matrix.k_panel;
    tile.bias = reinterpret_cast<const int32_t *>(bytes + place.bias);
    tile.multipliers = reinterpret_cast<const int32_t *>(bytes + place.multipliers);
    tile.shift = part == expert::kGate ? record.gate_shift : part == expert::kUp ? record.up_shift : record.down_shift;
    tile.per_token = 1;
    tile.stop = context_.stop;
    tile.y_elem_bytes = sizeof(int16_t);
    return tile;
  }

  void Compute() {
    GatherRows();
    GateAndUp();
    Activate();
    Down();
  }

  // A single token is every expert's input as it is.
  void GatherRows() {
    if (context_.m == 1) return;
    const int8_t *x = Elements<int8_t>(context_, op_.in);
    const size_t stride = Stride<int8_t>(context_, op_.in);
    context_.parallel.For(static_cast<uint32_t>(count_), [&](uint32_t task, uint32_t) {
      const Visit &visit = batch_[task];
      for (size_t r = 0; r < visit.rows; ++r) {
        __builtin_memcpy(work_.x + (visit.row + r) * strides_.hidden, x + work_.tokens[visit.entry + r] * stride, set_.hidden);
      }
    });
  }

  // A task has some of the channels of one matrix of one slice.
  void GateAndUp() {
    const Cut cut = CutOfMany(LargestRows(), op_.ffn, context_.parallel.threads, 2 * count_);
    const auto cuts_of = [&](size_t slice) { return CeilDiv(set_.width_of(slice), cut.task_channels); };
    size_t cuts = 0;  // of a matrix, all slices together
    for (size_t slice = 0; slice < op_.slices; ++slice) cuts += cuts_of(slice);
    context_.parallel.For(static_cast<uint32_t>(2 * count_ * cuts), [&](uint32_t task, uint32_t thread) {
      if (IsStopped(context_, thread)) return;
      const Visit &visit = batch_[task / (2 * cuts)];
      const size_t part = task / cuts % 2 == 0 ? expert::kGate : expert::kUp;
      size_t slice = 0, piece = task % cuts;
      for (; piece >= cuts_of(slice); ++slice) piece -= cuts_of(slice);
      const size_t width = set_.width_of(slice), begin = piece * cut.task_channels;
      Tile tile = TileOf(visit, slice, part);
      tile.x = context_.m == 1 ? Elements<int8_t>(context_, op_.in) : work_.x + visit.row * strides_.hidden;
      tile.x_stride = strides_.hidden;
      int16_t *y = (part == expert::kGate ? work_.gate : work_.up) + visit.row * strides_.ffn +
                   set_.begin_of(slice) + begin;
      tile.y_row_bytes = strides_.ffn * sizeof(int16_t);
      const size_t end = begin + cut.task_channels < width ? begin + cut.task_channels : width;
      ACORN_DCHECK(TileScratchBytes(*tile.kernel, cut, tile.k) <= context_.thread_scratch_bytes);
      RunTile(tile, visit.rows, {begin, end, begin}, cut, reinterpret_cast<uint8_t *>(y), ThreadScratch(context_, thread));
    });
  }

  void Activate() {
    RunContext rows = context_;
    rows.m = rows_;
    ForRows(rows, op_.ffn, [&](size_t first, size_t count, uint32_t) {
      glu::Args act = {};
      act.y_stride = act.gate_stride = act.up_stride = strides_.ffn;
      act.gate = work_.gate + first * strides_.ffn;
      act.y = work_.gate + first * strides_.ffn;
      act.up = work_.up + first * strides_.ffn;
      act.m = count;
      act.n = op_.ffn;
      act.table = op_.glu_table;
      act.index_multiplier = op_.glu_index.multiplier;
      act.index_shift = op_.glu_index.shift;
      act.shift = op_.glu_shift;
      context_.kernels->glu->run(act);
      hadamard::Args mix = {};
      mix.y_stride = mix.x_stride = strides_.ffn;
      mix.y = work_.down_in + first * strides_.ffn;
      mix.x = act.y;
      mix.m = count;
      mix.n = op_.ffn;
      mix.block = op_.block;
      mix.multiplier = op_.down_factor.multiplier;
      mix.shift = op_.down_factor.shift;
      mix.zero_point = op_.down_zero_point;
      context_.kernels->hadamard->s8(mix);
    });
  }

  // A task has its channels of every expert, so that no two add to the same sum.
  void Down() {
    const Cut cut = CutOfMany(LargestRows(), set_.hidden, context_.parallel.threads, 1);
    context_.parallel.For(static_cast<uint32_t>(CeilDiv(set_.hidden, cut.task_channels)), [&](uint32_t task, uint32_t thread) {
      if (IsStopped(context_, thread)) return;
      const size_t begin = task * cut.task_channels;
      const size_t end = begin + cut.task_channels < set_.hidden ? begin + cut.task_channels : set_.hidden;
      uint8_t *scratch = ThreadScratch(context_, thread);
      auto *y = reinterpret_cast<int16_t *>(scratch);
      for (size_t i = 0; i < count_ * op_.slices; ++i) {
        const Visit &visit = batch_[i / op_.slices];
        const size_t slice = i % op_.slices;
        Tile tile = TileOf(visit, slice, expert::kDown);
        tile.x_stride = strides_.ffn;
        tile.y_row_bytes = (end - begin) * sizeof(int16_t);
        for (size_t row = 0; row < visit.rows; row += cut.row_block) {
          const size_t rows = visit.rows - row < cut.row_block ? visit.rows - row : cut.row_block;
          ACORN_DCHECK(ProductBytes(cut) + TileScratchBytes(*tile.kernel, cut, tile.k) <= context_.thread_scratch_bytes);
          tile.x = work_.down_in + (visit.row + row) * strides_.ffn + set_.begin_of(slice);
          RunTile(tile, rows, {begin, end, begin}, cut, scratch, scratch + ProductBytes(cut));
          for (size_t r = 0; r < rows; ++r) {
            const size_t entry = visit.entry + row + r;
            AddWeighted(work_.sums + work_.tokens[entry] * strides_.hidden + begin, y + r * (end - begin), work_.weights[entry],
                        end - begin);
          }
        }
      }
    });
  }

  static void AddWeighted(int64_t *__restrict sums, const int16_t *__restrict y, int32_t weight, size_t count) {
    for (size_t c = 0; c < count; ++c) sums[c] += weight * y[c];
  }

  void Finish() {
    ForRows(context_, set_.hidden, [&](size_t first, size_t rows, uint32_t) {
      for (size_t r = first; r < first + rows; ++r) {
        const int64_t *sums = work_.sums + r * strides_.hidden;
        int16_t *y = Elements<int16_t>(context_, op_.out) + r * Stride<int16_t>(context_, op_.out);
        for (size_t c = 0; c < set_.hidden; ++c) y[c] = SaturateS16(RoundShift(sums[c], 15));
      }
    });
  }

  size_t LargestRows() const {
    size_t largest = 0;
    for (size_t i = 0; i < count_; ++i) largest = batch_[i].rows > largest ? batch_[i].rows : largest;
    return largest;
  }

  const ExpertsOp &op_;
  const RunContext &context_;
  const ExpertSet &set_;
  Strides strides_;
  Workspace work_;
  size_t wanted_ = 0;
  Visit batch_[kMostTogether];
  size_t count_ = 0, rows_ = 0;
  Visit left_over_ = {};  // there already, for the next batch
  bool kept_ = false;
};

}  // namespace

OpNeeds Needs(const ExpertsOp &op, const ExpertSet &set, const PlanContext &context) {
  OpNeeds needs = {LayOut(nullptr, context.rows, op, nullptr), 0};
  uint32_t widest = 0;  // slice
  for (uint32_t slice = 0; slice < op.slices; ++slice) {
    if (set.width_of(slice) > widest) widest = set.width_of(slice);
  }
  // Any number of tokens up to the chunk, any number of experts together.
  for (uint64_t rows = 1; rows <= context.rows; ++rows) {
    if (rows > kStreamRows && rows != context.rows && rows != kRowBlock) continue;
    for (size_t part = expert::kUp; part <= expert::kDown; ++part) {
      const uint32_t n = part == expert::kDown ? set.hidden : op.ffn, k = part == expert::kDown ? widest : set.hidden;
      const Cut cut = CutOfMany(rows, n, context.threads, 2 * kMostTogether);  // gates and ups
      const Cut one = CutOfMany(rows, n, context.threads, 1);
      const Cut most = {cut.task_channels > one.task_channels ? cut.task_channels : one.task_channels, cut.row_block};
      for (uint32_t format = 1; set.formats >> format != 0; ++format) {
        if ((set.formats >> format & 1) == 0) continue;
        const auto weights = static_cast<WeightFormat>(format);
        const Layout layout = GroupSize(weights) != 0 ? Layout::kC4 : set.layout;
        if (!LayoutHolds(layout, weights)) continue;
        const GemmKernel *kernel = SelectGemm(weights, layout, context.kernels->features);
        const uint64_t bytes = ProductBytes(most) + TileScratchBytes(*kernel, most, k);
        if (bytes > needs.thread_bytes) needs.thread_bytes = bytes;
      }
    }
  }
  return needs;
}

Status Run(const ExpertsOp &op, const RunContext &context) { return Visitor(op, context).Run(); }

}  // namespace acorn
