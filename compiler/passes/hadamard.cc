#include "passes/hadamard.h"

#include <algorithm>
#include <cmath>

#include "base/parallel.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kRowsPerTask = 64;

int64_t AlignUp(int64_t value, int64_t alignment) { return (value + alignment - 1) / alignment * alignment; }

void TransformBlock(float *x, int64_t block) {
  for (int64_t half = 1; half < block; half *= 2) {
    for (int64_t first = 0; first < block; first += 2 * half) {
      for (int64_t i = first; i < first + half; ++i) {
        const float a = x[i], b = x[i + half];
        x[i] = a + b;
        x[i + half] = a - b;
      }
    }
  }
  const float scale = 1 / std::sqrt(static_cast<float>(block));
  for (int64_t i = 0; i < block; ++i) x[i] *= scale;
}

}  // namespace

FfnShape ChooseHadamardBlock(int64_t ffn) {
  const int64_t cheapest = AlignUp(ffn, 32);
  for (const int64_t block : {128, 64}) {
    const int64_t padded = AlignUp(ffn, block);
    if (padded * 100 <= cheapest * 103) return {padded, block};
  }
  return {cheapest, 32};
}

FfnShape WithoutHadamard(int64_t ffn, int64_t group) { return {AlignUp(ffn, std::max<int64_t>(group, 1)), 1}; }

void HadamardBlocks(float *row, int64_t width, int64_t block) {
  for (int64_t first = 0; block > 1 && first < width; first += block) TransformBlock(row + first, block);
}

void HadamardRows(MatrixRef rows, int64_t block) {
  if (block == 1) return;
  ParallelFor((rows.rows() + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task) {
    const int64_t end = std::min<int64_t>(rows.rows(), (task + 1) * kRowsPerTask);
    for (int64_t r = task * kRowsPerTask; r < end; ++r) {
      HadamardBlocks(rows.data() + r * rows.outerStride(), rows.cols(), block);
    }
  });
}

}  // namespace acorn::compiler
