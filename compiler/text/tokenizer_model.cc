#include "text/tokenizer_model.h"

#include <algorithm>

#include "base/error.h"
#include "import/source_model.h"

namespace acorn::compiler {
namespace {

namespace layout = tokenizer_layout;

constexpr uint32_t kStopFlags = layout::kSpecialHidden | layout::kSpecialMarkup | layout::kSpecialStop;

// Special tokens that end a turn or a text in some family, whether or not the configuration says so.
constexpr const char *kStopTexts[] = {"<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>", "<|end|>"};

const std::string &TextOf(const TokenizerModel &model, int32_t id) {
  static const std::string none;
  return id < 0 ? none : model.tokens[static_cast<size_t>(id)].text;
}

void CheckId(const TokenizerModel &model, const std::string &name, const char *what, int32_t id) {
  if (id >= -1 && id < static_cast<int64_t>(model.tokens.size())) return;
  throw Error(ExitCode::kBadModel, name + ": " + what + " token " + std::to_string(id) + " is outside the vocabulary of " +
                                       std::to_string(model.tokens.size()));
}

// Brings the vocabulary to the model's size. Tokens past the embedding can go only if no text needs them.
void ResizeVocabulary(TokenizerModel *model, int64_t vocab_size, const std::string &name) {
  if (vocab_size <= 0) return;
  const size_t size = static_cast<size_t>(vocab_size);
  for (size_t id = size; id < model->tokens.size(); ++id) {
    if (model->tokens[id].findable) {
      throw Error(ExitCode::kBadModel, name + ": " + std::to_string(model->tokens.size()) +
                                           " tokens for a model with a vocabulary of " + std::to_string(size));
    }
  }
  SourceToken filler;
  filler.findable = false;
  model->tokens.resize(size, filler);
}

}  // namespace

void FinishTokenizer(TokenizerModel *model, const TokenizerHints &hints, const std::string &name) {
  ResizeVocabulary(model, hints.vocab_size, name);
  if (model->bos_id < 0) model->bos_id = hints.bos_id;
  if (model->pad_id < 0) model->pad_id = hints.pad_id;
  if (model->eos_id < 0 && !hints.eos_ids.empty()) model->eos_id = hints.eos_ids[0];
  CheckId(*model, name, "bos", model->bos_id);
  CheckId(*model, name, "eos", model->eos_id);
  CheckId(*model, name, "unknown", model->unk_id);
  CheckId(*model, name, "padding", model->pad_id);
  for (const int32_t id : hints.eos_ids) CheckId(*model, name, "eos", id);

  std::vector<int32_t> stops = hints.eos_ids;
  stops.push_back(model->eos_id);
  for (size_t id = 0; id < model->tokens.size(); ++id) {
    SourceToken &token = model->tokens[id];
    if ((token.special_flags & layout::kSpecialHidden) == 0) continue;
    for (const char *text : kStopTexts) {
      if (token.text == text) stops.push_back(static_cast<int32_t>(id));
    }
  }
  for (const int32_t id : stops) {
    if (id >= 0 && !model->tokens[static_cast<size_t>(id)].text.empty()) {
      model->tokens[static_cast<size_t>(id)].special_flags |= kStopFlags;
    }
  }
  if (model->jinja.empty()) return;
  model->chat = CompileChat(model->jinja, model->tokens, TextOf(*model, model->bos_id), TextOf(*model, model->eos_id));
  const auto &end = model->chat.sections[static_cast<size_t>(layout::ChatSection::kReplyEnd)];
  if (!end.empty() && end[0].kind == layout::ChatOpKind::kToken) model->tokens[end[0].token].special_flags |= kStopFlags;
}

bool DecodeByteAlphabet(const std::string &text, std::string *bytes) {
  // The printable bytes stand for themselves; the other 68 are U+0100 and up, in order.
  static const std::array<int16_t, 0x144> kByteOf = [] {
    std::array<int16_t, 0x144> table;
    table.fill(-1);
    int next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      table[static_cast<size_t>(printable ? byte : next++)] = static_cast<int16_t>(byte);
    }
    return table;
  }();
  bytes->clear();
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned code_point = static_cast<unsigned char>(text[i]);
    if (code_point >= 0x80) {  // all of the alphabet fits in two bytes
      if (code_point < 0xC2 || code_point > 0xC5 || i + 1 == text.size()) return false;
      code_point = (code_point & 0x1F) << 6 | (static_cast<unsigned char>(text[++i]) & 0x3F);
    }
    if (code_point >= kByteOf.size() || kByteOf[code_point] < 0) return false;
    bytes->push_back(static_cast<char>(kByteOf[code_point]));
  }
  return true;
}

int ParseByteToken(const std::string &text) {
  if (text.size() != 6 || text.compare(0, 3, "<0x") != 0 || text[5] != '>') return -1;
  int value = 0;
  for (size_t i = 3; i < 5; ++i) {
    const char c = text[i];
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

std::string ReplaceMetaspace(const std::string &text) {
  static const std::string kMetaspace = "\xE2\x96\x81";
  std::string result;
  for (size_t i = 0; i < text.size();) {
    if (text.compare(i, kMetaspace.size(), kMetaspace) == 0) {
      result += ' ';
      i += kMetaspace.size();
    } else {
      result += text[i++];
    }
  }
  return result;
}

layout::PreTokenizer SpaceRunsWhereExact(const std::vector<SourceToken> &tokens) {
  for (const SourceToken &token : tokens) {
    if (!token.findable) continue;
    const size_t word = token.text.find_first_not_of(' ');
    if (word != std::string::npos && token.text.find(' ', word) != std::string::npos) return layout::PreTokenizer::kNone;
  }
  return layout::PreTokenizer::kSpaceRuns;
}

void UseSentencePieceScores(TokenizerModel *model, const std::vector<float> &scores) {
  model->symbols = layout::Symbols::kCharacters;
  model->merge_rule = layout::MergeRule::kRanks;
  model->normalizer = layout::Normalizer::kMetaspace;
  model->pre_tokenizer = SpaceRunsWhereExact(model->tokens);
  std::vector<float> order;
  for (size_t id = 0; id < model->tokens.size(); ++id) {
    if (model->tokens[id].findable) order.push_back(scores[id]);
  }
  std::sort(order.begin(), order.end(), [](float a, float b) { return a > b; });
  order.erase(std::unique(order.begin(), order.end()), order.end());
  for (size_t id = 0; id < model->tokens.size(); ++id) {
    if (!model->tokens[id].findable) continue;
    const auto at = std::lower_bound(order.begin(), order.end(), scores[id], [](float a, float b) { return a > b; });
    model->tokens[id].rank = static_cast<uint32_t>(at - order.begin());
  }
}

TokenizerModel ReadTokenizer(const TokenizerSource &source, const TokenizerHints &hints) {
  if (!source.tokenizer_json.empty()) {
    return ReadTokenizerJson(source.tokenizer_json, source.tokenizer_config_json, source.chat_template_jinja, hints);
  }
  if (source.gguf != nullptr) return ReadGgufTokenizer(*source.gguf, hints);
  if (!source.sentencepiece_model.empty()) {
    const std::string jinja = ReadJinja(source.tokenizer_config_json, source.chat_template_jinja);
    return ReadSentencePieceModel(source.sentencepiece_model, jinja, hints);
  }
  if (!source.llama2c_bin.empty()) return ReadLlama2cTokenizer(source.llama2c_bin, hints);
  throw Error(ExitCode::kBadModel,
              "the model comes without a tokenizer (tokenizer.json, GGUF metadata or tokenizer.model); name one with "
              "--tokenizer");
}

}  // namespace acorn::compiler
