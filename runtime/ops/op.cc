#include "ops/op.h"

namespace acorn {

KernelSet SelectKernels(uint32_t features) {
  return {features,
          add::Select(features),
          append::Select(features),
          attention::Select(features),
          glu::Select(features),
          hadamard::Select(features),
          layernorm::Select(features),
          requantise::Select(features),
          rmsnorm::Select(features),
          rotate::Select(features)};
}

void RunStep(const Step &step, const RunContext &context) {
  switch (step.kind) {
    case OpKind::kEmbedding: return Run(step.embedding, context);
    case OpKind::kRmsNorm: return Run(step.rms_norm, context);
    case OpKind::kLinear: return Run(step.linear, context);
    case OpKind::kRotate: return Run(step.rotate, context);
    case OpKind::kAppend: return Run(step.append, context);
    case OpKind::kAttention: return Run(step.attention, context);
    case OpKind::kGlu: return Run(step.glu, context);
    case OpKind::kHadamard: return Run(step.hadamard, context);
    case OpKind::kAdd: return Run(step.add, context);
    case OpKind::kLayerNorm: return Run(step.layer_norm, context);
  }
}

KernelName NameOf(const Step &step, const Graph &graph, const KernelSet &kernels) {
  switch (step.kind) {
    case OpKind::kEmbedding: return {"embed", "scalar"};
    case OpKind::kRmsNorm: return {"rmsnorm", kernels.rmsnorm->name};
    case OpKind::kLinear: {
      const Weight &weight = graph.weights[step.linear.weight];
      const char *family = "";
      switch (weight.format) {
        case WeightFormat::kW8: family = "gemm_s8_w8"; break;
        case WeightFormat::kW4: family = "gemm_s8_w4"; break;
        case WeightFormat::kW4G32: family = "gemm_s8_w4g32"; break;
        case WeightFormat::kW4G64: family = "gemm_s8_w4g64"; break;
        case WeightFormat::kW4G128: family = "gemm_s8_w4g128"; break;
      }
      return {family, SelectGemm(weight.format, weight.layout, kernels.features)->name};
    }
    case OpKind::kRotate: return {"rotate", kernels.rotate->name};
    case OpKind::kAppend: return {"append", kernels.append->name};
    case OpKind::kAttention: return {"attention", kernels.attention->name};
    case OpKind::kGlu: return {"glu", kernels.glu->name};
    case OpKind::kHadamard: return {"hadamard", kernels.hadamard->name};
    case OpKind::kAdd: return {"add", kernels.add->name};
    case OpKind::kLayerNorm: return {"layernorm", kernels.layernorm->name};
  }
  return {"", ""};
}

}  // namespace acorn
