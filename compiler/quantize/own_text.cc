#include "quantize/own_text.h"

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <iterator>
#include <memory>

#include "base/mapped_file.h"
#include "base/parallel.h"
#include "base/progress.h"
#include "base/random.h"
#include "write/opened_model.h"

namespace acorn::compiler {
namespace {

constexpr uint64_t kMostPromptTokens = 6;
// Cooler than the model's own distribution too: a small model loses its thread at 1.
constexpr uint32_t kTemperaturesQ16[] = {45875, 55705, 65536};  // 0.7, 0.85, 1
constexpr uint32_t kMinPQ16 = 1966;                             // 0.03
constexpr int64_t kWindowsAtOnce = 16;                          // between two looks at the progress
// Every other window says pieces of its first half again in its second: to copy from the context is what few bits of weight lose
// first (docs/QUANTISATION.md), and hardly any text trains it.
constexpr uint64_t kWindowsToOneThatRepeats = 2;
constexpr uint64_t kShortestPiece = 12;  // tokens: some to know the place by, the rest to be copied
constexpr uint64_t kLongestPiece = 96;

/// A file that is gone when it goes out of scope.
struct ScratchFile {
  std::string path;
  ~ScratchFile() { std::remove(path.c_str()); }
};

struct Collected {
  std::vector<int32_t> *ids;
  size_t most;
  const std::vector<int32_t> *ends;
};

int OnToken(void *ctx, int32_t token, const char *, size_t) {
  auto *collected = static_cast<Collected *>(ctx);
  if (std::count(collected->ends->begin(), collected->ends->end(), token) != 0) return 1;
  collected->ids->push_back(token);
  return collected->ids->size() == collected->most;
}

/// Appends pieces of ids, in any order, until there are `window`.
void SayAgain(size_t window, uint64_t *random, std::vector<int32_t> *ids) {
  const size_t said = ids->size();
  while (ids->size() < window) {
    const size_t wanted = kShortestPiece + NextRandom(random) % (kLongestPiece - kShortestPiece + 1);
    const size_t count = std::min({wanted, said, window - ids->size()});
    const size_t first = NextRandom(random) % (said - count + 1);
    for (size_t i = 0; i < count; ++i) ids->push_back((*ids)[first + i]);
  }
}

/// One window. random: its own, so that nothing depends on who writes which.
std::vector<int32_t> WriteWindow(OpenedModel *opened, const ModelConfig &config, const CalibrationWindows &prompts, uint64_t random) {
  const auto window = static_cast<size_t>(prompts.window);
  const bool repeats = NextRandom(&random) % kWindowsToOneThatRepeats == 0;
  const size_t written = repeats ? window - window / 2 : window;
  std::vector<int32_t> ids;
  while (ids.size() < written) {
    const size_t count = std::min<size_t>(1 + NextRandom(&random) % kMostPromptTokens, written - ids.size());
    const size_t first = NextRandom(&random) % (prompts.ids.size() - count + 1);
    ids.insert(ids.end(), prompts.ids.begin() + static_cast<std::ptrdiff_t>(first),
               prompts.ids.begin() + static_cast<std::ptrdiff_t>(first + count));
    acorn_session_reset(opened->session());
    opened->Check(acorn_session_prefill(opened->session(), ids.data() + ids.size() - count, count));
    Collected collected = {&ids, written, &config.eos_ids};
    acorn_generation generation = {};
    generation.struct_size = sizeof generation;
    generation.max_tokens = static_cast<uint32_t>(written - ids.size());
    generation.sampling.struct_size = sizeof generation.sampling;
    generation.sampling.temperature_q16 = kTemperaturesQ16[NextRandom(&random) % std::size(kTemperaturesQ16)];
    generation.sampling.min_p_q16 = kMinPQ16;
    generation.sampling.seed = NextRandom(&random);
    generation.callback = OnToken;
    generation.ctx = &collected;
    if (generation.max_tokens != 0) opened->Check(acorn_session_generate(opened->session(), nullptr, nullptr, &generation));
  }
  SayAgain(window, &random, &ids);
  return ids;
}

}  // namespace

std::vector<int32_t> OwnText(const QuantizedModel &model, const ModelConfig &config, const CalibrationWindows &prompts,
                             int64_t windows, uint64_t seed, const std::string &scratch) {
  const ScratchFile scratch_file{scratch};
  {
    FileSink sink(config, scratch);
    WriteModel(model, &sink);
    ModelFacts facts;
    facts.vocab_size = static_cast<uint32_t>(config.vocab);
    facts.max_context = static_cast<uint32_t>(prompts.window);  // the model's own may be longer than a device's
    sink.Finish(facts);
  }
  const MappedFile file(scratch);
  acorn_options options = {};
  options.context_tokens = static_cast<uint32_t>(prompts.window);
  // A model for each thread: their steps are too short to be shared.
  std::vector<std::unique_ptr<OpenedModel>> writers;
  writers.reserve(static_cast<size_t>(ThreadCount()));
  for (int i = 0; i < ThreadCount(); ++i) writers.push_back(std::make_unique<OpenedModel>(file, options, 1));
  std::vector<uint64_t> randoms;
  for (int64_t i = 0; i < windows; ++i) randoms.push_back(NextRandom(&seed));
  std::vector<std::vector<int32_t>> texts(static_cast<size_t>(windows));
  Progress progress("text of its own", windows);
  for (int64_t first = 0; first < windows; first += kWindowsAtOnce) {
    const auto end = static_cast<size_t>(std::min(windows, first + kWindowsAtOnce));
    const auto tasks = static_cast<int64_t>(writers.size());
    ParallelFor(tasks, [&](int64_t task) {
      for (size_t i = static_cast<size_t>(first + task); i < end; i += writers.size()) {
        texts[i] = WriteWindow(writers[static_cast<size_t>(task)].get(), config, prompts, randoms[i]);
      }
    });
    progress.Update(static_cast<int64_t>(end));
  }
  progress.Finish();
  std::vector<int32_t> ids;
  for (const std::vector<int32_t> &text : texts) ids.insert(ids.end(), text.begin(), text.end());
  return ids;
}

}  // namespace acorn::compiler
