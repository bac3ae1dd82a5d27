// Merged rotations: orthogonal matrices that go into a model's weights offline, so that no channel stands far above the
// others when weights and activations are rounded. The model computes what it did before, and the device does nothing new.
//   R1 turns the residual stream: the embedding's rows, the outputs of o and down, the inputs of q, k, v, gate, up and head.
//      The norms' gains go into the weights behind them first, since a norm commutes with a rotation only where it has none.
//   R2 turns each KV head's values: the outputs of v and the inputs of o, alike for all query heads of a KV head.
#pragma once

#include <cstdint>
#include <vector>

#include "base/matrix.h"
#include "import/source_model.h"

namespace acorn::compiler {

enum class RotationKind { kNone, kR2, kR1R2 };
const char *RotationName(RotationKind kind);

/// Null where a model allows the rotation, else why it is refused. docs/COMPILER.md shows the table for all families.
const char *RefusalOf(const ModelConfig &config, RotationKind kind);

/// Random signs, then an orthonormal Hadamard matrix in every block: a Kronecker product of matrices of order 28, 20 and 12
/// (Paley) with one of a power of two (Sylvester).
class Rotation {
 public:
  /// The same width and seed give the same matrix on every machine.
  Rotation(int64_t width, uint64_t seed);
  /// The largest divisor of `width` for which there is such a matrix; 1 when the width is odd.
  static int64_t Block(int64_t width);
  /// rows [n, width] = rows * R, in place, on all threads.
  void Apply(MatrixRef rows) const;

 private:
  RowVector signs_;              // [width]
  int64_t power_ = 1;            // order of the Sylvester part
  std::vector<Matrix> factors_;  // orthonormal, of order 28, 20 or 12
};

/// `source`, whose layers stand in its own order, with rotations merged in. A head that is the embedding becomes a matrix of its own under R1, because the final
/// norm's gain goes into it. `source` outlives this.
class RotatedModel final : public SourceModel {
 public:
  /// RefusalOf(source.config(), kind) is null.
  RotatedModel(const SourceModel &source, RotationKind kind, uint64_t seed);
  Matrix LoadRows(TensorRole role, int64_t layer, int64_t first, int64_t count) const override;

 private:
  void RotateStream(Matrix *tensor, TensorRole role, int64_t layer) const;
  void RotateValues(Matrix *tensor, TensorRole role, int64_t layer) const;

  const SourceModel &source_;
  RotationKind kind_;
  uint64_t seed_;
  Rotation stream_;
};

}  // namespace acorn::compiler
