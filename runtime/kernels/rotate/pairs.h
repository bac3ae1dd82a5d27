// What the variants of rotate share for heads whose pairs are sorted (kernel.h): which sines and cosines a block of sixteen
// dimensions goes with. In an anonymous namespace: each variant compiles its own copy with its own flags.
#pragma once

#include "acorn_schema/pairs.h"
#include "kernels/rotate/kernel.h"

namespace acorn::rotate {
namespace {

constexpr size_t kBlockPairs = kPairBlock / 2;

/// Calls block(x, y, cosine, sine, multiplier, heads) for every row and block of pairs: x and y of the first of `heads` heads, which
/// lie head_dim apart and have the same frequencies; cosine and sine [kBlockPairs]; multiplier [heads].
template <typename Out, typename Block>
void ForPairBlocks(const Args &args, const Block &block) {
  const size_t pairs = args.head_dim / 2, group = args.heads / args.key_heads;
  int16_t cosine[kMaxPairs], sine[kMaxPairs];
  for (size_t row = 0; row < args.m; ++row) {
    const int16_t *x = args.x + row * args.x_stride;
    Out *y = static_cast<Out *>(args.y) + row * args.y_stride;
    const int16_t *row_cosine = args.cosine + row * args.half, *row_sine = args.sine + row * args.half;
    for (size_t key_head = 0; key_head < args.key_heads; ++key_head) {
      const uint8_t *frequency = args.pairs + key_head * pairs;
      for (size_t i = 0; i < pairs; ++i) {
        const bool turns = frequency[i] != kNoFrequency;
        cosine[i] = turns ? row_cosine[frequency[i]] : int16_t{1 << 14};
        sine[i] = turns ? row_sine[frequency[i]] : int16_t{0};
      }
      const size_t head = key_head * group;
      for (size_t i = 0; i < pairs; i += kBlockPairs) {
        const size_t at = head * args.head_dim + 2 * i;
        block(x + at, y + at, cosine + i, sine + i, args.multiplier + head, group);
      }
    }
  }
}

}  // namespace
}  // namespace acorn::rotate
