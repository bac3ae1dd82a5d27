#include "sampling.h"

#include <cstdio>

#include "error.h"

namespace acorn::program {
namespace {

constexpr uint64_t kMostLookup = 63;

struct Context {
  Device *device;
  Digests *digests;
  const std::function<void(const char *, size_t)> *text;
};

int OnToken(void *ctx, int32_t token, const char *text, size_t bytes) {
  const Context &context = *static_cast<Context *>(ctx);
  if (context.digests != nullptr) {
    context.digests->AddId(token);
    const int32_t *logits = nullptr;
    if (acorn_session_logits(context.device->session(), &logits) == ACORN_OK) {
      context.digests->AddLogits(logits, context.device->info().vocab_size);
    }
  }
  if (bytes > 0) (*context.text)(text, bytes);
  return 0;
}

}  // namespace

void AddSamplingOptions(Arguments *arguments, SamplingOptions *options) {
  arguments->Number("-n", 1, kLongestContext, &options->max_tokens, "most tokens to answer with (default: until the context is full)");
  arguments->Decimal("--temperature", 100, &options->temperature, "0: always the likeliest token (default)");
  arguments->Number("--top-k", 1, UINT32_MAX, &options->top_k, "choose among the K likeliest tokens");
  arguments->Decimal("--top-p", 1, &options->top_p, "choose among the likeliest tokens that make up this probability");
  arguments->Decimal("--min-p", 1, &options->min_p, "drop tokens less likely than this part of the likeliest");
  arguments->Decimal("--repetition-penalty", 100, &options->repetition_penalty,
                     "above 1: tokens already there become less likely");
  arguments->Number("--repetition-window", 1, kLongestContext, &options->repetition_window,
                    "last tokens that are penalised (default 64)");
  arguments->Number("--seed", 0, UINT64_MAX, &options->seed, "the same seed gives the same text on every machine (default 0)");
  arguments->Texts("--stop", &options->stop, "end where the answer has this text; may be repeated");
}

void AddLookupOption(Arguments *arguments, SamplingOptions *options) {
  arguments->Number("--lookup", 1, kMostLookup, &options->lookup,
                    "guess up to N tokens ahead from what the conversation said before: the same answer, faster where text repeats");
}

void CheckSampling(const SamplingOptions &options) {
  // As acorn_sampling and acorn_generation have it.
  constexpr uint32_t kLeastPenaltyQ16 = 655;
  constexpr size_t kMostStops = 16, kLongestStop = 63;
  if (options.repetition_penalty != 0 && options.repetition_penalty < kLeastPenaltyQ16) {
    Fail(ExitCode::kUsage, "--repetition-penalty: 0, which is none, or a number from 0.01 to 100 is wanted");
  }
  if (options.stop.size() > kMostStops) {
    Fail(ExitCode::kUsage, "--stop: %zu texts, at most %zu are taken", options.stop.size(), kMostStops);
  }
  for (const std::string &stop : options.stop) {
    if (stop.empty() || stop.size() > kLongestStop) {
      Fail(ExitCode::kUsage, "--stop: a text of %zu bytes, 1 to %zu are wanted", stop.size(), kLongestStop);
    }
  }
}

DeviceNeeds WithLookup(DeviceNeeds needs, const SamplingOptions &options) {
  if (options.lookup != 0) needs.logit_rows = static_cast<uint32_t>(options.lookup) + 1;
  return needs;
}

void CheckLookup(const Device &device, const SamplingOptions &options) {
  if (options.lookup == 0) return;
  if (device.plan().chunk_tokens <= options.lookup) {
    const bool short_context = device.plan().context_tokens <= options.lookup;  // which a chunk does not exceed
    Fail(ExitCode::kUsage, "--lookup %llu: %s must be larger", static_cast<unsigned long long>(options.lookup),
         short_context ? "the context" : "--chunk");
  }
  if (device.plan().state_bytes != 0) {
    Fail(ExitCode::kUsage, "--lookup: %s has state-space layers, which cannot take tokens back", device.options().file.c_str());
  }
  if (device.options().cache_routing_q16 != 0) {
    Fail(ExitCode::kUsage, "--lookup and --cache-aware-routing exclude each other: guesses would change the experts in memory");
  }
}

std::string DescribeLookup(const Device &device, const SamplingOptions &options) {
  if (options.lookup == 0) return "";
  const Speeds speeds = ReadSpeeds(device);
  char text[96];
  std::snprintf(text, sizeof text, "%llu tokens guessed, %llu of them right", static_cast<unsigned long long>(speeds.drafted_tokens),
                static_cast<unsigned long long>(speeds.accepted_tokens));
  return text;
}

void AddTimeLimit(Arguments *arguments, SamplingOptions *options) {
  arguments->Number("--time-limit", 1, UINT32_MAX, &options->time_limit_ms, "milliseconds for reading the prompt and answering; what there is then is the answer");
}

void StartTime(Device *device, const SamplingOptions &options) {
  Check(acorn_session_set_deadline(device->session(), options.time_limit_ms), "setting the time limit");
}

void TellTimeIsOver(const SamplingOptions &options, const char *before) {
  std::fprintf(stderr, "acorn: --time-limit %llu: the time was over before %s\n",
               static_cast<unsigned long long>(options.time_limit_ms), before);
}

Generated Generate(Device *device, const SamplingOptions &options, Digests *digests,
                   const std::function<void(const char *, size_t)> &text) {
  Context context{device, digests, &text};
  std::vector<const char *> stop;
  for (const std::string &string : options.stop) stop.push_back(string.c_str());
  acorn_generation generation = {};
  generation.struct_size = sizeof generation;
  generation.max_tokens = static_cast<uint32_t>(options.max_tokens);
  generation.sampling.struct_size = sizeof generation.sampling;
  generation.sampling.temperature_q16 = options.temperature;
  generation.sampling.top_k = static_cast<uint32_t>(options.top_k);
  generation.sampling.top_p_q16 = options.top_p;
  generation.sampling.min_p_q16 = options.min_p;
  generation.sampling.repetition_penalty_q16 = options.repetition_penalty;
  generation.sampling.repetition_window = static_cast<uint32_t>(options.repetition_window);
  generation.sampling.seed = options.seed;
  generation.stop_strings = stop.data();
  generation.stop_count = stop.size();
  generation.draft_tokens = static_cast<uint32_t>(options.lookup);
  generation.callback = OnToken;
  generation.ctx = &context;
  Generated result;
  const acorn_status status = acorn_session_generate(device->session(), &result.reason, &result.tokens, &generation);
  if (status == ACORN_ERR_CANCELLED || status == ACORN_ERR_DEADLINE) {
    result.stopped = status;
    return result;
  }
  if (status == ACORN_ERR_ARGUMENT) Fail(ExitCode::kUsage, "a stop string or a sampling option is out of its range");
  device->Check(status, "generating");
  return result;
}

}  // namespace acorn::program
