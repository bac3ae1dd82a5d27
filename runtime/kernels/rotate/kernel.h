// rotate: rotary positions, from s16 heads to s8 or s16 heads. docs/ARITHMETIC.md §5 is normative.
// All variants are bit-equal to the formula; none allocates or can fail.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/span.h"

namespace acorn::rotate {

/// For each row and head, with h = half (pairs i, i + h; values from 2h on only change scale):
///   y[i]     = sat(RoundShift((x[i] * cosine[i] - x[i + h] * sine[i]) * multiplier, shift))    i < h
///   y[i + h] = sat(RoundShift((x[i + h] * cosine[i] + x[i] * sine[i]) * multiplier, shift))
///   y[j]     = sat(RoundShift(x[j] * 2^14 * multiplier, shift))                                j >= 2h
/// sat: sat8 or sat16 by the type of the output.
/// With `pairs`, pair i of a head lies where acorn_schema/pairs.h says and has the cosine and sine of frequency pairs[i] of its head
/// of keys; kNoFrequency: both members only change scale.
/// x and y are separate buffers; no alignment beyond that of the types is needed.
struct Args {
  void *y;           // [m, heads, head_dim] of the output type
  const int16_t *x;  // [m, heads, head_dim], in [-32767, 32767]
  size_t y_stride;   // elements from row to row
  size_t x_stride;   // elements from row to row
  size_t m, heads, head_dim;
  size_t half;                // in [0, head_dim / 2]; with `pairs` any: frequencies are below it
  const int16_t *cosine;      // [m, half], Q14
  const int16_t *sine;        // [m, half], Q14
  const int32_t *multiplier;  // [heads]
  int32_t shift;              // in [1, 62]
  const uint8_t *pairs;       // [key_heads, head_dim / 2], head_dim being a multiple of kPairBlock; null: pairs stand in order
  size_t key_heads;           // each is that of heads / key_heads heads
};

constexpr size_t kMaxPairs = 256;  // of a head

/// From this shift on a rounded product stays within 2^30: |x * cosine| + |x * sine| <= 2^30 and |multiplier| <= 2^31.
constexpr int32_t kShiftTo31Bits = 31;

using Run = void (*)(const Args &args);

/// One variant of the family.
struct Kernel {
  const char *name;
  uint32_t needs;  // Feature bits
  Run s8, s16;     // by output type
};

/// All variants, best first, scalar last.
Span<const Kernel> Kernels();

/// The best variant for a set of Feature bits; never null.
const Kernel *Select(uint32_t features);

/// Fills cosine and sine for m consecutive positions (tokens, the prefix included) from `first_position` on.
///   cosine, sine   [m, half], Q14
///   frequencies    [half], turns per position times 2^64
///   limit          positions behind it count as it; kNoLimit: none does
constexpr uint64_t kNoLimit = UINT64_MAX;
void FillTable(int16_t *cosine, int16_t *sine, const uint64_t *frequencies, size_t half, uint64_t first_position, size_t m,
               uint64_t limit);

/// Sine of `phase` / 2^32 turns in Q14, in [-16384, 16384].
int32_t Sine(uint32_t phase);

}  // namespace acorn::rotate
