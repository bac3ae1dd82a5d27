// acorn trace: records which experts a model chooses, for `acorn replay`.
#include <algorithm>
#include <cinttypes>
#include <cstdio>

#include "commands.h"
#include "error.h"
#include "random_ids.h"
#include "routing_recorder.h"
#include "sampling.h"
#include "statistics.h"

namespace acorn::program {
namespace {

struct TraceOptions {
  std::vector<std::string> prompts;
  std::string text, out;
  uint64_t random = 0, prompt_tokens = 0;
  bool chat = false, json = false;
};

/// Feeds ids in windows of what the context holds, each from an empty conversation: the first of a window in chunks, the others
/// one by one, as they are and not as the model would go on.
void FeedIds(const Device &device, const std::vector<int32_t> &ids, uint64_t prompt_tokens) {
  acorn_session *session = device.session();
  const size_t window = device.plan().context_tokens;
  for (size_t begin = 0; begin < ids.size(); begin += window) {
    acorn_session_reset(session);
    const size_t count = std::min(window, ids.size() - begin);
    const size_t prompt = std::min<size_t>(prompt_tokens, count);
    if (prompt != 0) device.Check(acorn_session_prefill(session, &ids[begin], prompt), "prefill");
    for (size_t i = prompt; i < count; ++i) device.Check(acorn_session_decode(session, nullptr, ids[begin + i]), "decode");
  }
}

void Answer(Device *device, const TraceOptions &options, const SamplingOptions &sampling) {
  const std::string prompt = options.prompts[0] == "-" ? ReadWholeFile("-") : options.prompts[0];
  const std::vector<int32_t> ids = device->Encode(prompt, options.chat ? ACORN_TEXT_CHAT : ACORN_TEXT_BOS);
  if (ids.empty()) Fail(ExitCode::kUsage, "the prompt is empty");
  const acorn_status status = acorn_session_prefill(device->session(), ids.data(), ids.size());
  if (status == ACORN_ERR_CONTEXT_FULL) {
    Fail(ExitCode::kUsage, "the prompt has %zu tokens, the context holds %u", ids.size(), device->plan().context_tokens);
  }
  device->Check(status, "reading the prompt");
  Generate(device, sampling, nullptr, [](const char *, size_t) {});
}

void Write(const std::string &path, const RoutingTrace &trace) {
  RoutingTraceWriter writer(path, trace.facts);
  for (const RoutingChunk &chunk : trace.chunks) writer.Append(chunk);
  writer.Finish();
}

uint64_t DecodedOf(const RoutingTrace &trace) {
  return static_cast<uint64_t>(
      std::count_if(trace.chunks.begin(), trace.chunks.end(), [](const RoutingChunk &chunk) { return chunk.tokens == 1; }));
}

void PrintJson(const Device &device, const RoutingTrace &trace) {
  const TraceFacts &facts = trace.facts;
  const RoutingLocality locality = LocalityOf(trace);
  JsonWriter json;
  json.Number("tokens", trace.Tokens());
  json.Number("decoded_tokens", DecodedOf(trace));
  json.Number("layers", facts.layers);
  json.Number("experts_of_a_layer", facts.experts);
  json.Number("top_k", facts.top_k);
  json.Number("slot_bytes", facts.SlotBytes());
  json.Decimal("repeated", locality.repeated);
  json.Decimal("repeated_by_chance", locality.repeated_by_chance);
  json.Decimal("popular_quarter", locality.popular_quarter);
  if (facts.guesses) {
    const Foresight foresight = ForesightOf(trace);
    json.Decimal("foreseen", foresight.of_choices);
    json.Decimal("guesses_right", foresight.of_guesses);
  }
  json.Hex("routing_digest", DigestOf(trace));
  json.Number("layer_ns", facts.layer_ns);
  json.Number("layer_more_ns", facts.layer_more_ns);
  json.Number("expert_ns", facts.expert_ns);
  json.Number("expert_more_ns", facts.expert_more_ns);
  json.Number("head_ns", facts.head_ns);
  json.Number("check_ns", facts.check_ns);
  json.Number("expert_slots", device.plan().expert_slots);
  WriteMachine(&json, device);
  std::printf("%s\n", json.Finish().c_str());
}

void PrintText(const Device &device, const RoutingTrace &trace) {
  const TraceFacts &facts = trace.facts;
  const RoutingLocality locality = LocalityOf(trace);
  const uint64_t decoded = DecodedOf(trace);
  std::printf("routing    %" PRIu64 " tokens, %" PRIu64 " of them one by one; %u layers of %u experts, %u a token\n",
              trace.Tokens(), decoded, facts.layers, facts.experts, facts.top_k);
  std::printf("locality   %.1f %% of the choices repeat one of the token before (by chance %.1f %%); ", 100 * locality.repeated,
              100 * locality.repeated_by_chance);
  std::printf("the most popular quarter has %.1f %%\n", 100 * locality.popular_quarter);
  std::printf("computing  %.1f us a layer, %.1f us an expert, %.1f us the head, %.1f us to check what has landed; each more token of a chunk %.1f us and %.1f us\n",
              static_cast<double>(facts.layer_ns) / 1e3, static_cast<double>(facts.expert_ns) / 1e3,
              static_cast<double>(facts.head_ns) / 1e3, static_cast<double>(facts.check_ns) / 1e3, static_cast<double>(facts.layer_more_ns) / 1e3,
              static_cast<double>(facts.expert_more_ns) / 1e3);
  if (facts.guesses) {
    const Foresight foresight = ForesightOf(trace);
    std::printf("gate       foresees %.1f %% of the choices of single tokens; %.1f %% of its guesses come true\n",
                100 * foresight.of_choices, 100 * foresight.of_guesses);
  }
  const std::string experts = DescribeExperts(device), dials = DescribeDials(device);
  if (!experts.empty()) std::printf("experts    %s\n", experts.c_str());
  if (!dials.empty()) std::printf("dials      %s\n", dials.c_str());
  std::printf("digest     %016" PRIx64 "\n", DigestOf(trace));
}

}  // namespace

void Trace(int argc, char **argv) {
  DeviceOptions options;
  TraceOptions trace;
  SamplingOptions sampling;
  Arguments arguments("trace FILE (-p TEXT | --text FILE | --random N) -o TRACE [OPTIONS]",
                      "Records which experts a model chooses.");
  arguments.Texts("-p", &trace.prompts, "a prompt, and the answer to it; - reads the standard input");
  arguments.Flag("--chat", &trace.chat, "the prompt is one user turn in the model's chat template");
  arguments.Text("--text", &trace.text, "the tokens of a text, in windows of --context");
  arguments.Number("--random", 1, 1000000, &trace.random, "so many random tokens of --seed, likewise");
  arguments.Number("--prompt-tokens", 0, 65536, &trace.prompt_tokens,
                   "of each window of a text: fed in chunks, the others one by one (0)");
  arguments.Text("-o", &trace.out, "file to write");
  arguments.Flag("--json", &trace.json, "as one line of JSON");
  AddSamplingOptions(&arguments, &sampling);
  AddDeviceOptions(&arguments, &options);
  if (!arguments.Parse(argc, argv)) return;
  CheckSampling(sampling);
  if (trace.prompts.size() + !trace.text.empty() + (trace.random != 0) != 1) {
    Fail(ExitCode::kUsage, "one of -p TEXT, --text FILE and --random N is wanted");
  }
  if (trace.out.empty()) Fail(ExitCode::kUsage, "-o TRACE is missing");
  if (trace.chat && trace.prompts.empty()) Fail(ExitCode::kUsage, "--chat needs -p");
  if (trace.prompt_tokens != 0 && !trace.prompts.empty()) Fail(ExitCode::kUsage, "--prompt-tokens is for --text and --random");

  DeviceNeeds needs;
  needs.flags = ACORN_OPEN_PROFILE;
  Device device(options, needs);
  device.Open();
  RoutingRecorder recorder(&device);
  if (!trace.prompts.empty()) {
    Answer(&device, trace, sampling);
  } else {
    const std::vector<int32_t> ids = trace.random != 0 ? RandomIds(sampling.seed, trace.random, device.info().vocab_size)
                                                       : device.Encode(ReadWholeFile(trace.text), ACORN_TEXT_BOS);
    if (ids.empty()) Fail(ExitCode::kUsage, "%s is empty", trace.text.c_str());
    FeedIds(device, ids, trace.prompt_tokens);
  }
  const RoutingTrace recorded = recorder.Finish();
  Write(trace.out, recorded);
  if (trace.json) {
    PrintJson(device, recorded);
  } else {
    PrintText(device, recorded);
  }
}

}  // namespace acorn::program
