#include "train/rounding.h"

#include "base/parallel.h"
#include "base/progress.h"
#include "quantize/grid.h"
#include "train/product.h"

namespace acorn::compiler {
namespace {

constexpr double kDamping = 0.01;  // as in the closed form

Matrix ToMatrix(const torch::Tensor &tensor) {
  const torch::Tensor dense = tensor.contiguous();
  return Eigen::Map<const Matrix>(dense.data_ptr<float>(), dense.size(0), dense.size(1));
}

}  // namespace

void RoundOnLearnedGrids(const Shaping &shaping, const std::vector<std::vector<int32_t>> &windows, ModelTwin *twin,
                         QuantizedModel *model) {
  std::vector<torch::Tensor> streams;
  streams.reserve(windows.size());
  for (const std::vector<int32_t> &ids : windows) streams.push_back(twin->EnterLayers(ids));
  const auto layers = static_cast<int64_t>(model->layers.size());
  Progress progress("rounding on learned grids", layers);
  for (int64_t layer = 0; layer < layers; ++layer) {
    torch::Tensor moments[Shaping::kWeights];
    for (size_t w = 0; w < windows.size(); ++w) {
      std::vector<torch::Tensor> inputs;
      twin->RunLayer(layer, windows[w], streams[w], &inputs);
      for (size_t i = 0; i < inputs.size(); ++i) {
        const torch::Tensor &x = inputs[i];
        if (!moments[i].defined()) moments[i] = torch::zeros({x.size(1), x.size(1)});
        moments[i].add_(Product(x.t(), x));
      }
    }
    QuantizedLayer &to = model->layers[static_cast<size_t>(layer)];
    QuantizedMatrix *const weights[] = {&to.qkv, &to.o, &to.gate_up, &to.down};
    const int64_t count = to.down.n == 0 ? Shaping::kGateUp : Shaping::kWeights;  // without an FFN two
    ParallelFor(count, [&](int64_t i) {
      const Matrix hessian = ToMatrix(moments[i]), real = shaping.Real(layer, static_cast<Shaping::Weight>(i));
      GptqOnGrid(real, FactorHessian(hessian, weights[i]->group(), kDamping), weights[i]);
      RefitScales(real, hessian, weights[i]);
    });
    twin->RepackLayer(layer);
    twin->Refresh();
    for (size_t w = 0; w < windows.size(); ++w) streams[w] = twin->RunLayer(layer, windows[w], streams[w], nullptr);
    progress.Update(layer + 1);
  }
  progress.Finish();
}

}  // namespace acorn::compiler
