// The block Hadamard transform on the input of the down projection: offline on the weight, online on the activations.
#pragma once

#include <cstdint>

#include "base/matrix.h"

namespace acorn::compiler {

struct FfnShape {
  int64_t padded = 0;  // width of gate, up and the input of down, with zero columns at the end
  int64_t block = 1;   // 1: no transform
};

/// Largest block of 128, 64, 32 whose padding costs at most 3 % more than the cheapest one's.
FfnShape ChooseHadamardBlock(int64_t ffn);
/// Width for a plain 16-bit input: padded to the weights' group.
FfnShape WithoutHadamard(int64_t ffn, int64_t group);

/// Each block of `block` columns of every row times the orthonormal Sylvester-Hadamard matrix. Its own inverse.
/// `block` is a power of two that divides the columns. Runs on all threads.
void HadamardRows(MatrixRef rows, int64_t block);
/// The same for one row, on this thread.
void HadamardBlocks(float *row, int64_t width, int64_t block);

}  // namespace acorn::compiler
