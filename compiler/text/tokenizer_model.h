// TokenizerModel: what any kind of tokenizer file says, in one form; and the tokenizer segment of a model file made from it.
// For `acornc convert`, `acornc perplexity` and the tests.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "acorn_schema/tokenizer_layout.h"
#include "text/chat_shapes.h"

namespace acorn::compiler {

class GgufFile;
struct TokenizerSource;  // import/source_model.h

struct SourceToken {
  std::string text;                           // as it is decoded: bytes, with spaces for U+2581
  uint32_t special_flags = 0;                 // tokenizer_layout::kSpecial*
  bool findable = true;                       // can be the result of a merge or a character of a text
  uint32_t rank = tokenizer_layout::kNoRank;  // MergeRule::kRanks
};

struct SourceMerge {
  uint32_t left, right, result;
};

struct TokenizerModel {
  tokenizer_layout::Symbols symbols = tokenizer_layout::Symbols::kBytes;
  tokenizer_layout::MergeRule merge_rule = tokenizer_layout::MergeRule::kPairs;
  tokenizer_layout::PreTokenizer pre_tokenizer = tokenizer_layout::PreTokenizer::kGpt2;
  tokenizer_layout::Normalizer normalizer = tokenizer_layout::Normalizer::kNone;
  tokenizer_layout::DummyPrefix dummy_prefix = tokenizer_layout::DummyPrefix::kNone;
  uint32_t flags = 0;  // tokenizer_layout::kFlag*
  int32_t bos_id = -1, eos_id = -1, unk_id = -1, pad_id = -1;
  std::vector<SourceToken> tokens;
  std::array<int32_t, 256> byte_ids;  // -1: none
  std::vector<SourceMerge> merges;    // in order of rank
  std::string jinja;                  // the source's chat template, empty: none
  CompiledChat chat;                  // made from it; chat.shape is empty where the shape is not known

  TokenizerModel() { byte_ids.fill(-1); }
};

/// What the model's configuration adds to its tokenizer's files.
struct TokenizerHints {
  int64_t vocab_size = 0;  // rows of the embedding; 0: as many as there are tokens
  int32_t bos_id = -1;
  std::vector<int32_t> eos_ids;  // each ends a reply
  int32_t pad_id = -1;
};

/// Reads the first kind of tokenizer that `source` names: tokenizer.json, GGUF metadata, tokenizer.model, llama2.c's bin.
/// Throws Error(kBadModel) with file and key or index for a tokenizer that is damaged or of a kind that is not known.
TokenizerModel ReadTokenizer(const TokenizerSource &source, const TokenizerHints &hints);

TokenizerModel ReadTokenizerJson(const std::string &json_path, const std::string &config_path, const std::string &jinja_path,
                                 const TokenizerHints &hints);
TokenizerModel ReadGgufTokenizer(const GgufFile &file, const TokenizerHints &hints);
/// tokenizer.model holds no chat template: `jinja` comes from beside it.
TokenizerModel ReadSentencePieceModel(const std::string &path, const std::string &jinja, const TokenizerHints &hints);
TokenizerModel ReadLlama2cTokenizer(const std::string &path, const TokenizerHints &hints);

/// The bytes of the segment: a pure function of the model.
std::vector<uint8_t> BuildTokenizerSegment(const TokenizerModel &model);

// Shared by the readers.

/// The chat template of tokenizer_config.json, or of chat_template.jinja where that exists; empty paths and no template: "".
std::string ReadJinja(const std::string &config_path, const std::string &jinja_path);
/// Applies hints: pads the vocabulary, takes the ids that the source lacks, marks the tokens that end a reply and compiles
/// the chat template. `name` is for messages. Throws when ids lie outside the vocabulary.
void FinishTokenizer(TokenizerModel *model, const TokenizerHints &hints, const std::string &name);
/// The bytes of a token in GPT-2's printable alphabet; false when a character is outside it.
bool DecodeByteAlphabet(const std::string &text, std::string *bytes);
/// "<0x0A>" -> 10, else -1.
int ParseByteToken(const std::string &text);
/// Text with U+2581 replaced by spaces.
std::string ReplaceMetaspace(const std::string &text);
/// Sets up `model` as SentencePiece BPE with byte fallback; scores[i] belongs to tokens[i], whose text is set.
void UseSentencePieceScores(TokenizerModel *model, const std::vector<float> &scores);
/// kSpaceRuns where it is exact (no findable token holds a space after another character), else kNone.
tokenizer_layout::PreTokenizer SpaceRunsWhereExact(const std::vector<SourceToken> &tokens);

}  // namespace acorn::compiler
