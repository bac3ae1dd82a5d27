// attention: query rows of s8 heads that share one KV head, over a cache (kernels/kv_cache.h), to s8. Causal.
// docs/ARITHMETIC.md §7 is normative. All variants are bit-equal to the formula; none allocates or can fail.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/span.h"
#include "kernels/kv_cache.h"

namespace acorn::attention {

struct Part;

/// Which keys there are: first `sinks` rows of the cache; behind them, in tiles of their own, a ring of ring_rows, in which key i
/// stands in row (first_slot + i) mod ring_rows. Query row r sees the sinks and the keys from first_key + r - (window - 1), or from 0
/// where that is less, to first_key + r. A cache without a window is a ring that never turns, without sinks.
///
/// For query row r in [0, m), each head h, over the keys j that it sees, with sink_q in the place of q for sinks:
///   score[j] = sum over d of q[d] * K[j][d]
///   E[j]     = Exp2(RoundShift((max score - score[j]) * exp_multiplier[h], exp_shift))
///   den      = sum of E[j];   num[d] = sum of E[j] * V[j][d];   B = bits(den)
///   y[d]     = sat8(RoundShift(num[d] * (out_multiplier[h] * 2^(B - 8) / den), out_shift + B - 8) + zero_point)
/// One call is one task: any split of rows and of the heads of a KV head gives the same bits. Rows cost what they see.
struct Args {
  int8_t *y;                      // [m, v_dim / run, heads, run]
  const int8_t *q;                // [m, heads, k_dim]
  size_t y_stride;                // bytes from row to row
  size_t q_stride;                // bytes from row to row
  size_t m;                       // query rows, >= 1
  size_t heads;                   // query heads of this call, all of one KV head
  size_t head_dim;                // of the cache, even
  size_t k_dim, v_dim;            // the first dimensions of keys and of values, at most head_dim; k_dim even
  size_t run;                     // outputs of a head that lie side by side; divides v_dim
  size_t run_step;                // bytes from run to run of y
  size_t bits;                    // of the cache: 8 or 4
  size_t sinks;                   // 0: none
  size_t first_slot, ring_rows;   // multiples of kv_cache::kTileRows
  size_t first_key;               // that of the first row's own token, below ring_rows + 15: all that a row sees has been written
  size_t window;                  // >= 1; kNoWindow: all
  const int8_t *sink_q;           // [m, heads, k_dim]; null: q
  size_t sink_q_stride;           // bytes from row to row
  const uint8_t *k;               // the KV head's block of keys (kv_cache::HeadBytes)
  const int8_t *v;                // the KV head's block of values
  const int32_t *exp_multiplier;  // [heads], >= 0
  const int32_t *out_multiplier;  // [heads], in [2^30, 2^31)
  int32_t exp_shift;              // in [1, 62]
  int32_t out_shift;              // in [1, 38]
  int32_t zero_point;             // in [-127, 127]
  uint8_t *scratch;               // ScratchBytes(KeyRows(sinks, first_key + m), head_dim), 64-byte aligned, one for each thread
  const Part *part = nullptr;     // for score_part and value_part: which; scratch has PartScoreBytes and is the parts' together
};

constexpr size_t kNoWindow = SIZE_MAX;

constexpr size_t kPairs = 8;  // (row, head) pairs that one pass over the keys serves

/// Places for the scores of sinks and of `keys` others, in whole tiles.
static constexpr size_t KeyRows(size_t sinks, size_t keys) { return kv_cache::PaddedRows(sinks) + kv_cache::PaddedRows(keys); }

/// The queries of a pass.
static constexpr size_t QueryBytes(size_t head_dim) { return kPairs * AlignUp(head_dim, 64); }

/// Scratch of every variant: a score for each pair and key, and the pairs' queries.  rows: KeyRows of the last query row
static constexpr size_t ScratchBytes(size_t rows, size_t head_dim) {
  return kPairs * 4 * kv_cache::PaddedRows(rows) + QueryBytes(head_dim);
}

/// The scores of a call in parts.  pairs: m * heads;  keys: first_key + m
static constexpr size_t PartScoreBytes(size_t pairs, size_t keys) { return AlignUp(pairs, 2) * 4 * kv_cache::PaddedRows(keys); }

/// One of the parts into which the keys of a call are split, so that threads share the work of one KV head: for calls of at most
/// kPairs pairs, without window and sinks. First score_part of all parts, then value_part of all, then Join once. Sums are exact,
/// so any split gives the bits of the call as a whole.
struct Part {
  size_t index, count;
  size_t begin, end;  // its keys: whole tiles, but that the last part ends with first_key + m
  int8_t *queries;    // QueryBytes, 64-byte aligned, one for each thread
  int32_t *largest;   // [count, pairs]; score_part writes its own, the largest scores
  uint64_t *den;      // [count, pairs]; value_part writes its own
  int64_t *num;       // [count, pairs, PaddedDim(v_dim)], 64-byte aligned; likewise
};

/// Query rows that make a good task in prefill.
constexpr size_t kTaskRows = 16;

using Run = void (*)(const Args &args);

/// One variant of the family.
struct Kernel {
  const char *name;
  uint32_t needs;  // Feature bits
  Run run;
  Run score_part = nullptr;  // null: calls cannot be split
  Run value_part = nullptr;
};

/// All variants, best first, scalar last.
Span<const Kernel> Kernels();

/// The best variant for a set of Feature bits; never null.
const Kernel *Select(uint32_t features);

/// The outputs of a call from its parts.  args.part: any of them
void Join(const Args &args);

/// 65535 * 2^(-t / 32768), within 6.  t >= 0
uint32_t Exp2(uint64_t t);

/// The formula's last line for one (row, head): the division is done once.
struct Normaliser {
  int64_t multiplier;  // below 2^24
  int32_t shift;       // in [1, 62]
  uint64_t den;        // for sums of values that have an offset
};
Normaliser Normalise(uint64_t den, int32_t out_multiplier, int32_t out_shift);

}  // namespace acorn::attention
