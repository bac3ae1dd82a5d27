#include "experts/resident.h"

#include "experts/streaming.h"
#include "model/expert_record.h"

namespace acorn {
namespace {

Status Begin(void *ctx, uint32_t set, Span<const uint32_t> wanted, Span<const uint32_t>, uint32_t) {
  auto *experts = static_cast<ResidentExperts *>(ctx);
  experts->set = set;
  experts->wanted = wanted;
  experts->handed_out = 0;
  *experts->fault = {};
  return Status::kOk;
}

Status Next(void *ctx, bool, size_t *index, const uint8_t **record) {
  auto *experts = static_cast<ResidentExperts *>(ctx);
  *index = experts->handed_out;
  if (*index == experts->wanted.size()) return Status::kOk;
  const ExpertSet &set = experts->graph->expert_sets[experts->set];
  const ExpertRecord *slices = set.slices_of(experts->wanted[*index]);
  *record = experts->image.data() + slices->offset;
  uint8_t *verified = &experts->verified[static_cast<size_t>(slices - experts->graph->expert_sets[0].records.data())];
  for (uint32_t i = 0; i < experts->graph->profiles[experts->profile].slices[experts->set]; ++i) {
    if (verified[i] != 0) continue;
    const Status status = CheckExpertRecord(set, slices[i], experts->image.data() + slices[i].offset);
    if (status != Status::kOk) {
      *experts->fault = {status, experts->set, experts->wanted[*index], slices->offset, 0};
      return status;
    }
    verified[i] = 1;
  }
  ++experts->handed_out;
  return Status::kOk;
}

void Release(void *, size_t) {}
void End(void *) {}
bool IsThere(void *, uint32_t, uint32_t) { return true; }

}  // namespace

void OpenResidentExperts(ResidentExperts *experts, const Graph *graph, Span<const uint8_t> image, ExpertFault *fault) {
  experts->graph = graph;
  experts->image = image;
  experts->fault = fault;
  for (uint8_t &verified : experts->verified) verified = 0;
}

ExpertSource SourceOf(ResidentExperts *experts, uint32_t profile) {
  experts->profile = profile;
  return {experts, Begin, Next, Release, IsThere, End};
}

}  // namespace acorn
