// Options of generation, and a generation that streams its text and keeps the digests.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "acorn.h"
#include "arguments.h"
#include "device.h"
#include "statistics.h"

namespace acorn::program {

struct SamplingOptions {
  uint64_t max_tokens = 0;                                                 // 0: until the context is full
  uint32_t temperature = 0, top_p = 0, min_p = 0, repetition_penalty = 0;  // Q16
  uint64_t top_k = 0, repetition_window = 64, seed = 0;
  uint64_t time_limit_ms = ACORN_NO_DEADLINE;
  std::vector<std::string> stop;
  uint64_t lookup = 0;  // tokens that are guessed along with each one; 0: none
};

void AddSamplingOptions(Arguments *arguments, SamplingOptions *options);
/// Throws Failure (usage) with the option and its limit: before a model is opened, or a conversation begun that would be lost.
void CheckSampling(const SamplingOptions &options);
/// --lookup, for programs whose device is made with WithLookup.
void AddLookupOption(Arguments *arguments, SamplingOptions *options);
DeviceNeeds WithLookup(DeviceNeeds needs, const SamplingOptions &options);
/// Throws Failure (usage) where the model, or another option, leaves --lookup without effect.
void CheckLookup(const Device &device, const SamplingOptions &options);
/// How many tokens it has guessed, and how many rightly; empty without it.
std::string DescribeLookup(const Device &device, const SamplingOptions &options);

struct Generated {
  uint32_t reason = 0;              // ACORN_STOP_…
  acorn_status stopped = ACORN_OK;  // ACORN_ERR_CANCELLED, ACORN_ERR_DEADLINE: there is no reason then
  size_t tokens = 0;
};

/// --time-limit, for commands that call StartTime.
void AddTimeLimit(Arguments *arguments, SamplingOptions *options);
/// The time of an answer runs from here on.
void StartTime(Device *device, const SamplingOptions &options);
/// Tells on the standard error that the time was over, before what, and what follows from that.
void TellTimeIsOver(const SamplingOptions &options, const char *before);

/// Generates from the session's present logits. `text` gets what is to be shown, piece by piece.
/// digests: NULL, or gets the logits that follow each accepted token, and the ids.
Generated Generate(Device *device, const SamplingOptions &options, Digests *digests,
                   const std::function<void(const char *, size_t)> &text);

}  // namespace acorn::program
