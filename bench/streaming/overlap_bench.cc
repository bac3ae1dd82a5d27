// Decoding from storage with and without overlap: the same tokens through the port as it is, and through one that hands no read
// over before all of them have landed, so that nothing is computed meanwhile. What is hit and missed is the same for both, and so
// are the logits. With a device the reads come at the pace of another machine's storage.
#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#if defined(__linux__)
#include <sys/prctl.h>
#endif
#include <time.h>

#include "acorn.h"
#include "acorn_posix.h"
#include "acorn_simulated.h"
#include "arguments.h"
#include "error.h"
#include "random_ids.h"

namespace acorn::program {
namespace {

struct Options {
  std::string file, device, prefetch = "off";
  uint64_t cache = 0, tokens = 64, rounds = 3, threads = 0, seed = 0;
  uint64_t latency_us = 0, mb_per_s = 0;
};

void SleepUntil(uint64_t ticks) {
  const struct timespec at = {static_cast<time_t>(ticks / 1000000000), static_cast<long>(ticks % 1000000000)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) == EINTR) continue;
}

/// A port whose read_submit returns when everything has landed.
class Barrier {
 public:
  explicit Barrier(const acorn_port &inner) : inner_(inner) {}

  acorn_port Port() {
    acorn_port port = inner_;
    read_ctx_ = inner_.ctx;
    port.ctx = this;
    port.log = nullptr;
    port.ticks = [](void *ctx) { return Of(ctx)->inner_.ticks(Of(ctx)->read_ctx_); };
    port.parallel_for = [](void *ctx, acorn_task task, void *arg, uint32_t count) {
      Of(ctx)->inner_.parallel_for(Of(ctx)->read_ctx_, task, arg, count);
    };
    port.read = nullptr;
    port.read_submit = [](void *ctx, const acorn_read_request *requests, size_t count, size_t *accepted) {
      return Of(ctx)->Submit(requests, count, accepted);
    };
    port.read_wait = [](void *ctx, acorn_read_result *results, size_t capacity, uint64_t, size_t *count) {
      return Of(ctx)->HandOver(results, capacity, count);
    };
    port.read_cancel = nullptr;
    return port;
  }

  /// With reads under way, since the creation.
  uint64_t reading_ns() const { return reading_ns_; }

 private:
  static Barrier *Of(void *ctx) { return static_cast<Barrier *>(ctx); }

  int Submit(const acorn_read_request *requests, size_t count, size_t *accepted) {
    const uint64_t begin = acorn_posix_ticks();
    int status = inner_.read_submit(read_ctx_, requests, count, accepted);
    for (size_t left = *accepted; left != 0 && status == 0;) {
      acorn_read_result results[16];
      size_t ended = 0;
      status = inner_.read_wait(read_ctx_, results, 16, UINT64_MAX, &ended);
      landed_.insert(landed_.end(), results, results + ended);
      left -= ended;
    }
    reading_ns_ += acorn_posix_ticks() - begin;
    return status;
  }
  int HandOver(acorn_read_result *results, size_t capacity, size_t *count) {
    for (*count = 0; *count < capacity && !landed_.empty(); ++*count) {
      results[*count] = landed_.front();
      landed_.pop_front();
    }
    return 0;
  }

  acorn_port inner_;
  void *read_ctx_ = nullptr;
  std::deque<acorn_read_result> landed_;
  uint64_t reading_ns_ = 0;
};

struct Figures {
  double tokens_per_s = 0, compute_s = 0, read_mb_per_s = 0;
  uint64_t hits = 0, misses = 0, bytes = 0, logits = 0;
};

uint64_t DigestOf(const int32_t *logits, size_t count) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (size_t i = 0; i < count; ++i) hash = (hash ^ static_cast<uint32_t>(logits[i])) * 0x100000001b3u;
  return hash;
}

/// Decodes twice, the second time on the clock: a slot that is written for the first time costs the kernel its pages.
Figures Decode(const Options &options, bool overlap) {
  const auto free_posix = [](acorn_posix *posix) { acorn_posix_destroy(posix); };
  const std::unique_ptr<acorn_posix, decltype(free_posix)> posix(acorn_posix_create(static_cast<uint32_t>(options.threads)), free_posix);
  if (posix == nullptr) Fail(ExitCode::kMemory, "no threads to be had");
  const int error = acorn_posix_set_file(posix.get(), options.file.c_str());
  if (error != 0) Fail(ExitCode::kIo, "%s: %s", options.file.c_str(), std::strerror(error));
  acorn_port port;
  acorn_posix_port(posix.get(), &port, 0);

  const auto free_simulated = [](acorn_simulated *simulated) { acorn_simulated_destroy(simulated); };
  std::unique_ptr<acorn_simulated, decltype(free_simulated)> simulated(nullptr, free_simulated);
  if (!options.device.empty() || options.mb_per_s != 0) {
    acorn_simulated_options throttle = {};
    throttle.struct_size = sizeof throttle;
    throttle.timing = {options.latency_us * 1000, 0, options.mb_per_s * 1000000, 32};
    if (!options.device.empty()) throttle.timing = acorn_device_find(options.device.c_str())->timing;
    throttle.sleep_until = [](void *, uint64_t ticks) { SleepUntil(ticks); };
    simulated.reset(acorn_simulated_create(&throttle, &port));
    if (simulated == nullptr) Fail(ExitCode::kUsage, "a device of these figures cannot be held back");
    acorn_simulated_port(simulated.get(), &port);
  }
  Barrier barrier(port);
  if (!overlap) port = barrier.Port();

  acorn_posix_file start = {}, file = {};
  uint64_t resident = 0;
  if (acorn_posix_open_part(&start, options.file.c_str(), ACORN_POSIX_COPY, ACORN_HEADER_BYTES) != 0 ||
      acorn_image_resident(&resident, start.data, start.bytes) != ACORN_OK ||
      acorn_posix_open_part(&file, options.file.c_str(), ACORN_POSIX_COPY, resident) != 0) {
    Fail(ExitCode::kModel, "%s cannot be opened as a model", options.file.c_str());
  }
  const acorn_image image = {file.data, file.bytes};
  acorn_options open = {};
  open.struct_size = sizeof open;
  open.context_tokens = static_cast<uint32_t>(options.tokens);
  open.expert_cache_bytes = options.cache;
  open.expert_prefetch = ChoiceOf("--prefetch", options.prefetch, {"off", "gate", "path"});  // ACORN_PREFETCH_…
  acorn_memory_plan plan = {};
  acorn_fault fault = {};
  Check(acorn_plan(&plan, &fault, &image, &open, &port), "planning");
  if (plan.expert_slots == 0) Fail(ExitCode::kModel, "%s has no experts", options.file.c_str());
  void *block = acorn_posix_allocate_for_reads(plan.block_bytes);
  if (block == nullptr) Fail(ExitCode::kMemory, "no memory for the plan");
  acorn_model *model = nullptr;
  acorn_session *session = nullptr;
  Check(acorn_model_open(&model, &fault, &image, &open, &port, block, plan.block_bytes), "opening");
  Check(acorn_session_open(&session, model), "opening a session");
  acorn_model_info info = {};
  info.struct_size = sizeof info;
  Check(acorn_model_get_info(model, &info), "reading the model's facts");

  Figures figures;
  const int32_t *logits = nullptr;
  acorn_expert_stats before = {}, stats = {};
  double seconds = 0;
  uint64_t reading_ns = 0;
  for (int pass = 0; pass < 2; ++pass) {
    acorn_session_reset(session);
    before = stats;
    reading_ns = barrier.reading_ns();
    const uint64_t begin = acorn_posix_ticks();
    for (const int32_t id : RandomIds(options.seed, options.tokens, info.vocab_size)) {
      Check(acorn_session_decode(session, &logits, id), "decoding");
    }
    seconds = static_cast<double>(acorn_posix_ticks() - begin) / 1e9;
    Check(acorn_model_expert_stats(model, &stats), "reading what experts have cost");
  }
  figures.tokens_per_s = static_cast<double>(options.tokens) / seconds;
  figures.compute_s = seconds - static_cast<double>(stats.stall_ticks - before.stall_ticks) / 1e9;
  figures.hits = stats.hits - before.hits;
  figures.misses = stats.misses - before.misses;
  figures.bytes = stats.bytes_read - before.bytes_read;
  reading_ns = barrier.reading_ns() - reading_ns;
  if (reading_ns != 0) figures.read_mb_per_s = static_cast<double>(figures.bytes) * 1e3 / static_cast<double>(reading_ns);
  figures.logits = DigestOf(logits, info.vocab_size);
  (void)acorn_posix_stop_reads(posix.get(), UINT64_MAX);
  acorn_posix_release(block, plan.block_bytes);
  acorn_posix_close_file(&file);
  acorn_posix_close_file(&start);
  return figures;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void Run(int argc, char **argv) {
  Options options;
  Arguments arguments("FILE --expert-cache BYTES [OPTIONS]", "Decoding from storage with and without overlap.");
  arguments.Positional("FILE", &options.file);
  arguments.Bytes("--expert-cache", &options.cache, "memory for experts");
  arguments.Number("--tokens", 1, 65536, &options.tokens, "random tokens, one by one, twice (default 64)");
  arguments.Number("--rounds", 1, 100, &options.rounds, "of both in turn; medians are reported (default 3)");
  arguments.Number("--threads", 1, 256, &options.threads, "threads (default: the CPUs of this process)");
  arguments.Number("--seed", 0, UINT64_MAX, &options.seed, "of the tokens (default 0)");
  arguments.Text("--device", &options.device, "hold reads back to the pace of sd, emmc51, ufs22, ufs31, ufs40 or nvme");
  arguments.Number("--mb-per-s", 1, 100000, &options.mb_per_s, "hold reads back to this");
  arguments.Number("--latency-us", 0, 1000000, &options.latency_us, "and each to this (default 0)");
  arguments.Text("--prefetch", &options.prefetch, "off (default), gate or path: guesses are read too, or waited for with the others");
  if (!arguments.Parse(argc, argv)) return;
  if (options.cache == 0) Fail(ExitCode::kUsage, "--expert-cache BYTES is missing");
  if (!options.device.empty() && acorn_device_find(options.device.c_str()) == nullptr) {
    Fail(ExitCode::kUsage, "--device %s: sd, emmc51, ufs22, ufs31, ufs40 or nvme is wanted", options.device.c_str());
  }
  std::vector<double> with, without, ratios;
  Figures last[2];
  for (uint64_t round = 0; round < options.rounds; ++round) {
    for (const bool overlap : {true, false}) last[overlap] = Decode(options, overlap);
    with.push_back(last[1].tokens_per_s);
    without.push_back(last[0].tokens_per_s);
    ratios.push_back(with.back() / without.back());
    if (last[0].logits != last[1].logits) Fail(ExitCode::kModel, "the logits differ");
    // Guesses are read only while nothing else is, so that what is at hand with them depends on time.
    if (options.prefetch != "off") continue;
    if (last[0].hits != last[1].hits || last[0].misses != last[1].misses) Fail(ExitCode::kModel, "the hits differ");
  }
  // With reads first and computing after, the clock tells both apart: what is not computing is reading.
  const double compute_s = last[1].compute_s, all_s = static_cast<double>(options.tokens) / last[0].tokens_per_s;
  std::printf("{\"tokens\": %" PRIu64 ", \"hits\": %" PRIu64 ", \"misses\": %" PRIu64 ", \"bytes_read\": %" PRIu64
              ", \"one_after_the_other_hits\": %" PRIu64 ", \"overlap_tokens_per_s\": %.4g, \"one_after_the_other_tokens_per_s\": %.4g, \"ratio\": %.4g, "
              "\"compute_s\": %.4g, \"read_s\": %.4g, \"read_mb_per_s\": %.1f}\n",
              options.tokens, last[1].hits, last[1].misses, last[1].bytes, last[0].hits, Median(with), Median(without), Median(ratios), compute_s,
              std::max(0.0, all_s - compute_s), last[0].read_mb_per_s);
}

}  // namespace
}  // namespace acorn::program

int main(int argc, char **argv) {
#if defined(__linux__)
  (void)prctl(PR_SET_TIMERSLACK, 1);  // 50 us are much beside a read
#endif
  try {
    acorn::program::Run(argc - 1, argv + 1);
    return 0;
  } catch (const acorn::program::Failure &failure) {
    std::fprintf(stderr, "acorn_bench_overlap: %s\n", failure.message.c_str());
    return static_cast<int>(failure.code);
  }
}
