// The gradients of what a state-space layer has beside linear layers and norms: its convolution and its recurrence, each in one
// pass over the window (docs/ARITHMETIC.md §15). As in train/backward.h, results do not depend on the number of threads.
//
// Inputs are integers, whose units stand in the specifications; gradients are by the real numbers that they stand for, or those
// of the specification. The sizes of units get none: they are those of 16-bit edges.
#pragma once

#include <cstdint>

#include "train/backward.h"
#include "write/op_integers.h"

namespace acorn::compiler {

/// y = a(v), v = bias + each channel's taps over its last rows; constant where v saturates. x: [rows, channels]. before: integers of
/// the rows in front of it, [taps - 1, channels], or null: zeros. gradient: by y, [rows, channels]. To: dx, likewise.
void ConvBackward(int64_t rows, const ConvSpec &spec, const EdgeRows &x, const int16_t *before, const float *gradient, float *dx);

/// h[t] = e^(A dt[t]) h[t - 1] + dt[t] x[t] B[t]^T, y[t] = h[t] C[t] + D x[t] for each head, dt = softplus(step + bias) within its
/// limits, outside of which it is constant, as y is where it saturates. A state's rounding and saturation count as the identity.
struct ScanShape {
  int64_t rows, head_dim, columns;  // columns of a channel's state
};
struct ScanEdges {
  const int32_t *before;  // state in front of the first row, [heads, head_dim, columns], or null: zeros
  EdgeRows x;          // [rows, heads * head_dim]
  EdgeRows b, c;       // [rows, groups * columns]
  EdgeRows time_step;  // [rows, heads], before bias and softplus
  EdgeRows y;          // as x
};
struct ScanGradients {
  float *x, *b, *c, *time_step;  // contiguous, as the edges
  float *decay, *skip;           // [heads], by A and D; added to
};
/// gradient: by y. States are computed anew from those at the start of every 32nd row, so that of the states of a window, rows *
/// head_dim * columns for each head, a few lie in memory.
void ScanBackward(const ScanShape &shape, const ScanSpec &spec, const ScanEdges &edges, const float *gradient,
                  const ScanGradients &to);

}  // namespace acorn::compiler
