// acorn perplexity: the text is tokenised once and cut into windows that do not overlap; each starts from an empty session;
// positions from --score-from on are scored; the last partial window is dropped. The same protocol as `acornc perplexity`.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "commands.h"
#include "error.h"
#include "likelihood.h"
#include "statistics.h"

namespace acorn::program {
namespace {

struct Score {
  const int32_t *targets;  // of row 0, 1, …
  double unit;             // of a logit, in natural units
  double loss = 0;
  uint64_t tokens = 0;
  Fnv digest;
};

int OnLogits(void *ctx, size_t row, const int32_t *logits, size_t count) {
  auto *score = static_cast<Score *>(ctx);
  score->loss += ScoreToken(logits, count, score->targets[row], score->unit).loss;
  ++score->tokens;
  score->digest.Add(logits, count);
  return 0;
}

void ShowProgress(uint64_t done, uint64_t all, const Score &score) {
  if (isatty(STDERR_FILENO) == 0) return;
  std::fprintf(stderr, "\rwindow %llu of %llu: %.4f ", static_cast<unsigned long long>(done),
               static_cast<unsigned long long>(all), std::exp(score.loss / static_cast<double>(score.tokens)));
  if (done == all) std::fputc('\n', stderr);
}

}  // namespace

void Perplexity(int argc, char **argv) {
  DeviceOptions options;
  std::string text;
  uint64_t window = 512, score_from = 1, limit = UINT64_MAX;
  bool json = false;
  Arguments arguments("perplexity FILE --text TEXT [OPTIONS]", "How well a text is predicted.");
  arguments.Text("--text", &text, "file with the text");
  arguments.Number("--window", 2, kLongestContext, &window, "tokens of a window (default 512)");
  arguments.Number("--score-from", 1, 65535, &score_from, "first position of a window that counts (default 1)");
  arguments.Number("--windows", 1, UINT64_MAX, &limit, "most windows (default: all)");
  arguments.Flag("--json", &json, "as one line of JSON");
  AddDeviceOptions(&arguments, &options);
  if (!arguments.Parse(argc, argv)) return;
  if (text.empty()) Fail(ExitCode::kUsage, "--text FILE is missing");
  if (score_from >= window) {
    Fail(ExitCode::kUsage, "--score-from %llu is not below --window %llu", static_cast<unsigned long long>(score_from),
         static_cast<unsigned long long>(window));
  }
  if (options.context == 0) options.context = window;
  if (options.context < window) {
    Fail(ExitCode::kUsage, "--context %llu cannot hold a window of %llu", static_cast<unsigned long long>(options.context),
         static_cast<unsigned long long>(window));
  }
  DeviceNeeds needs;
  needs.logit_rows = kLogitRows;
  Device device(options, needs);
  device.Open();
  const std::vector<int32_t> ids = device.Encode(ReadWholeFile(text), ACORN_TEXT_BOS);
  const uint64_t windows = std::min<uint64_t>(limit, ids.size() / window);
  if (windows == 0) {
    Fail(ExitCode::kUsage, "%s has %zu tokens, less than one window of %llu", text.c_str(), ids.size(),
         static_cast<unsigned long long>(window));
  }
  Score score = {};
  score.unit = LogitUnit(device.info());
  for (uint64_t i = 0; i < windows; ++i) {
    const int32_t *begin = ids.data() + i * window;
    acorn_session_reset(device.session());
    // Row `score_from - 1` predicts position `score_from`; the last token predicts nothing that is scored.
    if (score_from > 1) Check(acorn_session_prefill(device.session(), begin, score_from - 1), "prefill");
    score.targets = begin + score_from;
    Check(acorn_session_score(device.session(), begin + score_from - 1, window - score_from, OnLogits, &score), "scoring");
    ShowProgress(i + 1, windows, score);
  }
  const double perplexity = std::exp(score.loss / static_cast<double>(score.tokens));
  if (!json) {
    std::printf("perplexity %.4f over %llu tokens (%llu windows of %llu, scored from %llu)\n", perplexity,
                static_cast<unsigned long long>(score.tokens), static_cast<unsigned long long>(windows),
                static_cast<unsigned long long>(window), static_cast<unsigned long long>(score_from));
    return;
  }
  const Speeds speeds = ReadSpeeds(device);
  JsonWriter out;
  out.Decimal("perplexity", perplexity);
  out.Decimal("mean_loss", score.loss / static_cast<double>(score.tokens));
  out.Number("tokens", score.tokens);
  out.Number("windows", windows);
  out.Number("window", window);
  out.Number("score_from", score_from);
  out.Hex("digest", score.digest.value());
  out.Decimal("prefill_tokens_per_s", speeds.prefill_tokens_per_s);
  out.Decimal("open_ms", device.open_ms());
  WriteMachine(&out, device);
  std::printf("%s\n", out.Finish().c_str());
}

}  // namespace acorn::program
