// Tokenizers that are as they should be, of every kind that the runtime knows. For fuzz targets that change text alone.
#pragma once

#include <map>
#include <memory>

#include "tests/fuzz/text_checks.h"
#include "text/source_tokenizer.h"

namespace acorn::fuzz {

/// Which kinds there are, in the bits of a number.
struct TokenizerKind {
  explicit TokenizerKind(uint64_t bits)
      : characters((bits & 1) != 0),
        pre(static_cast<tokenizer_layout::PreTokenizer>((bits >> 1) % 6)),
        nfc(!characters && (bits >> 4 & 1) != 0),
        prefix(static_cast<tokenizer_layout::DummyPrefix>((bits >> 5) % 3)) {}
  bool characters;  // with ranks and bytes to fall back on; else bytes with pairs
  tokenizer_layout::PreTokenizer pre;
  bool nfc;
  tokenizer_layout::DummyPrefix prefix;
};

/// 256 bytes, words, and three special tokens with a chat template over them.
inline compiler::TokenizerModel SoundTokenizer(const TokenizerKind &kind) {
  compiler::TokenizerModel model;
  model.pre_tokenizer = kind.pre;
  model.dummy_prefix = kind.prefix;
  const auto add = [&](const std::string &text, uint32_t flags, bool is_findable) {
    compiler::SourceToken token;
    token.text = text;
    token.special_flags = flags;
    token.findable = is_findable;
    token.rank = static_cast<uint32_t>(model.tokens.size());
    model.tokens.push_back(token);
    return static_cast<uint32_t>(model.tokens.size() - 1);
  };
  for (int byte = 0; byte < 256; ++byte) {
    add(std::string(1, static_cast<char>(byte)), 0, !kind.characters || byte < 0x80);
    model.byte_ids[static_cast<size_t>(byte)] = byte;
  }
  for (const char *word : {"th", "he", "the", " t", " the", "in", "ing", "\xc3\xa9", "\xe4\xbd", "\xe4\xbd\xa0", "  ", "    ", "11"}) {
    const std::string text = word;
    const auto find = [&](const std::string &part) {
      for (size_t id = 0; id < model.tokens.size(); ++id) {
        if (model.tokens[id].text == part) return static_cast<uint32_t>(id);
      }
      return UINT32_MAX;
    };
    for (size_t at = 1; at < text.size(); ++at) {
      const uint32_t left = find(text.substr(0, at)), right = find(text.substr(at));
      if (left == UINT32_MAX || right == UINT32_MAX) continue;
      model.merges.push_back({left, right, add(text, 0, true)});
      break;
    }
  }
  const uint32_t special = tokenizer_layout::kSpecialHidden | tokenizer_layout::kSpecialMarkup;
  model.bos_id = static_cast<int32_t>(add("<s>", special, false));
  add("<|user|>", special, false);
  model.eos_id = static_cast<int32_t>(add("<|end|>", special | tokenizer_layout::kSpecialStop, false));
  model.flags = tokenizer_layout::kFlagAddBos;
  if (kind.nfc) model.normalizer = tokenizer_layout::Normalizer::kNfc;
  if (kind.characters) {
    model.symbols = tokenizer_layout::Symbols::kCharacters;
    model.merge_rule = tokenizer_layout::MergeRule::kRanks;
    model.normalizer = tokenizer_layout::Normalizer::kMetaspace;
    model.merges.clear();
  }
  return model;
}

/// The tokenizer of a kind, made once.
inline const Tokenizer &TokenizerOf(uint64_t bits) {
  static std::map<uint64_t, std::unique_ptr<compiler::SourceTokenizer>> made;
  std::unique_ptr<compiler::SourceTokenizer> &tokenizer = made[bits];
  if (tokenizer == nullptr) tokenizer = std::make_unique<compiler::SourceTokenizer>(SoundTokenizer(TokenizerKind(bits)));
  return tokenizer->get();
}

}  // namespace acorn::fuzz
