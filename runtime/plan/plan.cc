#include "plan/plan.h"

#include "base/checked.h"

namespace acorn {
namespace {

constexpr uint32_t kNoCache = UINT32_MAX;

// Columns [begin, end) of a value.
struct Columns {
  uint32_t begin, end;
};

// What the walks over the lists of steps collect. Each goes backwards.
struct Walk {
  Value values[kMaxValues];
  uint64_t rows[kMaxValues];       // that a value must hold; 0: never used
  uint64_t conflicts[kMaxValues];  // values that live at the same time, as bits
  uint64_t live;                   // after the step that is being looked at
  Columns wanted[kMaxValues];      // of a live value, what is read of it behind that step
  uint64_t handed;                 // values that a linear layer could hand to the Glu behind it
  uint64_t kept;                   // values that must lie somewhere even so
  uint64_t read;                   // values that others read than such a Glu
  uint64_t body_out, logits;       // those of the model, as bits
  uint32_t states;                 // those before the steps that were looked at
  uint32_t read_cache;             // of the attention whose Append is still to come; kNoCache: none
  uint32_t read_k, read_v;         // dimensions of a head that it reads
  OpNeeds needs;
};

template <typename Body>
void ForBits(uint64_t bits, const Body &body) {
  for (; bits != 0; bits &= bits - 1) body(static_cast<uint32_t>(__builtin_ctzll(bits)));
}

Status AddNeeds(ModelReader *reader, const Step &step, bool with_glu, const Walk &walk, const PlanContext &context,
                OpNeeds *needs) {
  OpNeeds own = {0, 0};
  if (step.kind == OpKind::kLinear) {
    Weight weight;
    ACORN_TRY(reader->ReadWeight(step.linear.weight, &weight));
    own = Needs(step.linear, with_glu, weight, walk.values[step.linear.in.value].dtype, context);
  } else if (step.kind == OpKind::kAttention) {
    Cache cache;
    ACORN_TRY(reader->ReadCache(step.attention.cache, &cache));
    own = Needs(step.attention, cache, context);
  } else if (step.kind == OpKind::kExperts) {
    ExpertSet set;
    ACORN_TRY(reader->ReadExpertSet(step.experts.set, &set));
    own = Needs(step.experts, set, context);
  } else if (step.kind == OpKind::kEmbedding) {
    Weight weight;
    ACORN_TRY(reader->ReadWeight(step.embedding.weight, &weight));
  }
  if (own.step_bytes > needs->step_bytes) needs->step_bytes = own.step_bytes;
  if (own.thread_bytes > needs->thread_bytes) needs->thread_bytes = own.thread_bytes;
  return Status::kOk;
}

// Attention reads the cache that the last Append before it has written: rows of this call are there, and no others; of each no
// more than that Append writes.
bool CacheOrderHolds(const Step &step, Walk *walk) {
  if (step.kind == OpKind::kAttention) {
    const AttentionOp &op = step.attention;
    if (walk->read_cache == kNoCache) {
      walk->read_cache = op.cache;
      walk->read_k = walk->read_v = 0;
    }
    if (walk->read_cache != op.cache) return false;
    if (op.k_dim > walk->read_k) walk->read_k = op.k_dim;
    if (op.v_dim > walk->read_v) walk->read_v = op.v_dim;
  } else if (step.kind == OpKind::kAppend && walk->read_cache != kNoCache) {
    const AppendOp &op = step.append;
    if (walk->read_cache != op.cache || op.k_dim < walk->read_k || op.v_dim < walk->read_v) return false;
    walk->read_cache = kNoCache;
  }
  return true;
}

// The steps with a state name states 0, 1, 2, … in the order of the body: none is shared, and none is left over.
bool StateOrderHolds(const Step &step, uint32_t *states) {
  const uint32_t state = StateOf(step);
  if (state == kNoState) return true;
  if (*states == 0 || state != *states - 1) return false;
  --*states;
  return true;
}

void Want(const Slice &slice, Walk *walk) {
  Columns &wanted = walk->wanted[slice.value];
  const uint64_t bit = uint64_t{1} << slice.value;
  const uint32_t end = slice.offset + slice.width;
  if ((walk->live & bit) == 0) wanted = {slice.offset, end};
  if (slice.offset < wanted.begin) wanted.begin = slice.offset;
  if (end > wanted.end) wanted.end = end;
  walk->live |= bit;
}

void WantWhole(uint32_t value, Walk *walk) { Want({value, 0, walk->values[value].width}, walk); }

// A value lives before the step that writes all that is wanted of it no more.
void Write(const Slice &out, Walk *walk) {
  const Columns &wanted = walk->wanted[out.value];
  if (out.width != 0 && out.offset <= wanted.begin && out.offset + out.width >= wanted.end) walk->live &= ~(uint64_t{1} << out.value);
}

// What a linear layer and a Glu behind it are to each other, if they are that.  next: the step behind, of kind 0 behind the last
enum class Pair : uint8_t { kNone, kLinear, kGlu };
Status PairOf(ModelReader *reader, StepList list, uint32_t index, const Step &step, const Step &next, Pair *pair) {
  *pair = Pair::kNone;
  if (list == StepList::kHead) return Status::kOk;
  if (CanFuse(step, next)) *pair = Pair::kLinear;
  if (step.kind != OpKind::kGlu || index == 0) return Status::kOk;
  Step before;
  ACORN_TRY(reader->ReadStep(list, index - 1, &before));
  if (CanFuse(before, step)) *pair = Pair::kGlu;
  return Status::kOk;
}

Status WalkSteps(ModelReader *reader, StepList list, uint32_t count, const PlanContext &context, Walk *walk) {
  Step step, next = {};
  for (uint32_t i = count; i-- > 0; next = step) {
    ACORN_TRY(reader->ReadStep(list, i, &step));
    if (!CacheOrderHolds(step, walk) || !StateOrderHolds(step, &walk->states)) return reader->Invalid();
    const StepEdges edges = EdgesOf(step);
    // Logits lie beside the scratch, as many rows as the head computes; what the head starts from serves it more than once.
    if ((list == StepList::kHead ? edges.writes & walk->body_out : (edges.reads | edges.writes) & walk->logits) != 0) {
      return reader->Invalid();
    }
    const uint64_t together = walk->live | edges.reads | edges.writes;
    ForBits(together, [&](uint32_t v) { walk->conflicts[v] |= together; });
    ForBits(edges.reads | edges.writes, [&](uint32_t v) {
      if (context.rows > walk->rows[v]) walk->rows[v] = context.rows;
    });
    Write(OutputOf(step), walk);
    const StepInputs inputs = InputsOf(step);
    for (uint32_t k = 0; k < inputs.count; ++k) Want(inputs.slices[k], walk);
    Pair pair;
    ACORN_TRY(PairOf(reader, list, i, step, next, &pair));
    if (pair != Pair::kGlu) walk->read |= edges.reads;
    walk->kept |= (pair == Pair::kGlu ? 0 : edges.reads) | (pair == Pair::kLinear ? 0 : edges.writes);
    if (pair == Pair::kLinear) {
      // The Glu's output is written while the linear layer's input is still read.
      const uint64_t out = EdgesOf(next).writes;
      walk->handed |= edges.writes;
      ForBits(edges.reads, [&](uint32_t v) { walk->conflicts[v] |= out; });
      ForBits(out, [&](uint32_t v) { walk->conflicts[v] |= edges.reads; });
    }
    ACORN_TRY(AddNeeds(reader, step, pair == Pair::kLinear, *walk, context, &walk->needs));
  }
  return Status::kOk;
}

// All but `skip`, largest first, each at the lowest place that none of its conflicts covers.
uint64_t PlaceValues(const Walk &walk, uint32_t count, uint64_t skip, uint64_t *offsets) {
  uint64_t todo = 0;
  for (uint32_t v = 0; v < count; ++v) {
    offsets[v] = 0;
    if (walk.rows[v] != 0 && (skip >> v & 1) == 0) todo |= uint64_t{1} << v;
  }
  const auto bytes = [&](uint32_t v) { return walk.rows[v] * RowBytes(walk.values[v]); };
  uint64_t placed = 0;
  uint64_t end = 0;
  while (todo != 0) {
    uint32_t largest = static_cast<uint32_t>(__builtin_ctzll(todo));
    ForBits(todo, [&](uint32_t v) {
      if (bytes(v) > bytes(largest)) largest = v;
    });
    uint64_t offset = 0;
    for (bool moved = true; moved;) {
      moved = false;
      ForBits(placed & walk.conflicts[largest], [&](uint32_t v) {
        if (offset < offsets[v] + bytes(v) && offsets[v] < offset + bytes(largest)) {
          offset = offsets[v] + bytes(v);
          moved = true;
        }
      });
    }
    offsets[largest] = offset;
    if (offset + bytes(largest) > end) end = offset + bytes(largest);
    placed |= uint64_t{1} << largest;
    todo &= ~placed;
  }
  return end;
}

}  // namespace

Status PlanScratch(ModelReader *reader, const Graph &summary, const GraphCounts &counts, const Dims &dims,
                   const KernelSet &kernels, ScratchPlan *plan) {
  Walk walk = {};
  for (uint32_t v = 0; v < counts.values; ++v) ACORN_TRY(reader->ReadValue(v, &walk.values[v]));
  const kv_cache::Extent extent = ExtentOf(dims, summary.prefix_tokens.size());
  walk.body_out = uint64_t{1} << summary.body_out;
  walk.logits = uint64_t{1} << summary.logits;

  // The head runs more than once for a chunk: what it starts from stays.
  WantWhole(summary.logits, &walk);
  WantWhole(summary.body_out, &walk);
  walk.read_cache = kNoCache;
  ACORN_TRY(WalkSteps(reader, StepList::kHead, counts.head, {&kernels, dims.threads, dims.logit_rows, extent}, &walk));
  if ((walk.live & ~walk.body_out) != 0) return reader->Fail(Status::kInvalid, "head", counts.head, 0);
  for (uint32_t p = 0; p < counts.profiles; ++p) {
    walk.live = 0;
    WantWhole(summary.body_out, &walk);
    walk.read_cache = kNoCache;
    walk.states = counts.states;
    ACORN_TRY(WalkSteps(reader, BodyOf(p), counts.body, {&kernels, dims.threads, dims.chunk, extent}, &walk));
    if (walk.live != 0 || walk.read_cache != kNoCache || walk.states != 0) {
      return reader->Fail(Status::kInvalid, p == 0 ? "body" : "profile", p == 0 ? 0 : (p - 1) * counts.body, 0);
    }
  }
  if (walk.rows[summary.body_out] < dims.chunk) walk.rows[summary.body_out] = dims.chunk;

  // A trace looks at what every step has written.
  plan->fused = dims.trace_steps != 0 ? 0 : walk.handed & ~(walk.read | walk.body_out | walk.logits);
  uint64_t end = PlaceValues(walk, counts.values, walk.logits | (plan->fused & ~walk.kept), plan->values);
  plan->ropes = end;
  for (uint32_t i = 0; i < counts.ropes; ++i) {
    Rope rope;
    ACORN_TRY(reader->ReadRope(i, &rope));
    if (end >> 62 != 0) return reader->Fail(Status::kInvalid, "ropes", i, 0);
    end += 2 * AlignUp(uint64_t{dims.chunk} * (rope.rotary_dims / 2) * sizeof(int16_t), 64);
  }
  plan->step = end;
  plan->threads = plan->step + walk.needs.step_bytes;
  plan->thread_bytes = walk.needs.thread_bytes;
  plan->bytes = plan->threads + dims.threads * plan->thread_bytes;
  return Status::kOk;
}

}  // namespace acorn
