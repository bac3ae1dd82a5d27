// Matrix: the compiler's one dense type, float32 row-major, as Eigen sees it.
// Every target that includes this must be compiled with the options of acorn_compiler (Eigen's alignment depends on
// the instruction set), which CMake guarantees by linking that library.
#pragma once

#include <Eigen/Core>

namespace acorn::compiler {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using RowVector = Eigen::Matrix<float, 1, Eigen::Dynamic, Eigen::RowMajor>;
/// A view that a function may write through; binds to a Matrix and to a block of its rows without a copy.
using MatrixRef = Eigen::Ref<Matrix, 0, Eigen::OuterStride<>>;
using ConstMatrixRef = Eigen::Ref<const Matrix, 0, Eigen::OuterStride<>>;

}  // namespace acorn::compiler
