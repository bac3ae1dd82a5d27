#include "ops/op.h"

namespace acorn {
namespace {

const char *FamilyOf(WeightFormat format) {
  switch (format) {
    case WeightFormat::kW8: return "gemm_s8_w8";
    case WeightFormat::kW4: return "gemm_s8_w4";
    case WeightFormat::kW4G32: return "gemm_s8_w4g32";
    case WeightFormat::kW4G64: return "gemm_s8_w4g64";
    case WeightFormat::kW4G128: return "gemm_s8_w4g128";
    case WeightFormat::kW2G32: return "gemm_s8_w2g32";
  }
  return "";
}

}  // namespace

KernelSet SelectKernels(uint32_t features) {
  return {features,
          add::Select(features),
          append::Select(features),
          attention::Select(features),
          conv::Select(features),
          glu::Select(features),
          hadamard::Select(features),
          layernorm::Select(features),
          requantise::Select(features),
          rmsnorm::Select(features),
          rotate::Select(features),
          scan::Select(features)};
}

Status RunStep(const Step &step, const RunContext &context) {
  switch (step.kind) {
    case OpKind::kEmbedding: Run(step.embedding, context); break;
    case OpKind::kRmsNorm: Run(step.rms_norm, context); break;
    case OpKind::kLinear: Run(step.linear, context); break;
    case OpKind::kRotate: Run(step.rotate, context); break;
    case OpKind::kAppend: Run(step.append, context); break;
    case OpKind::kAttention: Run(step.attention, context); break;
    case OpKind::kGlu: Run(step.glu, context); break;
    case OpKind::kHadamard: Run(step.hadamard, context); break;
    case OpKind::kAdd: Run(step.add, context); break;
    case OpKind::kLayerNorm: Run(step.layer_norm, context); break;
    case OpKind::kExperts: return Run(step.experts, context);
    case OpKind::kConv: Run(step.conv, context); break;
    case OpKind::kScan: Run(step.scan, context); break;
  }
  return Status::kOk;
}

KernelName NameOf(const Step &step, const Graph &graph, const KernelSet &kernels) {
  switch (step.kind) {
    case OpKind::kEmbedding: return {"embed", "scalar"};
    case OpKind::kRmsNorm: return {"rmsnorm", kernels.rmsnorm->name};
    case OpKind::kLinear: {
      const Weight &weight = graph.weights[step.linear.weight];
      return {FamilyOf(weight.format), SelectGemm(weight.format, weight.layout, kernels.features)->name};
    }
    case OpKind::kRotate: return {"rotate", kernels.rotate->name};
    case OpKind::kAppend: return {"append", kernels.append->name};
    case OpKind::kAttention: return {"attention", kernels.attention->name};
    case OpKind::kGlu: return {"glu", kernels.glu->name};
    case OpKind::kHadamard: return {"hadamard", kernels.hadamard->name};
    case OpKind::kAdd: return {"add", kernels.add->name};
    case OpKind::kLayerNorm: return {"layernorm", kernels.layernorm->name};
    case OpKind::kExperts: {
      const expert::Matrix gate = expert::MatrixOf(graph.expert_sets[step.experts.set].records[0].shape, expert::kGate);
      return {"experts", SelectGemm(gate.format, gate.layout, kernels.features)->name};
    }
    case OpKind::kConv: return {"conv", kernels.conv->name};
    case OpKind::kScan: return {"scan", kernels.scan->name};
  }
  return {"", ""};
}

}  // namespace acorn
