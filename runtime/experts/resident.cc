#include "experts/resident.h"

#include "model/expert_record.h"

namespace acorn {
namespace {

Status Begin(void *ctx, uint32_t set, Span<const uint32_t> wanted, Span<const uint32_t>, uint32_t) {
  auto *experts = static_cast<ResidentExperts *>(ctx);
  experts->set = set;
  experts->wanted = wanted;
  experts->handed_out = 0;
  return Status::kOk;
}

Status Next(void *ctx, bool, size_t *index, const uint8_t **record) {
  auto *experts = static_cast<ResidentExperts *>(ctx);
  *index = experts->handed_out;
  if (*index == experts->wanted.size()) return Status::kOk;
  const ExpertSet &set = experts->graph->expert_sets[experts->set];
  const ExpertRecord &facts = set.records[experts->wanted[*index]];
  *record = experts->image.data() + facts.offset;
  uint8_t &verified = experts->verified[static_cast<size_t>(&facts - experts->graph->expert_sets[0].records.data())];
  if (verified == 0) {
    ACORN_TRY(CheckExpertRecord(set, facts, *record));
    verified = 1;
  }
  ++experts->handed_out;
  return Status::kOk;
}

void Release(void *, size_t) {}
void End(void *) {}
bool IsThere(void *, uint32_t, uint32_t) { return true; }

}  // namespace

void OpenResidentExperts(ResidentExperts *experts, const Graph *graph, Span<const uint8_t> image) {
  experts->graph = graph;
  experts->image = image;
  for (uint8_t &verified : experts->verified) verified = 0;
}

ExpertSource SourceOf(ResidentExperts *experts) { return {experts, Begin, Next, Release, IsThere, End}; }

}  // namespace acorn
