#include "text/source_tokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "import/source_model.h"

namespace acorn::compiler {
namespace {

/// Tokens that end a generation and stand in no part of the chat format.
std::vector<int32_t> TextEnds(const TokenizerModel &model) {
  std::vector<int32_t> ends;
  for (size_t id = 0; id < model.tokens.size(); ++id) {
    if ((model.tokens[id].special_flags & tokenizer_layout::kSpecialStop) == 0) continue;
    const bool in_chat = std::any_of(model.chat.sections.begin(), model.chat.sections.end(), [&](const auto &section) {
      return std::any_of(section.begin(), section.end(), [&](const auto &op) {
        return op.kind == tokenizer_layout::ChatOpKind::kToken && op.token == id;
      });
    });
    if (!in_chat) ends.push_back(static_cast<int32_t>(id));
  }
  return ends;
}

}  // namespace

SourceTokenizer::SourceTokenizer(const TokenizerModel &model) : segment_(BuildTokenizerSegment(model)), text_ends_(TextEnds(model)) {
  TokenizerFault fault;
  if (acorn::OpenTokenizer(&tokenizer_, Span<const uint8_t>(segment_.data(), segment_.size()), &fault) != Status::kOk) {
    throw Error(ExitCode::kBadModel, "the tokenizer makes no legal segment: table " + std::to_string(fault.table) +
                                         ", element " + std::to_string(fault.index));
  }
  if (!model.jinja.empty() && model.chat.shape.empty()) {
    chat_warning_ = "the chat template is of no known shape (" + KnownChatShapes() + "): the model file gets none";
  }
}

std::vector<int32_t> SourceTokenizer::Encode(std::string_view text) const { return Run(text, {}); }

std::vector<int32_t> SourceTokenizer::EncodePrompt(std::string_view text) const {
  EncodeOptions options;
  options.bos = true;
  return Run(text, options);
}

std::vector<int32_t> SourceTokenizer::EncodeMarkup(std::string_view text) const {
  EncodeOptions options;
  options.markup = true;
  return Run(text, options);
}

std::vector<int32_t> SourceTokenizer::EncodeTexts(std::string_view text) const {
  std::vector<int32_t> ids = EncodeMarkup(text);
  ids.erase(std::remove_if(ids.begin(), ids.end(),
                           [this](int32_t id) { return std::count(text_ends_.begin(), text_ends_.end(), id) != 0; }),
            ids.end());
  return ids;
}

std::vector<int32_t> SourceTokenizer::Run(std::string_view text, EncodeOptions options) const {
  std::vector<int32_t> ids(MaxTokens(tokenizer_, text.size()));
  std::vector<uint64_t> work((EncodeWorkBytes(tokenizer_, text.size()) + 7) / 8);  // of 8-byte words for the alignment
  size_t count = 0;
  const Status status =
      acorn::Encode(tokenizer_, Span<const char>(text.data(), text.size()), options, Span<int32_t>(ids.data(), ids.size()),
                    &count, Span<uint8_t>(reinterpret_cast<uint8_t *>(work.data()), work.size() * 8));
  if (status != Status::kOk) throw Error(ExitCode::kBadModel, "the text cannot be encoded");
  ids.resize(count);
  return ids;
}

TokenizerHints TokenizerHintsOf(const ModelConfig &config) {
  TokenizerHints hints;
  hints.vocab_size = config.vocab;
  hints.bos_id = config.bos_id;
  hints.eos_ids = config.eos_ids;
  hints.pad_id = config.pad_id;
  return hints;
}

std::unique_ptr<SourceTokenizer> OpenTokenizer(const SourceModel &source) {
  return std::make_unique<SourceTokenizer>(ReadTokenizer(source.tokenizer(), TokenizerHintsOf(source.config())));
}

}  // namespace acorn::compiler
