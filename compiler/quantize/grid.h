// Weights on their integer grids: choice of channel and group scales, rounding to nearest, and GPTQ.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/matrix.h"
#include "pack/quantized_matrix.h"

namespace acorn::compiler {

enum class ScaleRule {
  kMinMax,       // the largest magnitude is the last step of the grid
  kWeightedMse,  // clip where the weighted squared error is least
};

/// Largest group multiplier for which no sum over k values of s8 inputs can reach 2^31.
int32_t LargestMultiplier(int64_t k);

/// Rounds w [n, k] to nearest. importance: [k], weight of a squared error in each column; empty: all 1.
QuantizedMatrix RoundToGrid(const Matrix &w, WeightFormat format, ScaleRule rule, const RowVector &importance);

/// What GPTQ needs of the second moments of a layer's inputs; shared by all weights that read them.
struct GptqFactor {
  std::vector<int64_t> order;  // [k]: columns in the order in which they are rounded; groups stay whole
  Matrix inverse;              // [k, k] upper triangular U with U^T U = H^-1, in that order
};
/// `damping` is relative to the mean of the diagonal of `hessian` [k, k].
GptqFactor FactorHessian(const Matrix &hessian, int64_t group, double damping);

/// What lies on both sides of a depth that a rate ends at: the error of a column there must not be made up for by one behind it.
void SeparateAt(const std::vector<int64_t> &depths, Matrix *hessian);

/// GPTQ: columns are rounded one by one in the factor's order, and the error of each is spread over those still to come
/// so that the layer's output changes least. The multipliers of a group are chosen when its turn comes.
QuantizedMatrix Gptq(const Matrix &w, WeightFormat format, const GptqFactor &factor);
/// The same on a grid that is given: scales and multipliers of `grid` stay, its integers are replaced.
void GptqOnGrid(const Matrix &w, const GptqFactor &factor, QuantizedMatrix *grid);
/// Channel scales for which the output changes least with the integers as they are; hessian: [k, k].
void RefitScales(const Matrix &w, const Matrix &hessian, QuantizedMatrix *q);

Matrix Dequantize(const QuantizedMatrix &q);

/// trace(D H D^T) / trace(W H W^T), D = W - dequantised: relative squared error of the layer's output.
double RelativeOutputError(const Matrix &w, const QuantizedMatrix &q, const Matrix &hessian);

std::string FormatName(WeightFormat format);

}  // namespace acorn::compiler
