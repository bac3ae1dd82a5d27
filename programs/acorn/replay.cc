// acorn replay: what a cache of experts of another size, another policy or another device would have done with the routing
// that was recorded.
#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "arguments.h"
#include "commands.h"
#include "error.h"
#include "expert_replay.h"
#include "experts/pool.h"
#include "json.h"
#include "replay_svg.h"
#include "statistics.h"
#include "synthetic_trace.h"

namespace acorn::program {
namespace {

constexpr uint32_t kRangeSizes = 20;  // of a range A%..B%

struct Options {
  std::string trace, synthetic, out, cache = "5%..100%", policy = "all", device = "ufs31", prefetch = "off", svg;
  uint64_t tokens = 2048, prompt_tokens = 0, seed = 1, expert_bytes = uint64_t{2} << 20;
  bool json = false;
};

[[noreturn]] void FailCache(const std::string &text) {
  Fail(ExitCode::kUsage, "--cache %s: sizes such as 25%%, 300M or 5%%..100%%, with commas between them, are wanted", text.c_str());
}

/// Of a text such as 12.5%.
double Percent(const std::string &whole, const std::string &text) {
  char *end = nullptr;
  const double percent = std::strtod(text.c_str(), &end);
  if (text.empty() || text[0] < '0' || text[0] > '9' || end[0] != '%' || end[1] != 0 || !(percent > 0 && percent <= 100)) {
    FailCache(whole);
  }
  return percent;
}

/// Slots of a list of sizes, ascending, each once.
std::vector<uint32_t> ParseSizes(const std::string &text, const TraceFacts &facts) {
  const uint64_t all = uint64_t{facts.layers} * facts.experts;
  std::vector<uint32_t> slots;
  const auto add = [&](double percent) {
    slots.push_back(static_cast<uint32_t>(std::max(1.0, std::round(percent / 100 * static_cast<double>(all)))));
  };
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    begin = end + 1;
    const size_t dots = part.find("..");
    if (dots != std::string::npos) {
      const double low = Percent(text, part.substr(0, dots)), high = Percent(text, part.substr(dots + 2));
      if (low > high) FailCache(text);
      for (uint32_t i = 0; i < kRangeSizes; ++i) add(low + (high - low) * i / (kRangeSizes - 1));
    } else if (!part.empty() && part.back() == '%') {
      add(Percent(text, part));
    } else {
      uint64_t bytes = 0;
      if (!ParseBytes(part.c_str(), &bytes)) FailCache(text);
      if (bytes < facts.SlotBytes()) {
        Fail(ExitCode::kUsage, "--cache %s: an expert needs %" PRIu32 " bytes", part.c_str(), facts.SlotBytes());
      }
      slots.push_back(static_cast<uint32_t>(std::min(all, bytes / facts.SlotBytes())));
    }
  }
  std::sort(slots.begin(), slots.end());
  slots.erase(std::unique(slots.begin(), slots.end()), slots.end());
  return slots;
}

/// The policies of a list, and Belady's behind them, which all are measured by.
std::vector<ReplayPolicyName> ParsePolicies(const std::string &text) {
  std::vector<ReplayPolicyName> out;
  std::string rest = "," + text + ",", names;
  for (const ReplayPolicyName &row : kReplayPolicies) {
    const std::string name = std::string(",") + row.name + ",";
    const size_t at = rest.find(name);
    if (at != std::string::npos) rest.erase(at, name.size() - 1);
    if (at != std::string::npos || text == "all" || row.policy == ReplayPolicy::kBelady) out.push_back(row);
    names += std::string(", ") + row.name;
  }
  if (text != "all" && rest != ",") Fail(ExitCode::kUsage, "--policy %s: all%s or a list is wanted", text.c_str(), names.c_str());
  return out;
}

RoutingTrace Load(const Options &options) {
  if (options.trace.empty() == options.synthetic.empty()) {
    Fail(ExitCode::kUsage, "a TRACE or --synthetic LAYERSxEXPERTSxTOPK is wanted, and not both");
  }
  if (options.synthetic.empty()) {
    if (!options.out.empty()) Fail(ExitCode::kUsage, "-o is for --synthetic");
    return ReadRoutingTrace(options.trace);
  }
  SyntheticSpec spec;
  ParseSyntheticShape(options.synthetic, &spec);
  if (options.expert_bytes == 0 || options.expert_bytes > UINT32_MAX) {
    Fail(ExitCode::kUsage, "--expert-bytes %" PRIu64 ": 1 to %" PRIu32 " is wanted", options.expert_bytes, UINT32_MAX);
  }
  spec.expert_bytes = static_cast<uint32_t>(options.expert_bytes);
  spec.tokens = static_cast<uint32_t>(options.tokens);
  spec.prompt_tokens = static_cast<uint32_t>(options.prompt_tokens);
  spec.seed = options.seed;
  RoutingTrace trace = MakeSyntheticTrace(spec);
  if (!options.out.empty()) {
    RoutingTraceWriter writer(options.out, trace.facts);
    for (const RoutingChunk &chunk : trace.chunks) writer.Append(chunk);
    writer.Finish();
  }
  return trace;
}

struct Row {
  uint32_t slots;
  std::vector<ReplayResult> results;  // [policies], Belady's last
};

struct Report {
  std::string name;
  const TraceFacts &facts;
  uint64_t tokens;
  uint32_t largest;
  StorageModel storage;
  std::string prefetch;
  std::vector<ReplayPolicyName> policies;
  std::vector<Row> rows;

  uint64_t AllSlots() const { return uint64_t{facts.layers} * facts.experts; }
  uint32_t UsefulSlots() const { return SmallestUsefulSlots(facts.layers, facts.top_k); }
  uint64_t BytesOf(uint32_t slots) const { return uint64_t{slots} * facts.SlotBytes(); }
  double PercentOf(uint32_t slots) const { return 100.0 * slots / static_cast<double>(AllSlots()); }
};

double PerToken(double value, const ReplayResult &result) { return value / static_cast<double>(result.tokens()); }

/// Misses of a policy over the fewest that can be had; 1 where there are none.
double Distance(const Row &row, size_t policy) {
  const uint64_t best = row.results.back().misses();
  return best == 0 ? 1 : static_cast<double>(row.results[policy].misses()) / static_cast<double>(best);
}

std::string Speed(const ReplayPhase &phase) {
  if (phase.tokens == 0) return "-";
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", phase.TokensPerSecond());
  return text;
}

void PrintTable(const Report &report) {
  const TraceFacts &facts = report.facts;
  std::printf("%s: %" PRIu64 " tokens, %u layers of %u experts, %u a token, slots of %s\n", report.name.c_str(), report.tokens,
              facts.layers, facts.experts, facts.top_k, HumanBytes(facts.SlotBytes()).c_str());
  std::printf("%s: %g us, %g MB/s, depth %u; prefetch %s\n", report.storage.name.c_str(), report.storage.latency_us,
              report.storage.mb_per_s, report.storage.depth, report.prefetch.c_str());
  std::printf("one token's working set: %u slots, %.1f %%, %s; with fewer, recency finds nothing\n", report.UsefulSlots(),
              report.PercentOf(report.UsefulSlots()), HumanBytes(report.BytesOf(report.UsefulSlots())).c_str());
  std::printf("%7s %7s %11s  %-8s %7s %10s %11s %9s %9s %9s\n", "cache", "slots", "bytes", "policy", "hits", "misses/opt",
              "read/token", "stall ms", "decode/s", "prefill/s");
  for (const Row &row : report.rows) {
    for (size_t i = 0; i < report.policies.size(); ++i) {
      const ReplayResult &result = row.results[i];
      std::printf("%6.1f%% %7u %11s  %-8s %6.1f%% %10.3f %11s %9.3f %9s %9s\n", report.PercentOf(row.slots), row.slots,
                  HumanBytes(report.BytesOf(row.slots)).c_str(), report.policies[i].name, 100 * result.HitRate(), Distance(row, i),
                  HumanBytes(static_cast<uint64_t>(PerToken(static_cast<double>(result.bytes_read()), result))).c_str(),
                  PerToken(result.stall_us() / 1000, result), Speed(result.decode).c_str(), Speed(result.prefill).c_str());
    }
  }
}

std::string ResultJson(const Row &row, size_t policy) {
  const ReplayResult &result = row.results[policy];
  JsonWriter json;
  json.Number("hits", result.hits());
  json.Number("misses", result.misses());
  json.Decimal("hit_rate", result.HitRate());
  json.Decimal("misses_over_optimum", Distance(row, policy));
  json.Number("bytes_read", result.bytes_read());
  json.Decimal("bytes_per_token", PerToken(static_cast<double>(result.bytes_read()), result));
  json.Decimal("stall_ms", result.stall_us() / 1000);
  if (result.prefill.tokens != 0) json.Decimal("prefill_tokens_per_s", result.prefill.TokensPerSecond());
  if (result.decode.tokens != 0) json.Decimal("decode_tokens_per_s", result.decode.TokensPerSecond());
  json.Number("prefetches", result.prefetches);
  json.Number("prefetches_used", result.prefetches_used);
  return json.Finish();
}

void PrintJson(const Report &report) {
  JsonWriter device;
  device.Text("name", report.storage.name);
  device.Decimal("latency_us", report.storage.latency_us);
  device.Decimal("mb_per_s", report.storage.mb_per_s);
  device.Number("depth", report.storage.depth);
  std::string sizes;
  for (const Row &row : report.rows) {
    JsonWriter policies, size;
    for (size_t i = 0; i < report.policies.size(); ++i) policies.Raw(report.policies[i].name, ResultJson(row, i));
    size.Decimal("percent", report.PercentOf(row.slots));
    size.Number("slots", row.slots);
    size.Number("bytes", report.BytesOf(row.slots));
    size.Raw("policies", policies.Finish());
    sizes += (sizes.empty() ? "" : ", ") + size.Finish();
  }
  JsonWriter json;
  json.Text("trace", report.name);
  json.Number("tokens", report.tokens);
  json.Number("layers", report.facts.layers);
  json.Number("experts", report.facts.experts);
  json.Number("top_k", report.facts.top_k);
  json.Number("slot_bytes", report.facts.SlotBytes());
  json.Number("smallest_useful_slots", report.UsefulSlots());
  json.Number("largest_event", report.largest);
  json.Text("prefetch", report.prefetch);
  json.Raw("device", device.Finish());
  json.Raw("sizes", "[" + sizes + "]");
  std::printf("%s\n", json.Finish().c_str());
}

/// Speeds are of decoding, where the trace has any.
void WritePicture(const std::string &path, const Report &report) {
  ReplayPicture picture;
  picture.title = "Expert cache: " + report.name + " on " + report.storage.name;
  picture.useful_percent = report.PercentOf(report.UsefulSlots());
  for (const Row &row : report.rows) picture.percent.push_back(report.PercentOf(row.slots));
  for (size_t i = 0; i < report.policies.size(); ++i) {
    ReplayCurve curve = {report.policies[i].name, report.policies[i].policy == ReplayPolicy::kBelady, {}, {}};
    for (const Row &row : report.rows) {
      const ReplayResult &result = row.results[i];
      curve.hit_rate.push_back(result.HitRate());
      curve.per_second.push_back((result.decode.tokens != 0 ? result.decode : result.prefill).TokensPerSecond());
    }
    picture.curves.push_back(curve);
  }
  WriteReplaySvg(path, picture);
}

}  // namespace

void Replay(int argc, char **argv) {
  Options options;
  Arguments arguments("replay TRACE [OPTIONS]", "What another cache, policy or device would have done with a trace.");
  arguments.OptionalPositional("TRACE", &options.trace);
  arguments.Text("--cache", &options.cache, "sizes: 25%, 300M, 5%..100%, or a list with commas (5%..100%)");
  arguments.Text("--policy", &options.policy, "all, or of lfru, lru, edgemoe, belady (all); belady is always there");
  arguments.Text("--device", &options.device, "sd, emmc51, ufs22, ufs31, ufs40, nvme or LATENCY_US:MB_PER_S:DEPTH (ufs31)");
  arguments.Text("--prefetch", &options.prefetch, "while the device is idle, read the trace's guesses: gate; or what has followed so far: path (off)");
  arguments.Flag("--json", &options.json, "as one line of JSON");
  arguments.Text("--svg", &options.svg, "write a picture to this file");
  arguments.Text("--synthetic", &options.synthetic, "no TRACE: make one, LAYERSxEXPERTSxTOPK");
  arguments.Number("--tokens", 1, 1000000, &options.tokens, "of --synthetic, one by one (2048)");
  arguments.Number("--prompt-tokens", 0, kMaxTraceTokens, &options.prompt_tokens, "of --synthetic, one chunk before them (0)");
  arguments.Bytes("--expert-bytes", &options.expert_bytes, "of --synthetic, of one expert (2M)");
  arguments.Number("--seed", 0, UINT64_MAX, &options.seed, "of --synthetic (1)");
  arguments.Text("-o", &options.out, "of --synthetic: write the trace to this file");
  if (!arguments.Parse(argc, argv)) return;
  ReplaySettings settings;
  settings.storage = FindStorage(options.device);
  settings.prefetch = static_cast<ExpertPrefetch>(ChoiceOf("--prefetch", options.prefetch, {"off", "gate", "path"}));
  const std::vector<ReplayPolicyName> policies = ParsePolicies(options.policy);
  const RoutingTrace trace = Load(options);
  const std::string name = options.synthetic.empty() ? options.trace : "synthetic " + options.synthetic;
  if (settings.prefetch == ExpertPrefetch::kGate && !trace.facts.guesses) {
    Fail(ExitCode::kUsage, "--prefetch gate: %s holds no guesses: acorn trace MODEL --prefetch gate records a trace with them",
         name.c_str());
  }
  const ReplayEvents events(trace);
  Report report = {name, trace.facts, trace.Tokens(), events.Largest(), settings.storage, options.prefetch, policies, {}};
  for (const uint32_t slots : ParseSizes(options.cache, trace.facts)) {
    Row row = {slots, {}};
    settings.slots = slots;
    for (const ReplayPolicyName &policy : policies) {
      settings.policy = policy.policy;
      row.results.push_back(Replay(trace.facts, events, settings));
    }
    report.rows.push_back(row);
  }
  if (!options.svg.empty()) WritePicture(options.svg, report);
  if (options.json) {
    PrintJson(report);
  } else {
    PrintTable(report);
  }
}

}  // namespace acorn::program
