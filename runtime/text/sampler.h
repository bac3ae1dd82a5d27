// From logits to a token in integers: greedy, or temperature, top-k, top-p and min-p with a counter-based generator.
// docs/ARITHMETIC.md §12 is normative to the bit. Stateless: the same logits, parameters, seed and position give the
// same token on every device, in any order of calls, after any rewind. Logit bias is added to the logits before.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/exp2.h"
#include "base/fixed_point.h"
#include "base/span.h"
#include "base/status.h"

namespace acorn {

constexpr uint32_t kSamplerOneQ16 = 65536;

struct SamplerParams {
  uint64_t seed = 0;
  uint32_t temperature_q16 = 0;                      // 0: greedy; at most 100 << 16
  uint32_t top_k = 0;                                // 0: off
  uint32_t top_p_q16 = kSamplerOneQ16;               // 65536: off; at least 1
  uint32_t min_p_q16 = 0;                            // 0: off; at most 65536
  uint32_t repetition_penalty_q16 = kSamplerOneQ16;  // 65536: off; from 655 (0.01) to 100 << 16
};

/// Returns: kOk | kArgument (a parameter outside its range)
Status CheckSamplerParams(const SamplerParams &params);

/// Work buffer of Sample, 8-byte aligned: 0 for greedy without a penalty, else 8 bytes for each token of the vocabulary.
size_t SamplerWorkBytes(const SamplerParams &params, uint32_t vocab_size);

/// Draws the token at `position` of the sequence (the generator's counter).
///   logits  [vocab_size] s32; a logit in natural units is Apply(scale, logit) / 65536
///   recent  ids that the repetition penalty applies to, once each; ids outside the vocabulary are ignored
/// Ties go to the lower id.
/// Returns: kOk | kArgument (no logits, a parameter outside its range) | kMemory (work too small or misaligned)
Status Sample(int32_t *token, Span<const int32_t> logits, Scale scale, Span<const int32_t> recent, const SamplerParams &params,
              uint64_t position, Span<uint8_t> work);

/// The token with the largest logit; the lowest id of equals.  logits not empty
int32_t ArgMax(Span<const int32_t> logits);

/// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
struct PhiloxBlock {
  uint32_t word[4];
};
PhiloxBlock Philox4x32(const PhiloxBlock &counter, uint32_t key_low, uint32_t key_high);

/// The weight of a token whose logit lies delta below the largest: 2^31 * e^(-delta / T).  temperature_q16 >= 1
uint32_t SampleWeightQ31(uint64_t delta_q16, uint32_t temperature_q16);

}  // namespace acorn
