// acorn perplexity: the text is tokenised once and cut into windows that do not overlap; each starts from an empty session;
// positions from --score-from on are scored; the last partial window is dropped. The same protocol as `acornc perplexity`.
// --stride lets windows overlap, each of which then scores what those before it have not. --stream makes one window of the text.
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
  uint64_t window = 0, stride = 0, stream = 0, score_from = 0, limit = UINT64_MAX;
  bool json = false;
  Arguments arguments("perplexity FILE --text TEXT [OPTIONS]", "How well a text is predicted.");
  arguments.Text("--text", &text, "file with the text");
  arguments.Number("--window", 2, kLongestContext, &window, "tokens of a window (default 512)");
  arguments.Number("--stride", 1, kLongestContext, &stride, "tokens from window to window (default: windows do not overlap)");
  arguments.Number("--stream", 2, UINT32_MAX, &stream, "one conversation of so many tokens of the text instead of windows");
  arguments.Number("--score-from", 1, UINT32_MAX, &score_from,
                   "first position of a window that counts (default 1; with --stride the first that no window before has)");
  arguments.Number("--windows", 1, UINT64_MAX, &limit, "most windows (default: all)");
  arguments.Flag("--json", &json, "as one line of JSON");
  AddDeviceOptions(&arguments, &options);
  if (!arguments.Parse(argc, argv)) return;
  if (text.empty()) Fail(ExitCode::kUsage, "--text FILE is missing");
  if (stream != 0 && (window != 0 || stride != 0 || limit != UINT64_MAX)) {
    Fail(ExitCode::kUsage, "--stream is one window: --window, --stride and --windows do not go with it");
  }
  if (stream != 0) limit = 1;
  if (window == 0) window = stream != 0 ? stream : 512;
  if (stride == 0) stride = window;
  if (stride > window) {
    Fail(ExitCode::kUsage, "--stride %llu leaves a gap behind a --window of %llu", static_cast<unsigned long long>(stride),
         static_cast<unsigned long long>(window));
  }
  if (score_from == 0) score_from = std::max<uint64_t>(window - stride, 1);
  if (score_from >= window) {
    Fail(ExitCode::kUsage, "--score-from %llu is not below --window %llu", static_cast<unsigned long long>(score_from),
         static_cast<unsigned long long>(window));
  }
  if (options.context != 0 && options.context < window) {
    Fail(ExitCode::kUsage, "--context %llu cannot hold a window of %llu", static_cast<unsigned long long>(options.context),
         static_cast<unsigned long long>(window));
  }
  DeviceNeeds needs;
  needs.logit_rows = kLogitRows;
  needs.tokens = window;
  Device device(options, needs);
  device.Open();
  const std::vector<int32_t> ids = device.Encode(ReadWholeFile(text), ACORN_TEXT_BOS);
  const uint64_t windows = std::min<uint64_t>(limit, ids.size() < window ? 0 : (ids.size() - window) / stride + 1);
  if (windows == 0) {
    Fail(ExitCode::kUsage, "%s has %zu tokens, less than one window of %llu", text.c_str(), ids.size(),
         static_cast<unsigned long long>(window));
  }
  Score score = {};
  score.unit = LogitUnit(device.info());
  for (uint64_t i = 0; i < windows; ++i) {
    const int32_t *begin = ids.data() + i * stride;
    acorn_session_reset(device.session());
    // Row `score_from - 1` predicts position `score_from`; the last token predicts nothing that is scored.
    if (score_from > 1) device.Check(acorn_session_prefill(device.session(), begin, score_from - 1), "prefill");
    score.targets = begin + score_from;
    device.Check(acorn_session_score(device.session(), begin + score_from - 1, window - score_from, OnLogits, &score), "scoring");
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
  out.Number("stride", stride);
  out.Number("score_from", score_from);
  out.Hex("digest", score.digest.value());
  out.Decimal("prefill_tokens_per_s", speeds.prefill_tokens_per_s);
  out.Decimal("open_ms", device.open_ms());
  WriteMachine(&out, device);
  std::printf("%s\n", out.Finish().c_str());
}

}  // namespace acorn::program
