// acorn bench: prefill and decode speed on uniformly random tokens. One run that is not timed warms the caches up and gives
// the digest and the kernels' shares; the timed ones must end in the same logits. Or one run alone, the first of the process.
#include <algorithm>
#include <cstdio>

#include "commands.h"
#include "error.h"
#include "random_ids.h"
#include "statistics.h"

namespace acorn::program {
namespace {

struct BenchOptions {
  uint64_t prompt_tokens = 128, gen_tokens = 64, repetitions = 5, seed = 0;
};

struct Pass {
  double prefill_s = 0, decode_s = 0, first_token_ms = 0;
  Digests digests;
  uint64_t last_logits = 0;  // digest of the last row
};

double Seconds(uint64_t ticks) { return static_cast<double>(ticks) / 1e9; }

Pass RunOnce(const Device &device, const BenchOptions &options, const std::vector<int32_t> &ids, bool digest) {
  acorn_session *session = device.session();
  const uint32_t vocab_size = device.info().vocab_size;
  acorn_session_reset(session);
  Pass run;
  uint64_t begin = acorn_posix_ticks();
  device.Check(acorn_session_prefill(session, ids.data(), options.prompt_tokens), "prefill");
  run.prefill_s = Seconds(acorn_posix_ticks() - begin);
  const int32_t *logits = nullptr;
  Check(acorn_session_logits(session, &logits), "prefill");
  if (digest) run.digests.AddLogits(logits, vocab_size);
  for (uint64_t i = 0; i < options.gen_tokens; ++i) {
    const int32_t id = ids[options.prompt_tokens + i];
    begin = acorn_posix_ticks();
    device.Check(acorn_session_decode(session, &logits, id), "decode");
    run.decode_s += Seconds(acorn_posix_ticks() - begin);
    if (i == 0) run.first_token_ms = (run.prefill_s + run.decode_s) * 1e3;
    if (digest) {
      run.digests.AddLogits(logits, vocab_size);
      run.digests.AddId(id);
    }
  }
  Fnv last;
  last.Add(logits, vocab_size);
  run.last_logits = last.value();
  return run;
}

// Middle of the sorted values, and half the distance of the largest and the smallest.
struct Spread {
  double median, half_range;
};

Spread SpreadOf(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  const double median = values.size() % 2 != 0 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
  return {median, (values.back() - values.front()) / 2};
}

void PrintJson(const Device &device, const BenchOptions &options, const Pass &first, const Spread &prefill,
               const Spread &decode, double first_token_ms, const std::string &kernels) {
  JsonWriter json;
  json.Decimal("prefill_tokens_per_s", prefill.median);
  json.Decimal("prefill_half_range", prefill.half_range);
  json.Decimal("decode_tokens_per_s", decode.median);
  json.Decimal("decode_half_range", decode.half_range);
  json.Decimal("open_ms", device.open_ms());
  json.Decimal("first_token_ms", first_token_ms);
  json.Number("prompt_tokens", options.prompt_tokens);
  json.Number("gen_tokens", options.gen_tokens);
  json.Number("tokens", options.prompt_tokens + options.gen_tokens);
  json.Number("repetitions", options.repetitions);
  json.Hex("digest", first.digests.logits());
  json.Hex("ids_digest", first.digests.ids());
  WriteMachine(&json, device);
  json.Raw("kernels", kernels);
  std::printf("%s\n", json.Finish().c_str());
}

}  // namespace

void Bench(int argc, char **argv) {
  DeviceOptions options;
  BenchOptions bench;
  bool json = false;
  Arguments arguments("bench FILE [OPTIONS]", "Tokens per second on uniformly random tokens.");
  arguments.Number("--prompt-tokens", 1, kLongestContext, &bench.prompt_tokens, "tokens of the prompt (default 128)");
  arguments.Number("--gen-tokens", 0, kLongestContext, &bench.gen_tokens, "tokens decoded after it, one by one (default 64)");
  arguments.Number("--repetitions", 0, 1000, &bench.repetitions,
                   "timed runs; the median is reported (default 5); 0: one, the first of the process");
  arguments.Number("--seed", 0, UINT64_MAX, &bench.seed, "of the random tokens (default 0)");
  arguments.Flag("--json", &json, "as one line of JSON");
  AddDeviceOptions(&arguments, &options);
  if (!arguments.Parse(argc, argv)) return;
  const uint64_t wanted = bench.prompt_tokens + bench.gen_tokens;
  if (options.context != 0 && options.context < wanted) {
    Fail(ExitCode::kUsage, "--context %llu cannot hold %llu tokens", static_cast<unsigned long long>(options.context),
         static_cast<unsigned long long>(wanted));
  }

  DeviceNeeds needs;
  needs.tokens = wanted;
  std::string kernels = "{}";
  Pass first;
  std::vector<int32_t> ids;
  // Two openings: counting ticks for each kernel costs a little, so the timed runs do without.
  if (bench.repetitions != 0) {
    DeviceNeeds with_profile = needs;
    with_profile.flags = ACORN_OPEN_PROFILE;
    Device profiled(options, with_profile);
    profiled.Open();
    ids = RandomIds(bench.seed, wanted, profiled.info().vocab_size);
    first = RunOnce(profiled, bench, ids, true);
    kernels = KernelShares(profiled);
  }
  Device device(options, needs);
  device.Open();
  std::vector<double> prefill, decode, first_token;
  const auto add = [&](const Pass &run) {
    prefill.push_back(static_cast<double>(bench.prompt_tokens) / run.prefill_s);
    decode.push_back(bench.gen_tokens == 0 ? 0 : static_cast<double>(bench.gen_tokens) / run.decode_s);
    first_token.push_back(run.first_token_ms);
  };
  if (bench.repetitions == 0) {
    ids = RandomIds(bench.seed, wanted, device.info().vocab_size);
    first = RunOnce(device, bench, ids, true);
    add(first);
  } else {
    RunOnce(device, bench, ids, false);
  }
  for (uint64_t i = 0; i < bench.repetitions; ++i) {
    const Pass run = RunOnce(device, bench, ids, false);
    // With --cache-aware-routing an answer depends on what the cache held before.
    if (run.last_logits != first.last_logits && options.cache_routing_q16 == 0) {
      Fail(ExitCode::kModel, "two runs of the same tokens gave different logits");
    }
    add(run);
  }
  const Spread prefill_spread = SpreadOf(prefill), decode_spread = SpreadOf(decode);
  if (json) {
    PrintJson(device, bench, first, prefill_spread, decode_spread, SpreadOf(first_token).median, kernels);
    return;
  }
  std::printf("prefill  %10.1f tokens/s  ± %.1f  (%llu tokens)\n", prefill_spread.median, prefill_spread.half_range,
              static_cast<unsigned long long>(bench.prompt_tokens));
  std::printf("decode   %10.1f tokens/s  ± %.1f  (%llu tokens)\n", decode_spread.median, decode_spread.half_range,
              static_cast<unsigned long long>(bench.gen_tokens));
  std::printf("open     %10.1f ms\n", device.open_ms());
  std::printf("memory   %s planned beside a file of %s; peak RSS %s\n", HumanBytes(device.plan().block_bytes).c_str(),
              HumanBytes(device.plan().image_bytes).c_str(), HumanBytes(acorn_posix_peak_rss_bytes()).c_str());
  const std::string experts = DescribeExperts(device), dials = DescribeDials(device);
  if (!experts.empty()) std::printf("experts  %s; all runs\n", experts.c_str());
  if (!dials.empty()) std::printf("dials    %s\n", dials.c_str());
  std::printf("machine  %s; %s\n", DescribeMachine(device).c_str(),
              bench.repetitions == 0 ? "the first run" : ("median of " + std::to_string(bench.repetitions) + " runs").c_str());
  std::printf("digest   %016llx\nkernels  %s\n", static_cast<unsigned long long>(first.digests.logits()), kernels.c_str());
}

}  // namespace acorn::program
