// The integer primitives that every operator is made of. docs/ARITHMETIC.md §1 is normative; kernels must agree bit for bit.
// Static: a copy compiled for one instruction set must not serve all.
#pragma once

#include <cstdint>

#include "base/debug.h"

namespace acorn {

/// A real factor as `multiplier / 2^shift`.  shift in [1, 62]
struct Scale {
  int32_t multiplier;
  int32_t shift;
};

/// The one rounding rule: half up.  value + 2^(shift-1) must not overflow;  shift in [1, 62]
static constexpr int64_t RoundShift(int64_t value, int shift) {
  ACORN_DCHECK(shift >= 1 && shift <= 62);
  return (value + (int64_t{1} << (shift - 1))) >> shift;
}

static constexpr int64_t Clamp(int64_t value, int64_t low, int64_t high) {
  return value < low ? low : value > high ? high : value;
}

/// s8 activations are symmetric: -128 never occurs (the grouped kernels' 16-bit dots rely on it).
static constexpr int8_t SaturateS8(int64_t value) { return static_cast<int8_t>(Clamp(value, -127, 127)); }
static constexpr int16_t SaturateS16(int64_t value) { return static_cast<int16_t>(Clamp(value, -32767, 32767)); }
static constexpr int32_t SaturateS32(int64_t value) { return static_cast<int32_t>(Clamp(value, -2147483647, 2147483647)); }

/// value * scale, rounded.  |value| * |multiplier| must stay below 2^62
static constexpr int64_t Apply(Scale scale, int64_t value) { return RoundShift(value * scale.multiplier, scale.shift); }

/// Number of bits of `value`: 0 for 0, else floor(log2) + 1.
static constexpr int BitLength(uint64_t value) { return value == 0 ? 0 : 64 - __builtin_clzll(value); }

}  // namespace acorn
