// What the vector variants of attention share. Two passes over the keys for up to kPairs (row, head) pairs: scores into scratch,
// then, a pair at a time, scores into E in place, then sums of E times values in registers. Sums are exact, so the order of keys
// does not show: those of a ring come as they lie. In an anonymous namespace: each variant compiles its own copy with its own flags.
#pragma once

#include "kernels/attention/kernel.h"
#include "kernels/inline.h"

namespace acorn::attention {
namespace {

using kv_cache::kTileRows;

constexpr size_t kTileScores = 64;  // bytes of a pair's 16 scores, then of its 16 E as the variant likes to read them

/// Keys whose tiles lie side by side in the cache. Runs begin on tiles; all but the sinks and the last one end on tiles too.
struct KeyRun {
  const uint8_t *k;
  const int8_t *v;
  size_t tile;  // the first of the pass's tiles
  size_t keys;
  size_t tiles() const { return kv_cache::PaddedRows(keys) / kTileRows; }
};

/// Pairs of one pass: consecutive in (row, head) order. Its keys are the sinks, padded to whole tiles, and then those of the ring,
/// from the tile of the first one that any pair sees: they are counted like this wherever scores are looked at.
struct Pass {
  const Args &args;
  size_t pairs;
  KeyRun runs[3];       // the sinks; the ring up to its end; the ring from its beginning
  size_t run_count;
  size_t sink_tiles;
  size_t tiles;         // of all runs
  size_t tile_bytes;    // of the cache's keys, and of its values
  size_t score_stride;  // bytes from pair to pair
  size_t q_stride;      // bytes from pair to pair
  uint8_t *scores;      // [pairs, tiles, kTileScores]
  int8_t *q;            // [pairs, q_stride], zeros behind k_dim
  size_t head[kPairs];
  size_t first[kPairs], last[kPairs];  // the pair sees [first, last) beside the sinks
  int8_t *y[kPairs];    // the pair's outputs, side by side
  int64_t *num;         // [pairs, num_stride]: of a part, which stores sums in the place of outputs; else null
  size_t num_stride;

  int64_t *Num(size_t pair, size_t d) const { return num + pair * num_stride + d; }
};

ACORN_NOINLINE inline Pass NewPass(const Args &args, uint8_t *scores, int8_t *q) {
  return {args,
          0,
          {},
          0,
          0,
          0,
          kv_cache::HeadBytes(kTileRows, args.head_dim, args.bits),
          4 * KeyRows(args.sinks, args.first_key + args.m),
          AlignUp(args.head_dim, 64),
          scores,
          q,
          {},
          {},
          {},
          {},
          nullptr,
          kv_cache::PaddedDim(args.v_dim)};
}

constexpr size_t kAheadInOrder = 16384;  // of one stream: what is computed meanwhile takes some 150 ns

/// Keys and values of a long conversation come from memory, in pieces too short for the machine to see a pattern. Beyond the end of
/// a cache nothing happens. To the second cache: decode behind 4,000 tokens is 1.07 to 1.10 times as fast as with the first (Zen 4).
inline void FetchAhead(const void *at, size_t bytes = kAheadInOrder) {
  __builtin_prefetch(static_cast<const uint8_t *>(at) + bytes, 0, 2);
}

/// The outputs of a pair to their places, run by run.
ACORN_NOINLINE inline void Scatter(int8_t *y, const int8_t *outputs, const Args &args) {
  for (size_t d = 0; d < args.v_dim; d += args.run, y += args.run_step) __builtin_memcpy(y, outputs + d, args.run);
}

inline int32_t LoadQuad(const void *p) {
  int32_t quad;
  __builtin_memcpy(&quad, p, 4);
  return quad;
}

/// From this difference of scores on, E is 0 (17 octaves); its product with the multiplier still rounds to less than 2^31.
inline int32_t FurthestDifference(int32_t multiplier, int32_t shift) {
  constexpr uint64_t kOctaves = uint64_t{17} << 15;
  constexpr uint64_t kMost = 0x7fffffff;
  if (multiplier == 0 || shift >= 44) return kMost;
  const auto m = static_cast<uint64_t>(multiplier);
  const uint64_t difference = ((kOctaves << shift) + m - 1) / m;
  return static_cast<int32_t>(difference < kMost ? difference : kMost);
}

/// Where the pairs' keys are.  begin, end: those of the ring, both as the caller counts; begin: of a tile
ACORN_NOINLINE inline void FindRuns(Pass *pass, size_t begin, size_t end) {
  const Args &args = pass->args;
  const size_t tile_bytes = pass->tile_bytes;
  pass->run_count = 0;
  pass->tiles = 0;
  const auto add = [&](size_t row, size_t keys) {
    const size_t offset = row / kTileRows * tile_bytes;
    const KeyRun run = {args.k + offset, args.v + offset, pass->tiles, keys};
    pass->runs[pass->run_count++] = run;
    pass->tiles += run.tiles();  // NOLINT(clang-analyzer-core.uninitialized.Assign): a pass has pairs, each with a last key
  };
  if (args.sinks != 0) add(0, args.sinks);
  pass->sink_tiles = pass->tiles;
  const size_t ring = pass->sink_tiles * kTileRows;
  size_t slot = args.first_slot + begin;
  if (slot >= args.ring_rows) slot -= args.ring_rows;
  for (size_t left = end - begin; left != 0; slot = 0) {
    const size_t room = args.ring_rows - slot, keys = left < room ? left : room;
    add(ring + slot, keys);
    left -= keys;
  }
}

/// The queries of a pass to its place.  head: of the first pair
template <typename Engine>
ACORN_NOINLINE void LoadQueries(const Pass &pass, const int8_t *rows, size_t stride, size_t head) {
  const Args &args = pass.args;
  int8_t *q = pass.q;
  for (size_t pair = 0; pair < pass.pairs; ++pair, q += pass.q_stride) {
    __builtin_memcpy(q, rows + head * args.k_dim, args.k_dim);
    if (args.k_dim < pass.q_stride) __builtin_memset(q + args.k_dim, 0, pass.q_stride - args.k_dim);
    if (++head == args.heads) {
      head = 0;
      rows += stride;
    }
  }
  Engine::Queries(pass);
}

inline int32_t SumOf(const int8_t *q, size_t dims) {
  int32_t sum = 0;
  for (size_t d = 0; d < dims; ++d) sum += q[d];
  return sum;
}

/// Where keys keep an offset, a score is too large by so many times the sum of its query. Among scores of one query that does not
/// show; those of sinks are brought to what they would have with the other one.  head, row: of the first pair
ACORN_NOINLINE inline void MatchSinks(const Pass &pass, int32_t key_offset, size_t row, size_t head) {
  const Args &args = pass.args;
  for (size_t pair = 0; pair < pass.pairs; ++pair) {
    const int8_t *q = args.q + row * args.q_stride + head * args.k_dim;
    const int8_t *sink_q = args.sink_q + row * args.sink_q_stride + head * args.k_dim;
    const int32_t difference = key_offset * (SumOf(q, args.k_dim) - SumOf(sink_q, args.k_dim));
    auto *score = reinterpret_cast<int32_t *>(pass.scores + pair * pass.score_stride);
    for (size_t sink = 0; sink < args.sinks; ++sink) score[sink] += difference;
    if (++head == args.heads) {
      head = 0;
      ++row;
    }
  }
}

/// Engine: kKeyOffset, what keys have on top of their values when it multiplies them; static functions Queries(pass), which may order
/// what LoadQueries has put there; Scores(pass, run); Largest(pass, pair), of the scores that the pair sees; Exponentials(pass,
/// pair, largest), which returns the sum of E; Values(pass, normalisers), which stores v_dim outputs of each pair, or, where
/// kWholeVectors is true, more behind them. They take the place of the pair's queries where that does harm, or where they do not
/// belong side by side. Where the pass has a place for num, the sums' products with the multipliers go there instead.
///
/// The three that are large stand once for calls as a whole and in parts.
template <typename Engine>
ACORN_NOINLINE void RunScores(const Pass &pass, const KeyRun &run) {
  Engine::Scores(pass, run);
}
template <typename Engine>
ACORN_NOINLINE uint64_t RunExponentials(const Pass &pass, size_t pair, int32_t largest) {
  return Engine::Exponentials(pass, pair, largest);
}
template <typename Engine>
ACORN_NOINLINE void RunValues(const Pass &pass, const Normaliser *normalisers) {
  Engine::Values(pass, normalisers);
}

template <typename Engine>
void RunPasses(const Args &args) {
  Pass pass = NewPass(args, args.scratch, nullptr);
  pass.q = reinterpret_cast<int8_t *>(args.scratch + kPairs * pass.score_stride);
  const bool in_place = !Engine::kWholeVectors && args.run == args.v_dim;
  int8_t *places[kPairs];
  size_t row = 0, head = 0;
  while (row < args.m) {
    const size_t first_row = row, first_head = head;
    for (pass.pairs = 0; pass.pairs < kPairs && row < args.m; ++pass.pairs) {
      const size_t pair = pass.pairs, end = args.first_key + row + 1;
      pass.head[pair] = head;
      pass.first[pair] = end > args.window ? end - args.window : 0;
      pass.last[pair] = end;
      places[pair] = args.y + row * args.y_stride + head * args.run;
      pass.y[pair] = in_place ? places[pair] : pass.q + pair * pass.q_stride;
      if (++head == args.heads) {
        head = 0;
        ++row;
      }
    }
    const size_t begin = pass.first[0] / kTileRows * kTileRows;  // later pairs see no earlier keys
    FindRuns(&pass, begin, pass.last[pass.pairs - 1]);
    for (size_t pair = 0; pair < pass.pairs; ++pair) {
      pass.first[pair] += pass.sink_tiles * kTileRows - begin;
      pass.last[pair] += pass.sink_tiles * kTileRows - begin;
    }
    const bool turned = args.sinks != 0 && args.sink_q != nullptr;
    if (turned) {
      LoadQueries<Engine>(pass, args.sink_q + first_row * args.sink_q_stride, args.sink_q_stride, first_head);
      RunScores<Engine>(pass, pass.runs[0]);
      if (Engine::kKeyOffset != 0) MatchSinks(pass, Engine::kKeyOffset, first_row, first_head);
    }
    LoadQueries<Engine>(pass, args.q + first_row * args.q_stride, args.q_stride, first_head);
    for (size_t run = turned ? 1 : 0; run < pass.run_count; ++run) RunScores<Engine>(pass, pass.runs[run]);
    Normaliser normalisers[kPairs];
    for (size_t pair = 0; pair < pass.pairs; ++pair) {
      const uint64_t den = RunExponentials<Engine>(pass, pair, Engine::Largest(pass, pair));
      normalisers[pair] = Normalise(den, args.out_multiplier[pass.head[pair]], args.out_shift);
    }
    RunValues<Engine>(pass, normalisers);
    for (size_t pair = 0; pair < pass.pairs && !in_place; ++pair) Scatter(places[pair], pass.y[pair], args);
  }
}

/// All pairs of a call, of which a pass sees the keys of its part, counted from the part's first.
ACORN_NOINLINE inline Pass PassOfPart(const Args &args) {
  const Part &part = *args.part;
  Pass pass = NewPass(args, args.scratch + 4 * part.begin, part.queries);
  for (size_t row = 0; row < args.m; ++row) {
    const size_t seen = args.first_key + row + 1, end = seen < part.end ? seen : part.end;
    for (size_t head = 0; head < args.heads; ++head, ++pass.pairs) {
      pass.head[pass.pairs] = head;
      pass.last[pass.pairs] = end > part.begin ? end - part.begin : 0;
    }
  }
  FindRuns(&pass, part.begin, part.end);
  return pass;
}

template <typename Engine>
void ScorePass(const Args &args) {
  const Pass pass = PassOfPart(args);
  LoadQueries<Engine>(pass, args.q, args.q_stride, 0);
  RunScores<Engine>(pass, pass.runs[0]);
  int32_t *largest = args.part->largest + args.part->index * pass.pairs;
  for (size_t pair = 0; pair < pass.pairs; ++pair) largest[pair] = Engine::Largest(pass, pair);
}

template <typename Engine>
void ValuePass(const Args &args) {
  const Part &part = *args.part;
  Pass pass = PassOfPart(args);
  pass.num = part.num + part.index * pass.pairs * pass.num_stride;
  Normaliser normalisers[kPairs];  // of products that are sums
  for (size_t pair = 0; pair < pass.pairs; ++pair) {
    int32_t largest = INT32_MIN;
    for (size_t i = 0; i < part.count; ++i) {
      const int32_t of_part = part.largest[i * pass.pairs + pair];
      if (of_part > largest) largest = of_part;
    }
    const uint64_t den = RunExponentials<Engine>(pass, pair, largest);
    part.den[part.index * pass.pairs + pair] = den;
    normalisers[pair] = {1, 1, den};
  }
  RunValues<Engine>(pass, normalisers);
}

/// Engine: by the bits of the cache.
template <template <int kBits> class Engine>
void RunEngine(const Args &args) {
  args.bits == 8 ? RunPasses<Engine<8>>(args) : RunPasses<Engine<4>>(args);
}
template <template <int kBits> class Engine>
void ScorePart(const Args &args) {
  args.bits == 8 ? ScorePass<Engine<8>>(args) : ScorePass<Engine<4>>(args);
}
template <template <int kBits> class Engine>
void ValuePart(const Args &args) {
  args.bits == 8 ? ValuePass<Engine<8>>(args) : ValuePass<Engine<4>>(args);
}

}  // namespace
}  // namespace acorn::attention
