// The element-wise halves of the gradients, each one pass over its rows, on all threads. Rows are cut into tasks of a fixed size
// and sums over rows are added task by task, so results do not depend on the number of threads.
//
// Throughout: an edge's integers q stand for scale * (q - zero_point); "passed" is the gradient of the value before rounding,
// which is that of the value after it, or 0 where the value saturates.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace acorn::compiler {

/// Integers of an edge as they lie in a buffer.
struct EdgeRows {
  const void *data = nullptr;  // of the first row, first column
  size_t stride = 0;           // elements from row to row
  bool bytes = false;          // int8, else int16
  float scale = 1;
  float zero_point = 0;
  float limit = 127;
};

/// Sums for the unit and zero point of a rounded edge.
struct EdgeSums {
  double log_scale = 0;  // by the logarithm of the unit
  double zero_point = 0;
};

/// RMSNorm, or with `centred` LayerNorm.
struct NormShape {
  int64_t rows, groups, width;  // width of a group
  int64_t gains;                // width, or one for each column: groups * width
  double eps;
  bool centred;
};
/// gain, bias: [gains]; bias null: none. gradient: [rows, groups * width] by the output, contiguous. To: dx by the input, likewise;
/// gain_gradient, bias_gradient: [gains], added to.
EdgeSums NormBackward(const NormShape &shape, const EdgeRows &x, const EdgeRows &y, const float *gain, const float *bias,
                      const float *gradient, float *dx, float *gain_gradient, float *bias_gradient);

/// scaled = gradient * row_scale; rows_gradient[n] += sum gradient * (y - bias), bias_gradient[n] += sum gradient, where y is the
/// output times out_scale[n].  y: int16 or int32
struct LinearShape {
  int64_t rows, n;
};
void LinearBackward(const LinearShape &shape, const int16_t *y16, const int32_t *y32, size_t y_stride, const float *out_scale,
                    const float *bias, const float *row_scale, const float *gradient, float *scaled, float *rows_gradient,
                    float *bias_gradient);

/// Heads of dim values, rotated by cosine and sine [rows, half] (null: not rotated), then rounded to units of their own, within
/// [-limit, limit] of them. x.scale: of the values before.
struct HeadShape {
  int64_t rows, heads, dim, half;
  float limit;
};
void HeadsBackward(const HeadShape &shape, const EdgeRows &x, const float *cosine, const float *sine, const float *head_scale,
                   const float *gradient, float *dx, double *log_scale);

/// Blocks through the orthonormal Hadamard transform, then rounded. Returns sums of `parts` equal parts of the columns.
struct HadamardShape {
  int64_t rows, width, block, parts;
};
std::vector<EdgeSums> HadamardBackward(const HadamardShape &shape, const EdgeRows &x, const EdgeRows &y, const float *gradient,
                                       float *dx);

/// a(x) / x of an activation and its slope at x, from a table of 514 factors at (j - 256) / 16.
struct ActivationFactor {
  float value, slope;
};
inline ActivationFactor FactorAt(const float *table, float x) {
  const float place = std::min(std::max(x * 16 + 256, 0.0f), 512.0f);
  const int32_t j = std::min(static_cast<int32_t>(place), 511);
  const float slope = table[j + 1] - table[j];
  return {table[j] + slope * (place - static_cast<float>(j)), place > 0 && place < 512 ? slope * 16 : 0.0f};
}

/// y = a(gate) * up with a(x) = x * T(x), T from a table as above.
void GluBackward(int64_t rows, int64_t width, const EdgeRows &gate, const EdgeRows &up, const float *table,
                 const float *gradient, float *dgate, float *dup);

/// Causal attention of one layer.
struct AttentionShape {
  int64_t rows, prefix, heads, kv_heads, dim;
};
struct AttentionInputs {
  EdgeRows q;                    // [rows, heads, dim]
  const float *k;                // [kv_heads, prefix + rows, dim], integers
  const float *v;                // [kv_heads, prefix + rows, dim], real
  EdgeRows y;                    // [rows, heads, dim]
  std::vector<float> score_scale;  // [heads]
  const float *gradient;         // [rows, heads, dim]
};
/// dq: [rows, heads, dim], dk: [kv_heads, prefix + rows, dim], both by integers; dv likewise, by real values.
EdgeSums AttentionBackward(const AttentionShape &shape, const AttentionInputs &in, float *dq, float *dk, float *dv);

}  // namespace acorn::compiler
