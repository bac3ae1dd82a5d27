// SourceTokenizer: a source model's tokenizer, compiled to the segment that a model file gets and run by the runtime's own
// encoder, so that the compiler sees the ids that a device will see. For calibration, perplexity and prefix search.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"
#include "text/tokenizer_model.h"

namespace acorn::compiler {

class SourceModel;
struct ModelConfig;

class SourceTokenizer {
 public:
  /// Throws Error(kBadModel) when the model makes no legal segment.
  explicit SourceTokenizer(const TokenizerModel &model);
  SourceTokenizer(const SourceTokenizer &) = delete;
  SourceTokenizer &operator=(const SourceTokenizer &) = delete;

  /// Plain text to ids, without BOS.
  std::vector<int32_t> Encode(std::string_view text) const;
  /// The same behind the start token, where the tokenizer adds one to a prompt.
  std::vector<int32_t> EncodePrompt(std::string_view text) const;
  /// Plain text without BOS, special tokens recognised.
  std::vector<int32_t> EncodeMarkup(std::string_view text) const;
  /// The same of a file of texts without the tokens that end one: a device stops at those, and no chat puts anything behind them.
  std::vector<int32_t> EncodeTexts(std::string_view text) const;

  const std::vector<uint8_t> &segment() const { return segment_; }
  const Tokenizer &get() const { return tokenizer_; }
  /// A line for the user when the source has a chat template that could not be compiled; else empty.
  const std::string &chat_warning() const { return chat_warning_; }

 private:
  std::vector<int32_t> Run(std::string_view text, EncodeOptions options) const;

  std::vector<uint8_t> segment_;
  Tokenizer tokenizer_;
  std::string chat_warning_;
  std::vector<int32_t> text_ends_;
};

/// What a model's configuration says to its tokenizer.
TokenizerHints TokenizerHintsOf(const ModelConfig &config);

/// The tokenizer that belongs to `source`; throws like ReadTokenizer.
std::unique_ptr<SourceTokenizer> OpenTokenizer(const SourceModel &source);

}  // namespace acorn::compiler
