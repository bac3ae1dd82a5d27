#include "quantize/calibration.h"

#include <algorithm>
#include <memory>
#include <numeric>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/progress.h"
#include "base/random.h"
#include "resources/resources.h"
#include "text/source_tokenizer.h"
#include "text/tokenizer_model.h"

namespace acorn::compiler {
namespace {

std::vector<std::vector<int32_t>> TokenizeTexts(const SourceTokenizer &tokenizer, const std::vector<std::string> &files) {
  std::vector<std::vector<int32_t>> texts;
  Progress progress("tokenizing calibration text", std::max<int64_t>(1, static_cast<int64_t>(files.size())));
  if (files.empty()) texts.push_back(tokenizer.EncodeTexts(CalibrationText()));
  for (const std::string &path : files) {
    const MappedFile file(path);
    texts.push_back(tokenizer.EncodeTexts(file.text()));
    progress.Update(static_cast<int64_t>(texts.size()));
  }
  size_t tokens = 0;
  for (const auto &text : texts) tokens += text.size();
  progress.Finish(std::to_string(tokens) + " tokens");
  return texts;
}

constexpr int64_t kRandomWindows = 16;

CalibrationWindows RandomTokens(const ModelConfig &config, const CalibrationOptions &options) {
  CalibrationWindows result;
  result.window = std::min(options.window, config.max_context);
  uint64_t state = options.seed;
  for (int64_t i = 0; i < std::min(options.windows, kRandomWindows) * result.window; ++i) {
    result.ids.push_back(static_cast<int32_t>(NextRandom(&state) % static_cast<uint64_t>(config.vocab)));
  }
  return result;
}

/// Windows for each text: equal shares, and what short texts cannot give goes to the others.
std::vector<int64_t> Shares(const std::vector<int64_t> &available, int64_t wanted) {
  std::vector<int64_t> shares(available.size(), 0);
  for (bool any = true; any && wanted > 0;) {
    any = false;
    for (size_t i = 0; i < shares.size() && wanted > 0; ++i) {
      if (shares[i] == available[i]) continue;
      ++shares[i];
      --wanted;
      any = true;
    }
  }
  return shares;
}

}  // namespace

std::vector<int64_t> ChooseWindows(int64_t available, int64_t wanted, uint64_t seed) {
  std::vector<int64_t> order(static_cast<size_t>(available));
  std::iota(order.begin(), order.end(), 0);
  if (seed != 0) {
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[NextRandom(&seed) % i]);
  }
  order.resize(static_cast<size_t>(std::min(available, wanted)));
  std::sort(order.begin(), order.end());
  return order;
}

bool HasTokenizer(const SourceModel &source) {
  const TokenizerSource &tokenizer = source.tokenizer();
  return !tokenizer.tokenizer_json.empty() || !tokenizer.sentencepiece_model.empty() || !tokenizer.llama2c_bin.empty() ||
         (tokenizer.gguf != nullptr && tokenizer.gguf->Find("tokenizer.ggml.tokens") != nullptr && !HasMadeUpTokenizer(source));
}

bool HasMadeUpTokenizer(const SourceModel &source) {
  const GgufFile *gguf = source.tokenizer().gguf;
  if (gguf == nullptr || gguf->FindString("tokenizer.ggml.model").value_or("") != "gpt2") return false;
  const std::vector<std::string_view> *texts = gguf->FindStrings("tokenizer.ggml.tokens");
  return texts != nullptr && std::none_of(texts->begin(), texts->end(), [](std::string_view text) {
    std::string bytes;
    return text.size() <= 2 && DecodeByteAlphabet(std::string(text), &bytes) && bytes.size() == 1;
  });
}

CalibrationWindows MakeCalibration(const SourceModel &source, const CalibrationOptions &options) {
  if (!HasTokenizer(source)) {
    if (options.files.empty()) return RandomTokens(source.config(), options);
    throw Error(ExitCode::kUsage, source.path() + ": no tokenizer, so calibration texts cannot be read");
  }
  const std::unique_ptr<SourceTokenizer> tokenizer = OpenTokenizer(source);
  const std::vector<std::vector<int32_t>> texts = TokenizeTexts(*tokenizer, options.files);
  CalibrationWindows result;
  result.window = std::min(options.window, source.config().max_context);
  std::vector<int64_t> available;
  available.reserve(texts.size());
  for (const auto &text : texts) available.push_back(static_cast<int64_t>(text.size()) / result.window);
  const std::vector<int64_t> shares = Shares(available, options.windows);
  for (size_t i = 0; i < texts.size(); ++i) {
    for (const int64_t window : ChooseWindows(available[i], shares[i], options.seed)) {
      const auto first = texts[i].begin() + window * result.window;
      result.ids.insert(result.ids.end(), first, first + result.window);
    }
  }
  if (result.ids.empty()) {
    throw Error(ExitCode::kUsage,
                "the calibration text is shorter than one window of " + std::to_string(result.window) + " tokens");
  }
  const ModelConfig &config = source.config();
  if (config.bos_id >= 0) result.prefix_candidates.push_back(config.bos_id);
  result.prefix_candidates.insert(result.prefix_candidates.end(), config.eos_ids.begin(), config.eos_ids.end());
  for (const char *text : {"\n", ".", " "}) {
    const std::vector<int32_t> ids = tokenizer->Encode(text);
    if (ids.size() == 1) result.prefix_candidates.push_back(ids[0]);
  }
  return result;
}

}  // namespace acorn::compiler
