// acorn run: one prompt, one answer. The answer alone goes to the standard output.
#include <cstdio>

#include "commands.h"
#include "error.h"
#include "sampling.h"
#include "snapshot_file.h"
#include "statistics.h"

namespace acorn::program {
namespace {

struct Report {
  Generated generated;
  Digests digests;
  double first_token_ms = 0;
};

// Nothing but its time stops `acorn run`.
const char *ReasonName(const Generated &generated) {
  if (generated.stopped != ACORN_OK) return "time";
  switch (generated.reason) {
    case ACORN_STOP_LENGTH:
      return "length";
    case ACORN_STOP_END:
      return "end";
    case ACORN_STOP_STRING:
      return "string";
    case ACORN_STOP_CONTEXT:
      return "context";
    default:
      return "caller";
  }
}

void PrintJson(const Device &device, const SamplingOptions &sampling, const Report &report) {
  const Speeds speeds = ReadSpeeds(device);
  JsonWriter json;
  json.Decimal("prefill_tokens_per_s", speeds.prefill_tokens_per_s);
  json.Decimal("decode_tokens_per_s", speeds.decode_tokens_per_s);
  json.Decimal("open_ms", device.open_ms());
  json.Decimal("first_token_ms", report.first_token_ms);
  json.Number("prompt_tokens", speeds.prefill_tokens);
  json.Number("tokens", report.generated.tokens);
  json.Text("stop", ReasonName(report.generated));
  if (sampling.lookup != 0) {
    json.Number("drafted_tokens", speeds.drafted_tokens);
    json.Number("accepted_tokens", speeds.accepted_tokens);
  }
  json.Hex("digest", report.digests.logits());
  json.Hex("ids_digest", report.digests.ids());
  WriteMachine(&json, device);
  json.Raw("kernels", KernelShares(device));
  std::fprintf(stderr, "%s\n", json.Finish().c_str());
}

void PrintStats(const Device &device, const SamplingOptions &sampling, const Report &report) {
  const Speeds speeds = ReadSpeeds(device);
  const acorn_memory_plan &plan = device.plan();
  std::fprintf(stderr, "prompt   %llu tokens, %.1f tokens/s; first token after %.1f ms; open %.1f ms\n",
               static_cast<unsigned long long>(speeds.prefill_tokens), speeds.prefill_tokens_per_s, report.first_token_ms,
               device.open_ms());
  std::fprintf(stderr, "answer   %zu tokens, %.1f tokens/s, ended by %s\n", report.generated.tokens, speeds.decode_tokens_per_s,
               ReasonName(report.generated));
  const std::string lookup = DescribeLookup(device, sampling), experts = DescribeExperts(device), dials = DescribeDials(device);
  if (!lookup.empty()) std::fprintf(stderr, "lookup   %s\n", lookup.c_str());
  std::fprintf(stderr, "memory   %s planned beside a file of %s; peak RSS %s\n", HumanBytes(plan.block_bytes).c_str(),
               HumanBytes(plan.image_bytes).c_str(), HumanBytes(acorn_posix_peak_rss_bytes()).c_str());
  if (!experts.empty()) std::fprintf(stderr, "experts  %s\n", experts.c_str());
  if (!dials.empty()) std::fprintf(stderr, "dials    %s\n", dials.c_str());
  std::fprintf(stderr, "machine  %s\n", DescribeMachine(device).c_str());
  std::fprintf(stderr, "digest   %016llx\n", static_cast<unsigned long long>(report.digests.logits()));
}

// False: its time was over.
bool ReadPrompt(Device *device, const std::string &prompt, uint32_t flags) {
  const uint64_t taken = acorn_session_position(device->session());
  const acorn_status status = acorn_session_append_text(device->session(), prompt.data(), prompt.size(), flags);
  if (status == ACORN_ERR_CONTEXT_FULL) {
    const uint64_t room = device->plan().endless != 0 ? device->plan().context_tokens : acorn_session_capacity(device->session()) - taken;
    Fail(ExitCode::kUsage, "the prompt has %zu tokens, %s %llu%s", device->Encode(prompt, flags).size(),
         device->plan().endless != 0 ? "at once can be read" : "the context holds", static_cast<unsigned long long>(room),
         taken == 0 || device->plan().endless != 0 ? "" : " more");
  }
  if (status == ACORN_ERR_DEADLINE) return false;
  device->Check(status, "reading the prompt");
  return true;
}

}  // namespace

void Run(int argc, char **argv) {
  DeviceOptions options;
  SamplingOptions sampling;
  bool chat = false, markup = false, stats = false, json = false;
  std::vector<std::string> prompts;
  std::string load, save;
  Arguments arguments("run FILE -p TEXT [OPTIONS]", "Answers one prompt.");
  arguments.Texts("-p", &prompts, "the prompt; - reads the standard input");
  arguments.Flag("--chat", &chat, "the prompt is one user turn in the model's chat template");
  arguments.Flag("--markup", &markup, "special tokens in the prompt are read as such");
  arguments.Text("--load", &load, "go on with a saved conversation, at its rate unless --rate names another; without -p, where it ended");
  arguments.Text("--save", &save, "save the conversation with its answer");
  AddSamplingOptions(&arguments, &sampling);
  AddLookupOption(&arguments, &sampling);
  AddTimeLimit(&arguments, &sampling);
  arguments.Flag("--stats", &stats, "speed, memory and digest, on the standard error");
  arguments.Flag("--json", &json, "the same as one line of JSON, on the standard error");
  AddDeviceOptions(&arguments, &options);
  if (!arguments.Parse(argc, argv)) return;
  CheckSampling(sampling);
  if (prompts.size() != 1 && (load.empty() || !prompts.empty())) Fail(ExitCode::kUsage, "one prompt is wanted: -p TEXT");
  if (chat && markup) Fail(ExitCode::kUsage, "--chat and --markup exclude each other");
  if (!save.empty()) CheckCanSave(save);
  std::string prompt;
  if (!prompts.empty()) prompt = prompts[0] == "-" ? ReadWholeFile("-") : prompts[0];

  DeviceNeeds needs;
  if (stats || json) needs.flags = ACORN_OPEN_PROFILE;
  Device device(options, WithLookup(needs, sampling));
  CheckLookup(device, sampling);
  device.Open();
  const uint32_t flags = chat ? ACORN_TEXT_CHAT : ACORN_TEXT_BOS | (markup ? ACORN_TEXT_MARKUP : 0);
  device.RequireText(flags);
  if (!load.empty()) LoadSession(&device, load);

  Report report;
  const uint64_t begin = acorn_posix_ticks();
  StartTime(&device, sampling);
  const bool read = prompts.empty() || ReadPrompt(&device, prompt, flags);
  if (!read) report.generated.stopped = ACORN_ERR_DEADLINE;
  const int32_t *logits = nullptr;
  if (read && acorn_session_logits(device.session(), &logits) != ACORN_OK) {
    Fail(ExitCode::kUsage, prompts.empty() ? "nothing follows where the conversation ended: -p TEXT is wanted" : "the prompt is empty");
  }
  Digests *digests = stats || json ? &report.digests : nullptr;
  if (read && digests != nullptr) digests->AddLogits(logits, device.info().vocab_size);
  if (read) report.generated = Generate(&device, sampling, digests, [&](const char *text, size_t bytes) {
    if (report.first_token_ms == 0) report.first_token_ms = static_cast<double>(acorn_posix_ticks() - begin) / 1e6;
    std::fwrite(text, 1, bytes, stdout);
    std::fflush(stdout);
  });
  std::fputc('\n', stdout);
  std::fflush(stdout);
  if (report.generated.stopped != ACORN_OK) {
    const char *unread = save.empty() ? "the prompt was read: there is no answer"
                                      : "the prompt was read: there is no answer, and nothing is saved";
    TellTimeIsOver(sampling, read ? "the answer was" : unread);
  }
  if (read && !save.empty()) SaveSession(device, save);
  if (json) {
    PrintJson(device, sampling, report);
  } else if (stats) {
    PrintStats(device, sampling, report);
  }
}

}  // namespace acorn::program
