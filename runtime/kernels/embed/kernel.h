// embed: rows of a packed weight as s16 activations. docs/ARITHMETIC.md §2 is normative. One portable implementation: a row is
// read once for each token, far from anything that a vector unit would shorten. Cannot fail.
#pragma once

#include <cstddef>
#include <cstdint>

#include "acorn_schema/layout.h"

namespace acorn::embed {

/// y[r][i] = sat16(RoundShift(q[i] * multiplier[token], shift)),  q the integers of channel `token` of the weight:
/// w (w8, w4), or the group's multiplier times w (w4 in groups)
struct Args {
  int16_t *y;             // [m, k]
  size_t y_stride;        // elements from row to row
  const int32_t *tokens;  // [m], in [0, n)
  size_t m;
  const uint8_t *w;  // the whole packed matrix [n, k]
  size_t n, k;
  size_t k_panel;  // per-channel formats: depth of a panel; 0 or k: one panel. Grouped formats ignore it
  WeightFormat format;
  Layout layout;              // LayoutHolds(layout, format)
  const int32_t *multiplier;  // [n]
  int32_t shift;              // in [1, 62]
};

void Run(const Args &args);

}  // namespace acorn::embed
