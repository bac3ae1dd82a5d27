#include "statistics.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include "error.h"

namespace acorn::program {
namespace {

double PerSecond(uint64_t count, uint64_t ticks, uint64_t ticks_per_second) {
  return ticks == 0 ? 0 : static_cast<double>(count) * static_cast<double>(ticks_per_second) / static_cast<double>(ticks);
}

}  // namespace

Speeds ReadSpeeds(const Device &device) {
  acorn_timings timings = {};
  timings.struct_size = sizeof timings;
  Check(acorn_session_timings(device.session(), &timings), "reading the timings");
  Speeds speeds;
  speeds.prefill_tokens = timings.prefill_tokens;
  speeds.decode_tokens = timings.decode_tokens;
  speeds.drafted_tokens = timings.drafted_tokens;
  speeds.accepted_tokens = timings.accepted_tokens;
  speeds.prefill_tokens_per_s = PerSecond(timings.prefill_tokens, timings.prefill_ticks, timings.ticks_per_second);
  speeds.decode_tokens_per_s = PerSecond(timings.decode_tokens, timings.decode_ticks, timings.ticks_per_second);
  return speeds;
}

ExpertFigures ReadExperts(const Device &device) {
  ExpertFigures figures;
  acorn_expert_stats stats = {};
  if (device.model() == nullptr) return figures;
  Check(acorn_model_expert_stats(device.model(), &stats), "reading what experts have cost");
  figures.hits = stats.hits;
  figures.misses = stats.misses;
  figures.bytes_read = stats.bytes_read;
  figures.prefetches = stats.prefetches;
  figures.prefetches_used = stats.prefetches_used;
  figures.stall_ms = static_cast<double>(stats.stall_ticks) / 1e6;
  return figures;
}

std::string KernelShares(const Device &device) {
  std::vector<std::pair<uint64_t, std::string>> rows;
  uint64_t total = 0;
  acorn_profile_row row = {};
  row.struct_size = sizeof row;
  for (size_t i = 0; acorn_model_profile(device.model(), &row, i) == ACORN_OK; ++i) {
    rows.emplace_back(row.ticks, row.name);
    total += row.ticks;
  }
  std::stable_sort(rows.begin(), rows.end(), [](const auto &a, const auto &b) { return a.first > b.first; });
  JsonWriter json;
  for (const auto &[ticks, name] : rows) {
    if (total != 0) json.Decimal(name.c_str(), static_cast<double>(ticks) / static_cast<double>(total));
  }
  return json.Finish();
}

void WriteMachine(JsonWriter *json, const Device &device) {
  const acorn_memory_plan &plan = device.plan();
  json->Number("image_bytes", plan.image_bytes);
  json->Number("model_bytes", plan.model_bytes);
  json->Number("session_bytes", plan.session_bytes);
  json->Number("scratch_bytes", plan.scratch_bytes);
  json->Number("expert_slot_bytes", plan.expert_slot_bytes);
  json->Number("block_bytes", plan.block_bytes);
  json->Number("peak_rss_bytes", acorn_posix_peak_rss_bytes());
  json->Number("context_tokens", plan.context_tokens);
  json->Number("chunk_tokens", plan.chunk_tokens);
  json->Number("threads", plan.threads);
  json->Number("rate", acorn_session_rate(device.session()));
  json->Text("isa", device.isa());
  const ExpertFigures experts = ReadExperts(device);
  JsonWriter figures;
  figures.Number("hits", experts.hits);
  figures.Number("misses", experts.misses);
  figures.Number("bytes_read", experts.bytes_read);
  figures.Decimal("stall_ms", experts.stall_ms);
  figures.Number("prefetches", experts.prefetches);
  figures.Number("prefetches_used", experts.prefetches_used);
  if (plan.expert_slots != 0) {
    figures.Text("policy", device.options().expert_policy);
    figures.Text("prefetch", device.options().prefetch);
  }
  json->Raw("experts", figures.Finish());
  JsonWriter dials;  // those that are on
  if (device.options().drop_experts_q16 != 0) dials.Decimal("drop_experts", device.options().drop_experts_q16 / 65536.0);
  if (device.options().cache_routing_q16 != 0) dials.Decimal("cache_aware_routing", device.options().cache_routing_q16 / 65536.0);
  json->Raw("dials", dials.Finish());
}

std::string DescribeMachine(const Device &device) {
  std::string text = std::to_string(device.plan().threads) + " threads, " + device.isa();
  if (device.plan().rates > 1) text += ", rate " + std::to_string(acorn_session_rate(device.session())) + " %";
  return text;
}

std::string DescribeExperts(const Device &device) {
  const acorn_memory_plan &plan = device.plan();
  if (plan.expert_slots == 0) return "";
  const ExpertFigures experts = ReadExperts(device);
  char text[256];
  std::snprintf(text, sizeof text, "%u of %u in memory; %llu hits, %llu misses, %s read, %.1f ms waited", plan.expert_slots,
                plan.experts, static_cast<unsigned long long>(experts.hits), static_cast<unsigned long long>(experts.misses),
                HumanBytes(experts.bytes_read).c_str(), experts.stall_ms);
  std::string out = text;
  if (device.options().prefetch == "off") return out;
  std::snprintf(text, sizeof text, "; %llu guesses read, %llu used", static_cast<unsigned long long>(experts.prefetches),
                static_cast<unsigned long long>(experts.prefetches_used));
  return out + text;
}

std::string DescribeDials(const Device &device) {
  const DeviceOptions &options = device.options();
  std::string out;
  const auto add = [&out](const char *name, uint32_t value_q16) {
    char text[64];
    std::snprintf(text, sizeof text, "%s%s %g", out.empty() ? "" : ", ", name, value_q16 / 65536.0);
    if (value_q16 != 0) out += text;
  };
  add("--drop-experts", options.drop_experts_q16);
  add("--cache-aware-routing", options.cache_routing_q16);
  return out.empty() ? out : out + ": another answer than without";
}

std::string HumanBytes(uint64_t bytes) {
  char text[32];
  if (bytes < 1024) {
    std::snprintf(text, sizeof text, "%llu B", static_cast<unsigned long long>(bytes));
  } else if (bytes < 1024 * 1024) {
    std::snprintf(text, sizeof text, "%.1f KiB", static_cast<double>(bytes) / 1024);
  } else {
    std::snprintf(text, sizeof text, "%.2f MiB", static_cast<double>(bytes) / (1024 * 1024));
  }
  return text;
}

std::string ReadWholeFile(const std::string &path) {
  std::FILE *file = path == "-" ? stdin : std::fopen(path.c_str(), "rb");
  if (file == nullptr) Fail(ExitCode::kIo, "%s: %s", path.c_str(), std::strerror(errno));
  std::string text;
  struct stat facts = {};
  if (fstat(fileno(file), &facts) == 0 && S_ISREG(facts.st_mode)) text.reserve(static_cast<size_t>(facts.st_size));
  char buffer[16384];
  for (size_t count; (count = std::fread(buffer, 1, sizeof buffer, file)) > 0;) text.append(buffer, count);
  const bool bad = std::ferror(file) != 0;
  const int error = errno;
  if (file != stdin) std::fclose(file);
  if (bad) Fail(ExitCode::kIo, "%s: %s", path.c_str(), std::strerror(error));
  return text;
}

}  // namespace acorn::program
