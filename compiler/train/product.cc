#include "train/product.h"

#include <ATen/Parallel.h>

#include <algorithm>

namespace acorn::compiler {
namespace {

constexpr int64_t kTaskColumns = 288;  // half the width of SmolLM2-135M: a task for each of two cores where it is least

}  // namespace

torch::Tensor Product(const torch::Tensor &a, const torch::Tensor &b) {
  const int64_t columns = b.size(1);
  torch::Tensor product = torch::empty({a.size(0), columns}, a.options());
  at::parallel_for(0, (columns + kTaskColumns - 1) / kTaskColumns, 1, [&](int64_t begin, int64_t end) {
    const torch::NoGradGuard no_autograd;  // holds for one thread
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task * kTaskColumns, width = std::min(kTaskColumns, columns - first);
      torch::Tensor out = product.narrow(1, first, width);
      at::mm_out(out, a, b.narrow(1, first, width));
    }
  });
  return product;
}

}  // namespace acorn::compiler
