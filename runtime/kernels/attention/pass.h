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
  size_t first_pair, pairs;
  size_t tiles;         // key tiles that the last pair sees
  size_t score_stride;  // bytes from pair to pair
  size_t q_stride;      // bytes from pair to pair
  uint8_t *scores;      // [pairs, tiles, kTileScores]
  int8_t *q;            // [pairs, q_stride], zeros behind head_dim

  size_t Row(size_t pair) const { return (first_pair + pair) / args.heads; }
  size_t Head(size_t pair) const { return (first_pair + pair) % args.heads; }
  size_t Keys(size_t pair) const { return args.first_position + Row(pair) + 1; }
  size_t TileBytes() const { return kTileRows * kv_cache::PaddedDim(args.head_dim); }
  int8_t *Output(size_t pair) const { return args.y + Row(pair) * args.y_stride + Head(pair) * args.head_dim; }
};

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

/// Engine: static functions Scores(pass); Exponentials(pass, pair), which returns the sum of E; Values(pass, normalisers).
template <typename Engine>
void RunPasses(const Args &args) {
  const size_t score_stride = 4 * kv_cache::PaddedRows(args.first_position + args.m);
  const size_t q_stride = AlignUp(args.head_dim, 64);
  const size_t all = args.m * args.heads;
  for (size_t first = 0; first < all; first += kPairs) {
    const size_t pairs = all - first < kPairs ? all - first : kPairs;
    const size_t keys = args.first_position + (first + pairs - 1) / args.heads + 1;
    const Pass pass = {args, first, pairs, kv_cache::PaddedRows(keys) / kTileRows, score_stride, q_stride, args.scratch,
                       reinterpret_cast<int8_t *>(args.scratch + kPairs * score_stride)};
    for (size_t pair = 0; pair < pairs; ++pair) {
      int8_t *q = pass.q + pair * q_stride;
      __builtin_memcpy(q, args.q + pass.Row(pair) * args.q_stride + pass.Head(pair) * args.head_dim, args.head_dim);
      __builtin_memset(q + args.head_dim, 0, q_stride - args.head_dim);
    }
    Engine::Scores(pass);
    Normaliser normalisers[kPairs];
    for (size_t pair = 0; pair < pairs; ++pair) {
      normalisers[pair] = Normalise(Engine::Exponentials(pass, pair), args.out_multiplier[pass.Head(pair)], args.out_shift);
    }
    Engine::Values(pass, normalisers);
  }
}

}  // namespace
}  // namespace acorn::attention
