#include "model/expert_record.h"

#include "acorn_schema/file.h"

namespace acorn {
namespace {

// (|acc| + |bias|) fits s32, and its product with any multiplier 62 bits.
bool InBounds(const int32_t *bias, const int32_t *multipliers, uint32_t n, uint64_t bound) {
  uint32_t largest_bias = 0, largest_multiplier = 0;
  for (uint32_t i = 0; i < n; ++i) {
    const uint32_t magnitude = bias[i] < 0 ? 0u - static_cast<uint32_t>(bias[i]) : static_cast<uint32_t>(bias[i]);
    if (magnitude > largest_bias) largest_bias = magnitude;
    const auto multiplier = static_cast<uint32_t>(multipliers[i]);  // a negative one is above every limit
    if (multiplier > largest_multiplier) largest_multiplier = multiplier;
  }
  const uint64_t sum = bound + largest_bias;
  return sum >> 31 == 0 && largest_multiplier <= INT32_MAX && sum * largest_multiplier <= uint64_t{1} << 62;
}

}  // namespace

Status CheckExpertRecord(const ExpertSet &set, const ExpertRecord &record, const uint8_t *data) {
  return CheckExpertRecord(set, record, data, RecordChecksum(data, expert::RecordBytes(record.shape)));
}

Status CheckExpertRecord(const ExpertSet &set, const ExpertRecord &record, const uint8_t *data, uint64_t checksum) {
  if (checksum != record.checksum) return Status::kDamaged;
  for (size_t part = 0; part < expert::kParts; ++part) {
    const expert::Place place = expert::PlaceOf(record.shape, part);
    const auto *bias = reinterpret_cast<const int32_t *>(data + place.bias);
    const auto *multipliers = reinterpret_cast<const int32_t *>(data + place.multipliers);
    const uint32_t n = expert::MatrixOf(record.shape, part).n;
    if (!InBounds(bias, multipliers, n, part == expert::kDown ? set.down_bound : set.in_bound)) return Status::kInvalid;
  }
  return Status::kOk;
}

}  // namespace acorn
