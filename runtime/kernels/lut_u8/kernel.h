// lut_u8: a table of 256 bytes over a row of bytes (a step from 8 bits to 8 bits: an activation, a change of scale).
//   y[i] = table[x[i]],  i in [0, n)
// All variants are bit-equal and touch exactly n bytes; x and y may be the same row.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/span.h"

namespace acorn::lut_u8 {

struct Args {
  uint8_t *y;            // [n]
  const uint8_t *x;      // [n]
  const uint8_t *table;  // [256]
  size_t n;
};

struct Kernel {
  const char *name;
  uint32_t needs;  // Feature bits
  void (*run)(const Args &args);
};

/// Every variant of this build, best first, scalar last.
Span<const Kernel> Kernels();

/// The best variant for a set of Feature bits; never null.
const Kernel *Select(uint32_t features);

}  // namespace acorn::lut_u8
