// What a profile reads and keeps for a token: sums over its steps.
#include "acorn_schema/file.h"
#include "plan/plan.h"

namespace acorn {
namespace {

// Of a step's weights, what a token reads and what all tokens together do; 0: it has none.
struct WeightBytes {
  uint64_t token, all;
};
Status WeightBytesOf(ModelReader *reader, const Step &step, WeightBytes *bytes) {
  *bytes = {0, 0};
  if (step.kind == OpKind::kLinear) {
    Weight weight;
    ACORN_TRY(reader->ReadWeight(step.linear.weight, &weight));
    bytes->token = bytes->all = PartBytes(weight, step.linear.out.width, step.linear.in.width);
  } else if (step.kind == OpKind::kExperts) {
    ExpertSet set;
    ACORN_TRY(reader->ReadExpertSet(step.experts.set, &set));
    bytes->token = step.experts.top_k * set.bytes[step.experts.slices - 1];
    for (uint32_t i = 0; i < set.count * set.slices && reader->has_experts(); ++i) {
      if (i % set.slices >= step.experts.slices) continue;
      ExpertRecord record;
      ACORN_TRY(reader->ReadExpertRecord(step.experts.set, i, &record));
      bytes->all += AlignUp(expert::RecordBytes(record.shape), kSegmentAlignment);
    }
  }
  return Status::kOk;
}

Status AddCache(ModelReader *reader, const AppendOp &op, RatePlan *plan) {
  Cache cache;
  ACORN_TRY(reader->ReadCache(op.cache, &cache));
  plan->cache_row_bytes += (uint64_t{op.k.width} + op.v.width) * cache.bits / 8;
  return Status::kOk;
}

Status AddStep(ModelReader *reader, const Step &step, RatePlan *plan) {
  WeightBytes bytes;
  ACORN_TRY(WeightBytesOf(reader, step, &bytes));
  plan->weight_bytes += bytes.token;
  if (step.kind == OpKind::kEmbedding) {
    Weight weight;
    ACORN_TRY(reader->ReadWeight(step.embedding.weight, &weight));
    const uint32_t group = GroupSize(weight.format);
    plan->weight_bytes += uint64_t{weight.k} * WeightBits(weight.format) / 8 + (group == 0 ? 0 : weight.k / group);
  } else if (step.kind == OpKind::kAppend) {
    return AddCache(reader, step.append, plan);
  } else if (step.kind == OpKind::kConv) {
    plan->state_bytes += (step.conv.taps - 1) * uint64_t{step.conv.in.width} * sizeof(int16_t);
  } else if (step.kind == OpKind::kScan) {
    plan->state_bytes += uint64_t{step.scan.x.width} * (step.scan.b.width / step.scan.groups) * sizeof(int32_t);
  }
  return Status::kOk;
}

// A weight is prunable where the last profile, the narrowest, reads less of it than the first.
Status AddPruned(ModelReader *reader, const GraphCounts &counts, uint32_t index, uint32_t profile, RatePlan *plan) {
  const auto bytes_at = [&](uint32_t p, WeightBytes *bytes) {
    Step step;
    ACORN_TRY(reader->ReadStep(BodyOf(p), index, &step));
    return WeightBytesOf(reader, step, bytes);
  };
  WeightBytes whole, least, present;
  ACORN_TRY(bytes_at(0, &whole));
  if (whole.token == 0) return Status::kOk;
  ACORN_TRY(bytes_at(counts.profiles - 1, &least));
  ACORN_TRY(bytes_at(profile, &present));
  if (least.token == whole.token) return Status::kOk;
  plan->prunable_bytes += whole.token;
  plan->left_out_bytes += whole.token - present.token;
  plan->untouched_bytes += whole.all - present.all;
  return Status::kOk;
}

}  // namespace

Status PlanRate(ModelReader *reader, const GraphCounts &counts, uint32_t profile, RatePlan *plan) {
  *plan = {};
  plan->rate = reader->RateOf(profile);
  Step step;
  for (uint32_t i = 0; i < counts.body; ++i) {
    ACORN_TRY(reader->ReadStep(BodyOf(profile), i, &step));
    ACORN_TRY(AddStep(reader, step, plan));
    ACORN_TRY(AddPruned(reader, counts, i, profile, plan));
  }
  for (uint32_t i = 0; i < counts.head; ++i) {
    ACORN_TRY(reader->ReadStep(StepList::kHead, i, &step));
    ACORN_TRY(AddStep(reader, step, plan));
  }
  return Status::kOk;
}

}  // namespace acorn
