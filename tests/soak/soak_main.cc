// acorn_soak FILE... [--minutes N] [--turns N] [--seed S] [--threads N]: lives with models as an impatient user does, for as long as
// it is told to. Every 100 turns all conversations are compared with fresh ones, and the process's memory is looked at.
// Exit codes: 0 done; 1 something that must not be: a status, other logits, memory that grows; 2 bad usage.
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "memory_trend.h"
#include "soak_model.h"

namespace acorn::soak {
namespace {

constexpr uint32_t kSessions = 3;
constexpr uint64_t kTurnsBetweenChecks = 100;

struct Options {
  std::vector<std::string> files;
  uint64_t minutes = 0, turns = 0, seed = 1, threads = 1;  // neither minutes nor turns: 1,000 turns
};

bool ReadNumber(const char *text, uint64_t *number) {
  char *end = nullptr;
  *number = std::strtoull(text, &end, 10);
  return text[0] >= '0' && text[0] <= '9' && *end == 0;
}

bool Parse(int argc, char **argv, Options *options) {
  const struct {
    const char *name;
    uint64_t *value;
  } numbers[] = {{"--minutes", &options->minutes}, {"--turns", &options->turns}, {"--seed", &options->seed}, {"--threads", &options->threads}};
  for (int i = 1; i < argc; ++i) {
    uint64_t *value = nullptr;
    for (const auto &number : numbers) {
      if (std::strcmp(argv[i], number.name) == 0) value = number.value;
    }
    if (value == nullptr && argv[i][0] == '-') return false;
    if (value == nullptr) {
      options->files.emplace_back(argv[i]);
    } else if (++i == argc || !ReadNumber(argv[i], value)) {
      return false;
    }
  }
  if (options->minutes == 0 && options->turns == 0) options->turns = 1000;
  return !options->files.empty() && options->threads >= 1 && options->threads <= 64;
}

void Print(const char *what, const Counts &counts, const MemoryTrend &trend) {
  std::printf("%s %" PRIu64 " turns, %" PRIu64 " tokens (%" PRIu64 " generated), %" PRIu64 " cancelled, %" PRIu64 " rates (%" PRIu64
              " refills), %" PRIu64 " saves, %" PRIu64 " loads, %" PRIu64 " rewinds, %" PRIu64 " resets, %" PRIu64 " full, %" PRIu64
              " compared; RSS %" PRIu64 " KiB, %+.3f bytes a turn\n",
              what, counts.turns, counts.tokens, counts.generated, counts.cancelled, counts.rates, counts.refills, counts.saves,
              counts.loads, counts.rewinds, counts.resets, counts.full, counts.checks, trend.last() / 1024, trend.Slope());
  std::fflush(stdout);
}

int Soak(const Options &options) {
  std::vector<std::unique_ptr<SoakModel>> models;
  for (const std::string &file : options.files) {
    models.push_back(std::make_unique<SoakModel>(file, kSessions, static_cast<uint32_t>(options.threads)));
    const acorn_memory_plan &plan = models.back()->plan();
    std::printf("%s: block %" PRIu64 " bytes, %u of %u experts in memory, %u rates\n", file.c_str(), plan.block_bytes, plan.expert_slots,
                plan.experts, plan.rates);
  }
  TouchMappedFiles();
  Dice dice(options.seed);
  Canceller canceller;
  Counts counts = {};
  MemoryTrend trend;
  const uint64_t begin = acorn_posix_ticks(), minute = 60 * uint64_t{1000000000};
  uint64_t told = 0;
  const auto goes_on = [&] {
    return (options.turns == 0 || counts.turns < options.turns) &&
           (options.minutes == 0 || acorn_posix_ticks() - begin < options.minutes * minute);
  };
  while (goes_on()) {
    models[dice.Below(models.size())]->Turn(&dice, &canceller, &counts);
    if (counts.turns % kTurnsBetweenChecks != 0) continue;
    for (const std::unique_ptr<SoakModel> &model : models) model->CheckDigests(&counts);
    trend.Add(counts.turns, ResidentBytes());
    const uint64_t minutes = (acorn_posix_ticks() - begin) / minute;
    if (minutes != told) Print(("minute " + std::to_string(minutes) + ":").c_str(), counts, trend);
    told = minutes;
  }
  for (const std::unique_ptr<SoakModel> &model : models) model->CheckDigests(&counts);
  Print("done:", counts, trend);
  std::printf("RSS after the first quarter %" PRIu64 " bytes, at the end %" PRIu64 "; slope %+.4f bytes a turn over %zu samples, %+.0f bytes "
              "in all (more than %.3f and %.0f fail)\n",
              trend.first(), trend.last(), trend.Slope(), trend.samples(), trend.Rise(), MemoryTrend::kMostBytesATurn,
              MemoryTrend::kNoiseBytes);
  if (trend.Grows()) throw Failure("memory grows");
  return 0;
}

}  // namespace
}  // namespace acorn::soak

int main(int argc, char **argv) {
  acorn::soak::Options options;
  if (!acorn::soak::Parse(argc, argv, &options)) {
    std::fprintf(stderr, "usage: acorn_soak FILE... [--minutes N] [--turns N] [--seed S] [--threads N]\n");
    return 2;
  }
  try {
    return acorn::soak::Soak(options);
  } catch (const acorn::soak::Failure &failure) {
    std::fprintf(stderr, "acorn_soak: seed %" PRIu64 ": %s\n", options.seed, failure.what());
    return 1;
  }
}
