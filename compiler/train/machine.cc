#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "acorn_posix.h"
#include "train/tape.h"

namespace acorn::compiler {
namespace {

/// The port's loop on LibTorch's threads, so that there is one pool.
void ParallelLoop(void *, Parallel::Task task, void *arg, uint32_t count) {
  std::atomic<uint32_t> next{0};
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) {
      for (uint32_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) task(arg, i, static_cast<uint32_t>(thread));
    }
  });
}

torch::Tensor Bytes(uint64_t bytes) { return torch::empty({static_cast<int64_t>(std::max<uint64_t>(bytes, 64))}, torch::kUInt8); }

}  // namespace

Machine::Machine(int64_t rows, int64_t prefix_rows)
    : rows_(rows), prefix_rows_(prefix_rows), kernels_(SelectKernels(acorn_posix_cpu_features())) {
  parallel_.parallel_for = ParallelLoop;
  parallel_.threads = static_cast<uint32_t>(at::get_num_threads());
}

void Machine::Load(LiveGraph *graph) {
  graph_ = graph;
  view_ = &graph->graph();
  places_.resize(view_->values.size());
  const auto rows = static_cast<uint64_t>(rows_);
  extent_ = {static_cast<uint64_t>(prefix_rows_), rows, rows};
  const PlanContext plan = {&kernels_, parallel_.threads, rows, extent_};
  OpNeeds most = {0, 0};
  for (const std::vector<LiveStep> *steps : {&graph->body(), &graph->head()}) {
    for (const LiveStep &live : *steps) {
      OpNeeds needs = {0, 0};
      if (live.step.kind == OpKind::kLinear) {
        const LinearOp &op = live.step.linear;
        needs = Needs(op, false, view_->weights[op.weight], view_->values[op.in.value].dtype, plan);
      } else if (live.step.kind == OpKind::kAttention) {
        needs = Needs(live.step.attention, view_->caches[live.step.attention.cache], plan);
      }
      most.step_bytes = std::max(most.step_bytes, needs.step_bytes);
      most.thread_bytes = std::max(most.thread_bytes, needs.thread_bytes);
    }
  }
  step_scratch_ = Bytes(most.step_bytes);
  thread_bytes_ = most.thread_bytes;
  thread_scratch_ = Bytes(most.thread_bytes * parallel_.threads);
  uint64_t cache_bytes = 0;
  for (const Cache &cache : view_->caches) {
    const uint64_t bytes = kv_cache::CacheBytes(kv_cache::TokenRowsOf(extent_, cache.window).all(), cache.kv_heads, cache.head_dim, cache.bits);
    cache_bytes = std::max(cache_bytes, bytes);
  }
  k_cache_ = Bytes(cache_bytes);
  v_cache_ = Bytes(cache_bytes);
  caches_.assign(view_->caches.size(),
                 {k_cache_.data_ptr<uint8_t>(), reinterpret_cast<int8_t *>(v_cache_.data_ptr<uint8_t>())});
  uint64_t state_bytes = 0;
  for (const State &state : view_->states) state_bytes = std::max(state_bytes, StateBytes(state));
  state_ = Bytes(state_bytes);
  states_.assign(view_->states.size(), state_.data_ptr<uint8_t>());
  ropes_.resize(view_->ropes.size());
  rope_places_.clear();
  for (size_t i = 0; i < ropes_.size(); ++i) {
    const size_t half = view_->ropes[i].rotary_dims / 2;
    Rotary &rotary = ropes_[i];
    rotary.cosine.resize(static_cast<size_t>(rows_) * half);
    rotary.sine.resize(rotary.cosine.size());
    rotate::FillTable(rotary.cosine.data(), rotary.sine.data(), view_->ropes[i].frequencies, half,
                      static_cast<uint64_t>(prefix_rows_), static_cast<size_t>(rows_), view_->ropes[i].limit);
    const auto real = [&](std::vector<int16_t> &table) {
      return torch::from_blob(table.data(), {rows_, static_cast<int64_t>(half)}, torch::kShort).to(torch::kFloat) / 16384;
    };
    rotary.real_cosine = real(rotary.cosine);
    rotary.real_sine = real(rotary.sine);
    rope_places_.push_back({rotary.cosine.data(), rotary.sine.data()});
  }
}

void Machine::CopyPrefix(const AppendOp &op) {
  const Cache &cache = view_->caches[op.cache];
  append::Args args = {};
  args.k_cache = caches_[op.cache].k;
  args.v_cache = caches_[op.cache].v;
  args.capacity = kv_cache::TokenRowsOf(extent_, cache.window).all();
  args.m = static_cast<size_t>(prefix_rows_);
  args.kv_heads = cache.kv_heads;
  args.head_dim = args.k_dim = args.v_dim = cache.head_dim;
  args.bits = cache.bits;
  args.k = cache.prefix_k;
  args.v = cache.prefix_v;
  args.k_stride = args.v_stride = size_t{cache.kv_heads} * cache.head_dim;
  kernels_.append->copy(args);
}

void Machine::StartState(uint32_t index) {
  const State &state = view_->states[index];
  if (state.prefix == nullptr) {
    std::memset(states_[index], 0, StateBytes(state));
  } else {
    std::memcpy(states_[index], state.prefix, StateBytes(state));
  }
}

void Machine::Run(const LiveStep &live, std::vector<torch::Tensor> *buffers, const std::vector<int32_t> &tokens) {
  const auto rows = static_cast<int64_t>(tokens.size());
  if (live.step.kind == OpKind::kAppend) {
    if (prefix_rows_ > 0) CopyPrefix(live.step.append);
  } else {
    const auto row_bytes = static_cast<int64_t>(RowBytes(view_->values[live.out.value]));
    (*buffers)[live.out.value] = torch::empty({rows, row_bytes}, torch::kUInt8);
  }
  const uint32_t state = StateOf(live.step);
  if (state != kNoState) StartState(state);
  for (size_t v = 0; v < places_.size(); ++v) {
    const torch::Tensor &buffer = (*buffers)[v];
    places_[v] = buffer.defined() ? Place{buffer.data_ptr<uint8_t>(), static_cast<uint64_t>(buffer.size(1))} : Place{nullptr, 0};
  }
  RunContext context = {};
  context.graph = view_;
  context.kernels = &kernels_;
  context.parallel = parallel_;
  context.values = places_.data();
  context.caches = caches_.data();
  context.states = states_.data();
  context.ropes = rope_places_.data();
  context.step_scratch = step_scratch_.data_ptr<uint8_t>();
  context.thread_scratch = thread_scratch_.data_ptr<uint8_t>();
  context.thread_scratch_bytes = thread_bytes_;
  context.extent = extent_;
  context.tokens = tokens.data();
  context.m = static_cast<size_t>(rows);
  context.first_token = 0;
  if (RunStep(live.step, context) != Status::kOk) std::abort();  // no step here waits for storage
}

}  // namespace acorn::compiler
