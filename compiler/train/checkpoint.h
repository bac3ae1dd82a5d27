// What training goes on from: the quantised model and everything that the trainer asks to keep, in an archive.
#pragma once

#include <torch/torch.h>

#include <string>
#include <vector>

#include "quantize/quantized_model.h"
#include "train/archive.h"

namespace acorn::compiler {

void PutModel(Archive *archive, const QuantizedModel &model);
QuantizedModel GetModel(const Archive &archive);

/// Float or int64 tensors; shapes are the reader's business: GetTensors() fills tensors that have theirs.
void PutTensors(Archive *archive, const std::string &name, const std::vector<torch::Tensor> &tensors);
void GetTensors(const Archive &archive, const std::string &name, std::vector<torch::Tensor> *tensors);

}  // namespace acorn::compiler
