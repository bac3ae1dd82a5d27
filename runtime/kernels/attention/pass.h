// What the vector variants of attention share. Two passes over the keys for up to kPairs (row, head) pairs: scores into scratch,
// then, a pair at a time, scores into E in place, then sums of E times values in registers. Sums are exact, so the order of keys
// does not show. In an anonymous namespace: each variant compiles its own copy with its own flags.
#pragma once

#include "kernels/attention/kernel.h"

namespace acorn::attention {
namespace {

using kv_cache::kTileRows;

constexpr size_t kTileScores = 64;  // bytes of a pair's 16 scores, then of its 16 E as the variant likes to read them

/// Pairs of one pass: consecutive in (row, head) order.
struct Pass {
  const Args &args;
  size_t pairs;
  size_t tiles;         // key tiles that the last pair sees
  size_t tile_bytes;    // of the cache's keys, and of its values
  size_t score_stride;  // bytes from pair to pair
  size_t q_stride;      // bytes from pair to pair
  uint8_t *scores;      // [pairs, tiles, kTileScores]
  int8_t *q;            // [pairs, q_stride], zeros behind k_dim
  size_t head[kPairs];
  size_t keys[kPairs];  // that the pair sees
  int8_t *y[kPairs];    // the pair's outputs, side by side
};

/// The outputs of a pair to their places, run by run.
inline void Scatter(int8_t *y, const int8_t *outputs, const Args &args) {
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

/// Engine: static functions Scores(pass); Exponentials(pass, pair), which returns the sum of E; Values(pass, normalisers), which
/// stores v_dim outputs of each pair, or, where kWholeVectors is true, more behind them. They take the place of the pair's queries
/// where that does harm, or where they do not belong side by side.
template <typename Engine>
void RunPasses(const Args &args) {
  Pass pass = {args,
               0,
               0,
               kv_cache::HeadBytes(kTileRows, args.head_dim, args.bits),
               4 * kv_cache::PaddedRows(args.first_position + args.m),
               AlignUp(args.head_dim, 64),
               args.scratch,
               nullptr,
               {},
               {},
               {}};
  pass.q = reinterpret_cast<int8_t *>(args.scratch + kPairs * pass.score_stride);
  const bool in_place = !Engine::kWholeVectors && args.run == args.v_dim;
  int8_t *places[kPairs];
  size_t row = 0, head = 0;
  while (row < args.m) {
    for (pass.pairs = 0; pass.pairs < kPairs && row < args.m; ++pass.pairs) {
      const size_t pair = pass.pairs;
      int8_t *q = pass.q + pair * pass.q_stride;
      __builtin_memcpy(q, args.q + row * args.q_stride + head * args.k_dim, args.k_dim);
      if (args.k_dim < pass.q_stride) __builtin_memset(q + args.k_dim, 0, pass.q_stride - args.k_dim);
      pass.head[pair] = head;
      pass.keys[pair] = args.first_position + row + 1;
      places[pair] = args.y + row * args.y_stride + head * args.run;
      pass.y[pair] = in_place ? places[pair] : q;
      if (++head == args.heads) {
        head = 0;
        ++row;
      }
    }
    pass.tiles = kv_cache::PaddedRows(pass.keys[pass.pairs - 1]) / kTileRows;
    Engine::Scores(pass);
    Normaliser normalisers[kPairs];
    for (size_t pair = 0; pair < pass.pairs; ++pair) {
      normalisers[pair] = Normalise(Engine::Exponentials(pass, pair), args.out_multiplier[pass.head[pair]], args.out_shift);
    }
    Engine::Values(pass, normalisers);
    for (size_t pair = 0; pair < pass.pairs && !in_place; ++pair) Scatter(places[pair], pass.y[pair], args);
  }
}

/// Engine: by the bits of the cache.
template <template <int kBits> class Engine>
void RunEngine(const Args &args) {
  args.bits == 8 ? RunPasses<Engine<8>>(args) : RunPasses<Engine<4>>(args);
}

}  // namespace
}  // namespace acorn::attention
