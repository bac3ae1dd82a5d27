// The tokenizer in a GGUF file's metadata (tokenizer.ggml.*).
#include <cfloat>
#include <cmath>
#include <unordered_map>

#include "base/error.h"
#include "import/gguf.h"
#include "text/tokenizer_model.h"

namespace acorn::compiler {
namespace {

namespace layout = tokenizer_layout;
using layout::PreTokenizer;

// tokenizer.ggml.token_type
enum GgufTokenType : int64_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

// tokenizer.ggml.pre, with what goes with it in the original tokenizers.
struct KnownPre {
  const char *name;
  PreTokenizer kind;
  layout::Normalizer normalizer;
  bool whole_piece;
};
constexpr KnownPre kKnownPres[] = {
    {"gpt-2", PreTokenizer::kGpt2, layout::Normalizer::kNone, false},
    {"olmo", PreTokenizer::kGpt2, layout::Normalizer::kNfc, false},
    {"smollm", PreTokenizer::kDigitGpt2, layout::Normalizer::kNone, false},
    {"starcoder", PreTokenizer::kDigitGpt2, layout::Normalizer::kNone, false},
    {"refact", PreTokenizer::kDigitGpt2, layout::Normalizer::kNone, false},
    {"llama-bpe", PreTokenizer::kLlama3, layout::Normalizer::kNone, true},
    {"llama3", PreTokenizer::kLlama3, layout::Normalizer::kNone, true},
    {"llama-v3", PreTokenizer::kLlama3, layout::Normalizer::kNone, true},
    {"qwen2", PreTokenizer::kQwen2, layout::Normalizer::kNfc, false},
    {"stablelm2", PreTokenizer::kQwen2, layout::Normalizer::kNone, false},
};

[[noreturn]] void Bad(const GgufFile &file, const std::string &message) {
  throw Error(ExitCode::kBadModel, file.path() + ": tokenizer.ggml." + message);
}

int32_t TokenId(const GgufFile &file, const char *key) {
  const std::optional<int64_t> id = file.FindInteger(std::string("tokenizer.ggml.") + key);
  if (!id || *id < 0) return -1;
  if (*id > INT32_MAX) Bad(file, std::string(key) + ": " + std::to_string(*id) + " is no token");
  return static_cast<int32_t>(*id);
}

void SetSpecial(SourceToken *token, int64_t type) {
  if (type == kControl || type == kUnknown) token->special_flags = layout::kSpecialHidden | layout::kSpecialMarkup;
  if (type == kUserDefined) token->special_flags = layout::kSpecialMarkup;
  if (token->special_flags != 0 || type == kUnused || type == kByte) token->findable = false;
}

void ReadByteLevel(const GgufFile &file, const std::vector<std::string_view> &texts, const std::vector<int64_t> &types,
                   TokenizerModel *model) {
  const std::string pre(file.FindString("tokenizer.ggml.pre").value_or("gpt-2"));
  const KnownPre *known = nullptr;
  for (const KnownPre &candidate : kKnownPres) {
    if (pre == candidate.name) known = &candidate;
  }
  if (known == nullptr) {
    std::string names;
    for (const KnownPre &candidate : kKnownPres) names += std::string(names.empty() ? "" : ", ") + candidate.name;
    Bad(file, "pre: \"" + pre + "\" is not known (known: " + names + ")");
  }
  model->pre_tokenizer = known->kind;
  model->normalizer = known->normalizer;
  if (known->whole_piece) model->flags |= layout::kFlagWholePiece;
  std::unordered_map<std::string_view, uint32_t> ids;
  for (size_t id = 0; id < texts.size(); ++id) {
    SourceToken token;
    SetSpecial(&token, types[id]);
    if (!token.findable || !DecodeByteAlphabet(std::string(texts[id]), &token.text)) {
      token.text = texts[id];
      token.findable = false;
    } else if (token.text.size() == 1) {
      model->byte_ids[static_cast<unsigned char>(token.text[0])] = static_cast<int32_t>(id);
    }
    ids.emplace(texts[id], static_cast<uint32_t>(id));
    model->tokens.push_back(std::move(token));
  }
  const std::vector<std::string_view> *merges = file.FindStrings("tokenizer.ggml.merges");
  if (merges == nullptr) Bad(file, "merges is missing");
  for (size_t i = 0; i < merges->size(); ++i) {
    const std::string_view merge = (*merges)[i];
    const size_t space = merge.find(' ', 1);
    const std::string_view left = merge.substr(0, space);
    const std::string_view right = space == std::string_view::npos ? "" : merge.substr(space + 1);
    const auto a = ids.find(left), b = ids.find(right);
    const std::string joined = std::string(left) + std::string(right);
    const auto result = ids.find(joined);
    if (a == ids.end() || b == ids.end() || result == ids.end()) {
      Bad(file, "merges: element " + std::to_string(i) + " (\"" + std::string(merge) + "\") names no tokens");
    }
    model->merges.push_back({a->second, b->second, result->second});
  }
}

void ReadSentencePiece(const GgufFile &file, const std::vector<std::string_view> &texts, const std::vector<int64_t> &types,
                       TokenizerModel *model) {
  const std::vector<double> *reals = file.FindReals("tokenizer.ggml.scores");
  if (reals == nullptr || reals->size() != texts.size()) Bad(file, "scores is missing or has another size than tokens");
  for (size_t id = 0; id < texts.size(); ++id) {
    if (!(std::abs((*reals)[id]) <= FLT_MAX)) Bad(file, "scores: element " + std::to_string(id) + " is no number of 32 bits");
    SourceToken token;
    SetSpecial(&token, types[id]);
    const int byte = types[id] == kByte ? ParseByteToken(std::string(texts[id])) : -1;
    if (byte >= 0) {
      model->byte_ids[static_cast<size_t>(byte)] = static_cast<int32_t>(id);
      token.text = std::string(1, static_cast<char>(byte));
    } else {
      token.text = token.findable ? ReplaceMetaspace(std::string(texts[id])) : std::string(texts[id]);
    }
    model->tokens.push_back(std::move(token));
  }
  UseSentencePieceScores(model, std::vector<float>(reals->begin(), reals->end()));
  if (file.FindBool("tokenizer.ggml.add_space_prefix").value_or(true)) {
    model->dummy_prefix = layout::DummyPrefix::kEvery;
  }
}

}  // namespace

TokenizerModel ReadGgufTokenizer(const GgufFile &file, const TokenizerHints &hints) {
  const std::vector<std::string_view> *texts = file.FindStrings("tokenizer.ggml.tokens");
  const std::optional<std::string_view> kind = file.FindString("tokenizer.ggml.model");
  if (!kind || texts == nullptr || texts->empty()) Bad(file, "model or tokens is missing: the file has no tokenizer");
  const std::vector<int64_t> *stored_types = file.FindIntegers("tokenizer.ggml.token_type");
  const std::vector<int64_t> types = stored_types != nullptr ? *stored_types : std::vector<int64_t>(texts->size(), kNormal);
  if (types.size() != texts->size()) Bad(file, "token_type has another size than tokens");
  TokenizerModel model;
  model.bos_id = TokenId(file, "bos_token_id");
  model.eos_id = TokenId(file, "eos_token_id");
  model.pad_id = TokenId(file, "padding_token_id");
  if (*kind == "gpt2") {
    // unknown_token_id is not used: byte-level tokenizers drop a byte that has no token.
    ReadByteLevel(file, *texts, types, &model);
  } else if (*kind == "llama") {
    model.unk_id = TokenId(file, "unknown_token_id");
    ReadSentencePiece(file, *texts, types, &model);
  } else {
    Bad(file, "model: \"" + std::string(*kind) + "\" is not known (known: gpt2, llama)");
  }
  if (file.FindBool("tokenizer.ggml.add_bos_token").value_or(*kind == "llama")) model.flags |= layout::kFlagAddBos;
  if (file.FindBool("tokenizer.ggml.add_eos_token").value_or(false)) model.flags |= layout::kFlagAddEos;
  model.jinja = file.FindString("tokenizer.chat_template").value_or("");
  FinishTokenizer(&model, hints, file.path());
  return model;
}

}  // namespace acorn::compiler
