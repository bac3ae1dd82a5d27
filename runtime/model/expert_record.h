// The content of an expert's record, which a file may have made up: checked when it arrives, before anything computes with it.
#pragma once

#include "base/status.h"
#include "model/graph.h"

namespace acorn {

/// Checksum, then every bias and multiplier against the bounds of FORMAT.md.  data: the record, 64-byte aligned
/// Returns: kOk | kDamaged | kInvalid
Status CheckExpertRecord(const ExpertSet &set, const ExpertRecord &record, const uint8_t *data);

/// The same where the record's checksum is known already, from its stripes.
Status CheckExpertRecord(const ExpertSet &set, const ExpertRecord &record, const uint8_t *data, uint64_t checksum);

}  // namespace acorn
