// Typed views on a verified model image: plain structs whose pointers lead into the image. Made by reader.cc, which is the
// only code that reads untrusted bytes; everything above may trust what stands here. Owns nothing.
#pragma once

#include <cstddef>
#include <cstdint>

#include "acorn_schema/expert_record.h"
#include "acorn_schema/layout.h"
#include "acorn_schema/scoring.h"
#include "base/checked.h"
#include "base/fixed_point.h"
#include "base/span.h"

namespace acorn {

constexpr uint32_t kMaxValues = 64;          // so that a set of values is one u64
constexpr uint32_t kMostTileChannels = 16;   // of any layout
constexpr uint32_t kMaxRows = 65536;         // of a cache that a token sees, prefix included: docs/ARITHMETIC.md §7
constexpr uint32_t kMaxTokensWithoutCache = 1u << 24;  // of a session whose layers keep states alone
constexpr uint32_t kMaxPrefixRows = 64;
constexpr uint32_t kMaxHeadDim = 512;
constexpr uint32_t kMaxWidth = 1u << 20;     // of an activation edge
constexpr uint32_t kMaxExperts = 1024;          // of a set
constexpr uint64_t kMaxExpertsOfAll = 1u << 24;  // sets times the largest one's experts: a key has 24 bits
constexpr uint32_t kMaxTopK = 64;
constexpr uint32_t kMaxExpertSlices = 16;       // of an expert
constexpr uint32_t kMaxLayerNormDepth = 8192;  // of a part: docs/ARITHMETIC.md §4.2
constexpr uint32_t kMinTaps = 2, kMaxTaps = 8;  // of a convolution
constexpr uint32_t kMaxStateColumns = 1024;  // of a recurrence: docs/ARITHMETIC.md §15.2
constexpr uint64_t kMaxStateElems = 1u << 28;
constexpr int32_t kStateLimit = (1 << 30) - 1;  // sat31
constexpr uint32_t kMaxProfiles = 16;  // of a model, the body at rate 0 among them
constexpr uint32_t kMaxRate = 95;      // percent
constexpr uint32_t kMaxReferenceTokens = 1024;  // of a reference run: a device is to prove itself in seconds
constexpr uint32_t kMaxReferenceTemperatureQ16 = 100u << 16;  // what the sampler takes

enum class DType : uint8_t { kS8 = 1, kS15 = 2, kS16 = 3, kS32 = 4 };

constexpr uint32_t DTypeBytes(DType type) { return type == DType::kS8 ? 1 : type == DType::kS32 ? 4 : 2; }

/// An activation edge, a matrix [tokens, width].
struct Value {
  DType dtype;
  uint32_t width;
};

/// Bytes from row to row of a value: whole cache lines.
constexpr uint64_t RowBytes(const Value &value) { return AlignUp(uint64_t{value.width} * DTypeBytes(value.dtype), 64); }

/// Columns [offset, offset + width) of a value.
struct Slice {
  uint32_t value;
  uint32_t offset;
  uint32_t width;
};

/// Rows or columns [first, first + count) of something wider.
struct IndexRun {
  uint32_t first, count;
};
/// Runs that lie in the image.
struct IndexRuns {
  const IndexRun *runs;
  uint32_t size;
  const IndexRun *begin() const { return runs; }
  const IndexRun *end() const { return runs + size; }
  bool empty() const { return size == 0; }
};

/// body(from, to, count) for each stretch of `part`: where it lies among the columns of `whole`, where among its own, all counted
/// from 0 as if the runs were one. Both in order; `width` stands for runs that are empty, [0, width).
/// Returns false, after some stretches, where `part` has a column that `whole` has not.
template <typename Body>
bool ForStretches(IndexRuns part, IndexRuns whole, uint32_t width, const Body &body) {
  const IndexRun all = {0, width};
  if (part.empty()) part = {&all, 1};
  if (whole.empty()) whole = {&all, 1};
  const IndexRun *in = whole.begin();
  uint32_t before = 0, to = 0;  // columns of whole's runs before *in; of part's so far
  for (const IndexRun &run : part) {
    for (uint32_t done = 0; done < run.count;) {
      const uint32_t column = run.first + done;
      while (in != whole.end() && in->first + in->count <= column) before += in++->count;
      if (in == whole.end() || in->first > column) return false;
      const uint32_t left = run.count - done, room = in->first + in->count - column, count = left < room ? left : room;
      body(before + (column - in->first), to, count);
      to += count;
      done += count;
    }
  }
  return true;
}

/// A packed weight matrix [n, k].
struct Weight {
  WeightFormat format;
  Layout layout;
  uint32_t n, k, k_panel;
  const uint8_t *data;
  uint64_t bytes;
};

/// Bytes that the first k inputs of n channels take, the padding of their last tile among them.
uint64_t PartBytes(const Weight &weight, uint32_t n, uint32_t k);

struct Rope {
  uint32_t rotary_dims;
  const uint64_t *frequencies;  // [rotary_dims / 2], turns per position times 2^64
  uint64_t limit;               // positions behind it are rotated as it is; UINT64_MAX: none
};

/// Keys and values of one layer, as wide as the widest profile wants them.
struct Cache {
  uint32_t kv_heads, head_dim;
  uint32_t bits;           // of an element: 8 or 4
  uint32_t window;         // newest tokens that a token sees, itself among them, beside the prefix rows; 0: all
  const int8_t *prefix_k;  // [prefix_rows, kv_heads, head_dim]
  const int8_t *prefix_v;
};

/// What a layer keeps from token to token: a matrix [rows, columns] of s16 or s32, of the widest profile.
struct State {
  DType dtype;
  uint32_t rows, columns;
  const uint8_t *prefix;  // [rows, columns]; null: zeros
};
constexpr uint64_t StateBytes(const State &state) { return uint64_t{state.rows} * state.columns * DTypeBytes(state.dtype); }

/// A slice of an expert: a record of the file, FORMAT.md "Expert records".
struct ExpertRecord {
  uint64_t offset;  // from the start of the file
  uint64_t checksum;
  expert::Shape shape;
  int32_t gate_shift, up_shift, down_shift;
};

/// The routed experts of one layer. Each is a row of slices of its inner channels, which lie one behind the other; a profile uses the
/// first ones.
struct ExpertSet {
  uint32_t hidden;
  uint64_t in_bound, down_bound;  // largest |acc| of gate and up, of down
  Layout layout;                  // of formats without groups
  uint32_t count;                 // of experts
  uint32_t formats;               // that its experts have: bit f is WeightFormat f
  uint32_t slices;                // of an expert
  uint32_t ends[kMaxExpertSlices];   // inner channels up to the end of a slice
  uint64_t bytes[kMaxExpertSlices];  // of an expert up to the end of a slice, whole blocks of 16 KiB; of the largest expert
  Span<ExpertRecord> records;        // [count, slices]

  uint32_t begin_of(size_t slice) const { return slice == 0 ? 0 : ends[slice - 1]; }
  uint32_t width_of(size_t slice) const { return ends[slice] - begin_of(slice); }
  /// [slices], of an expert.
  const ExpertRecord *slices_of(uint32_t expert) const { return &records[uint64_t{expert} * slices]; }
};

enum class OpKind : uint8_t {
  kEmbedding = 1, kRmsNorm, kLinear, kRotate, kAppend, kAttention, kGlu, kHadamard, kAdd, kLayerNorm, kExperts, kConv, kScan
};

struct EmbeddingOp {
  Slice out;
  uint32_t weight;
  const int32_t *multipliers;  // [weight.n]
  int32_t shift;
};

struct RmsNormOp {
  Slice in, out;
  uint32_t groups;
  const int16_t *gamma;    // [width / groups], or [width]
  uint32_t gamma_stride;   // from group to group: 0, or width / groups
  Scale factor;
  uint64_t eps_term;
  int32_t zero_point;
};

struct GluOp {
  Slice gate, up, out;
  Scale index;
  const int16_t *table;  // [514]
  int32_t shift;
  bool fused;  // the linear layer before it does it
};

struct LinearOp {
  Slice in, out;  // in: the first columns of the weight
  uint32_t weight;
  IndexRuns rows;              // of the weight, in the order of out; empty: all. Each begins on a multiple of kMostTileChannels
  const int32_t *bias;         // [out.width]
  const int32_t *multipliers;  // [out.width]
  int32_t shift;
  int32_t zero_point;
  const GluOp *glu;  // what each task does with its gates and ups, in the place of writing `out`; null: nothing
};

struct RotateOp {
  Slice in, out;
  uint32_t heads, rope;
  const int32_t *multipliers;  // [heads]
  int32_t shift;
  const uint8_t *pairs;        // [key_heads, head_dim / 2], frequencies or kNoFrequency: acorn_schema/pairs.h; null: in order
  uint32_t key_heads;          // each is that of heads / key_heads heads
};

struct AppendOp {
  Slice k, v;
  uint32_t k_dim, v_dim;  // of a head; even, at most the cache's head_dim: the first ones of each row
  uint32_t cache;
  const int32_t *v_multipliers;  // [kv_heads]
  int32_t v_shift;
};

struct AttentionOp {
  Slice q, out;           // out: [v_dim / run, heads, run], and what is left of it holds zero_point
  Slice sink_q;           // the queries for the prefix rows; of no width: q
  uint32_t k_dim, v_dim;  // as Append's
  uint32_t run;
  uint32_t cache, heads;
  const int32_t *exp_multipliers;  // [heads]
  int32_t exp_shift;
  const int32_t *out_multipliers;  // [heads]
  int32_t out_shift;
  int32_t zero_point;
};

struct HadamardOp {
  Slice in, out;
  uint32_t block;
  Scale factor;
  int32_t zero_point;
};

struct AddOp {
  Slice a, b, out;
  int32_t a_multiplier, b_multiplier, shift;
};

struct LayerNormOp {
  Slice in, out;
  uint32_t groups;
  const int16_t *gamma;  // [width]
  const int32_t *bias;   // [width]
  uint64_t eps_term;
  int32_t shift;
  int32_t zero_point;
};

struct ExpertsOp {
  Slice in, router, out;
  uint32_t set, top_k;
  uint32_t slices, ffn;  // of each expert: the first ones, and their inner channels
  Scoring scoring;
  Scale octaves;
  Scale glu_index;
  const int16_t *glu_table;  // [514]
  int32_t glu_shift;
  uint32_t block;
  Scale down_factor;
  int32_t down_zero_point;
  Slice shared;       // of no width: none
  Slice shared_gate;  // the same
  Scale shared_octaves;
};

struct ConvOp {
  Slice in, out;
  uint32_t state, taps;
  IndexRuns columns;  // of the state's, rising; empty: all. In use the state is [taps - 1, width]
  const int16_t *weights;      // [taps, width]
  const int32_t *bias;         // [width]
  const int32_t *multipliers;  // [width]
  int32_t shift;
  const int32_t *index_multipliers;  // [width]
  int32_t index_shift;
  const int16_t *table;  // [514]
};

struct ScanOp {
  Slice x, b, c, dt, out;  // x, out: [channels / run, heads, run]
  uint32_t run;
  uint32_t state, heads, groups;  // a head has the first channels of its rows of the state, and of those the first columns
  const int32_t *dt_multipliers;  // [heads]
  int32_t dt_shift;
  const int32_t *dt_bias;         // [heads]
  const int32_t *softplus_table;  // [1025]
  int32_t dt_least, dt_most;
  const int32_t *decay_multipliers;  // [heads]
  int32_t decay_shift;
  const int32_t *input_multipliers;  // [heads]
  int32_t input_shift;
  const int64_t *skip;        // [heads]
  const uint8_t *out_shifts;  // [heads]
};

struct Step {
  OpKind kind;
  union {
    EmbeddingOp embedding;
    RmsNormOp rms_norm;
    LinearOp linear;
    RotateOp rotate;
    AppendOp append;
    AttentionOp attention;
    GluOp glu;
    HadamardOp hadamard;
    AddOp add;
    LayerNormOp layer_norm;
    ExpertsOp experts;
    ConvOp conv;
    ScanOp scan;
  };
};

/// What a step reads.
struct StepInputs {
  Slice slices[4];
  uint32_t count;
};
StepInputs InputsOf(const Step &step);

/// Whether a task of the linear layer can go on with the Glu: it has one behind it that takes its first half as gates and its second
/// one as ups, whole tiles of the weight, both at the same distance. Nothing else may want what the linear layer would write.
bool CanFuse(const Step &linear, const Step &glu);

/// What a step writes; of no width: Append, which writes rows of a cache.
Slice OutputOf(const Step &step);

/// The values that a step reads and the one that it writes (none: Append).
struct StepEdges {
  uint64_t reads;   // bit v: value v
  uint64_t writes;  // one bit at most
};
StepEdges EdgesOf(const Step &step);

constexpr uint32_t kNoState = UINT32_MAX;
/// The state that a step keeps; kNoState: none.
uint32_t StateOf(const Step &step);

/// Whether `narrow` may stand in a profile where the profile below it has `wide`: the same operator on the same values, weights,
/// caches, states and experts, in as many heads and groups, and nowhere wider. So what a session keeps at the lower rate has all
/// that the higher one reads.
bool IsNarrower(const Step &narrow, const Step &wide);

/// The body at one rate: percent of the prunable weights that it leaves out.
struct Profile {
  uint32_t rate;
  Span<Step> body;
  Span<uint8_t> slices;  // [expert sets]: how many of each expert's its steps use
  size_t tail;           // steps of the body from here on leave nothing behind but their rows' outputs
};

/// What acorn selftest repeats: docs/ARITHMETIC.md §13. The spans lie in the image.
struct ReferenceRun {
  Span<const int32_t> prompt;     // empty: the file has no reference run
  Span<const int32_t> generated;  // at least one; the last `sampled` are drawn, those before are the likeliest
  uint32_t sampled;
  uint32_t temperature_q16;
  uint64_t seed;
  Span<const uint64_t> prefill, decode;  // [body + head], digests
};

/// A whole model. The spans lie in the model's part of the caller's block.
struct Graph {
  Span<const char> name, family;
  uint32_t vocab_size, max_context;
  Span<const int32_t> prefix_tokens;  // in the image
  Span<Value> values;
  Span<Weight> weights;
  Span<Rope> ropes;
  Span<Cache> caches;
  Span<State> states;
  Span<ExpertSet> expert_sets;
  Span<Profile> profiles;  // by rising rate; the first is `body` at rate 0
  Span<Step> body, head;
  uint32_t body_out, logits;
  Scale logit_factor;
  Span<const uint8_t> tokenizer;  // empty: none
  ReferenceRun reference;
};

/// Step `index` of body and head together. At another rate it is another step of the same kind and with the same kernel.
inline const Step &StepOf(const Graph &graph, size_t index) {
  return index < graph.body.size() ? graph.body[index] : graph.head[index - graph.body.size()];
}

}  // namespace acorn
