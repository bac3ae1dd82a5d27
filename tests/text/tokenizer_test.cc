// Encoding: against Hugging Face's tokenizers (tests/data/text), against a plain quadratic byte-pair encoder, and at the
// edges of buffers.
#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "base/error.h"
#include "tests/support/guarded_buffer.h"
#include "tests/support/opened_tokenizer.h"
#include "tests/support/shared_data.h"
#include "tests/support/temp_folder.h"

namespace acorn::test {
namespace {

namespace layout = tokenizer_layout;
using compiler::SourceToken;
using compiler::TokenizerModel;
using nlohmann::json;

TokenizerModel SmallModel() { return compiler::ReadTokenizerJson(DataPath("text/tokenizer.json"), "", "", {}); }

TEST(Golden, EveryPreTokenizer) {
  const json golden = json::parse(ReadFile(DataPath("text/golden.json")));
  ASSERT_EQ(golden["variants"].size(), 4u);
  for (const auto &[name, variant] : golden["variants"].items()) {
    json source = json::parse(ReadFile(DataPath("text/tokenizer.json")));
    source["pre_tokenizer"] = variant["pre_tokenizer"];
    source["normalizer"] = variant["normalizer"];
    source["model"]["ignore_merges"] = variant["ignore_merges"];
    const TempFolder folder;
    const OpenedTokenizer tokenizer(compiler::ReadTokenizerJson(folder.Write("tokenizer.json", source.dump()), "", "", {}));
    const bool keeps_text = variant["normalizer"].is_null();
    for (size_t i = 0; i < golden["texts"].size(); ++i) {
      const std::string text = golden["texts"][i];
      const Ids ids = tokenizer.Encode(text);
      EXPECT_EQ(ids, variant["ids"][i].get<Ids>()) << name << ", text " << i << ": " << golden["texts"][i];
      EXPECT_EQ(tokenizer.EncodeMarkup(text), variant["markup_ids"][i].get<Ids>()) << name << ", text " << i;
      if (keeps_text) {
        EXPECT_EQ(tokenizer.Decode(ids), text) << name << ", text " << i;
      }
    }
  }
}

// The definition, quadratic: merge the pair of the lowest rank, leftmost first, until none is left.
Ids MergePlainly(const TokenizerModel &model, const std::string &piece) {
  std::map<std::pair<uint32_t, uint32_t>, size_t> ranks;
  for (size_t i = 0; i < model.merges.size(); ++i) ranks.emplace(std::pair(model.merges[i].left, model.merges[i].right), i);
  Ids ids;
  for (const char c : piece) {
    const int32_t id = model.byte_ids[static_cast<unsigned char>(c)];
    if (id >= 0) ids.push_back(id);
  }
  for (;;) {
    size_t best = SIZE_MAX, at = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto rank = ranks.find({ids[i], ids[i + 1]});
      if (rank != ranks.end() && rank->second < best) {
        best = rank->second;
        at = i;
      }
    }
    if (best == SIZE_MAX) return ids;
    ids[at] = static_cast<int32_t>(model.merges[best].result);
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

std::string RandomText(std::mt19937 *random, const std::string &alphabet, size_t length) {
  std::string text;
  for (size_t i = 0; i < length; ++i) text += alphabet[(*random)() % alphabet.size()];
  return text;
}

TEST(Merging, HeapAndScanAgreeWithTheDefinition) {
  TokenizerModel model = SmallModel();
  model.pre_tokenizer = layout::PreTokenizer::kNone;
  const OpenedTokenizer tokenizer(model);
  std::mt19937 random(1);
  for (int i = 0; i < 400; ++i) {
    const size_t length = 1 + random() % (i % 10 == 0 ? 600 : 60);
    const std::string text = RandomText(&random, i % 2 == 0 ? " theinandrosl" : "a  t", length);
    EXPECT_EQ(tokenizer.Encode(text), MergePlainly(model, text)) << text;
  }
}

TEST(Merging, BytesWithoutTokenAreDropped) {
  TokenizerModel model = SmallModel();
  model.byte_ids['q'] = -1;
  const OpenedTokenizer dropping(model);
  EXPECT_EQ(dropping.Encode("tqhe"), dropping.Encode("the"));
  model.unk_id = 3;
  const OpenedTokenizer marking(model);
  EXPECT_EQ(marking.Encode("q"), Ids({3}));
}

// A SentencePiece-like tokenizer: bytes, and pieces with scores.
TokenizerModel PieceModel(const std::map<std::string, float> &pieces) {
  TokenizerModel model;
  std::vector<float> scores;
  const auto add = [&](const std::string &text, bool findable, float score) {
    SourceToken token;
    token.text = text;
    token.findable = findable;
    model.tokens.push_back(token);
    scores.push_back(score);
  };
  for (const char *name : {"<unk>", "<s>", "</s>"}) {
    add(name, false, 0);
    model.tokens.back().special_flags = layout::kSpecialHidden | layout::kSpecialMarkup;
  }
  for (int byte = 0; byte < 256; ++byte) {
    model.byte_ids[static_cast<size_t>(byte)] = static_cast<int32_t>(model.tokens.size());
    add(std::string(1, static_cast<char>(byte)), false, 0);
  }
  for (const auto &[text, score] : pieces) add(text, true, score);
  model.unk_id = 0;
  model.bos_id = 1;
  model.eos_id = 2;
  model.flags = layout::kFlagAddBos;
  compiler::UseSentencePieceScores(&model, scores);
  model.dummy_prefix = layout::DummyPrefix::kEvery;
  compiler::FinishTokenizer(&model, {}, "pieces");
  return model;
}

std::map<std::string, float> SomePieces() {
  std::map<std::string, float> pieces = {{" ", -90}, {"  ", -3},  {"    ", -4}, {"é", -80}, {"ab", -1}, {"ba", -1},
                                         {" a", -2}, {"aba", -5}, {" ab", -6},  {"éa", -7}, {"bab", -5}};
  for (const char c : std::string("abc")) pieces[std::string(1, c)] = -100;
  return pieces;
}

// SentencePiece's definition: join the neighbours whose text has the best score, leftmost first; the rest is bytes.
Ids JoinPlainly(const TokenizerModel &model, const std::map<std::string, float> &pieces, const std::string &text) {
  std::vector<std::string> symbols;
  for (size_t i = 0; i < text.size();) {
    size_t length = 1;
    while (i + length < text.size() && (static_cast<unsigned char>(text[i + length]) & 0xC0) == 0x80) ++length;
    symbols.push_back(text.substr(i, length));
    i += length;
  }
  for (;;) {
    float best = -1e9f;
    size_t at = SIZE_MAX;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto piece = pieces.find(symbols[i] + symbols[i + 1]);
      if (piece != pieces.end() && piece->second > best) {
        best = piece->second;
        at = i;
      }
    }
    if (at == SIZE_MAX) break;
    symbols[at] += symbols[at + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
  Ids ids;
  for (const std::string &symbol : symbols) {
    int32_t id = -1;
    for (size_t i = 259; i < model.tokens.size(); ++i) {
      if (model.tokens[i].text == symbol) id = static_cast<int32_t>(i);
    }
    if (id >= 0) {
      ids.push_back(id);
    } else {
      for (const char c : symbol) ids.push_back(model.byte_ids[static_cast<unsigned char>(c)]);
    }
  }
  return ids;
}

TEST(SentencePiece, AgreesWithTheDefinition) {
  const std::map<std::string, float> pieces = SomePieces();
  const TokenizerModel model = PieceModel(pieces);
  EXPECT_EQ(model.pre_tokenizer, layout::PreTokenizer::kSpaceRuns);
  const OpenedTokenizer tokenizer(model);
  std::mt19937 random(2);
  for (int i = 0; i < 500; ++i) {
    std::string text;
    const size_t length = random() % 80;
    for (size_t j = 0; j < length; ++j) {
      constexpr const char *kLetters[] = {"a", "b", "a", "b", "c", " ", " ", "é", "日", "\n"};
      text += kLetters[random() % 10];
    }
    const Ids expected = text.empty() ? Ids() : JoinPlainly(model, pieces, " " + text);
    EXPECT_EQ(tokenizer.Encode(text), expected) << text;
    EXPECT_EQ(tokenizer.DecodeWhole(expected), text);
  }
}

TEST(SentencePiece, PrefixBosAndMetaspace) {
  const OpenedTokenizer tokenizer(PieceModel(SomePieces()));
  EXPECT_EQ(tokenizer.Encode("\xE2\x96\x81"
                             "a"),
            tokenizer.Encode(" a"));
  EncodeOptions options;
  options.bos = true;
  Ids expected = tokenizer.Encode("ab");
  expected.insert(expected.begin(), 1);
  EXPECT_EQ(tokenizer.Encode("ab", options), expected);
  options.bos = false;
  options.continues = true;
  EXPECT_EQ(tokenizer.Decode(tokenizer.Encode("ab", options)), "ab");
  EXPECT_EQ(tokenizer.Decode(tokenizer.Encode("ab")), " ab");
  EXPECT_EQ(tokenizer.Encode("<s>").size(), 4u);  // plain text is no markup: the prefix and three characters
  EXPECT_EQ(tokenizer.EncodeMarkup("<s>a</s>b").front(), 1);
  EXPECT_EQ(tokenizer.Decode(tokenizer.EncodeMarkup("<s>a</s>b")), " a b");
}

TEST(SentencePiece, GemmasTokenizerSplitsAtSpacesThatAreGone) {
  const TempFolder folder;
  const auto read = [&](const char *pattern) {
    return compiler::ReadTokenizerJson(folder.Write("tokenizer.json", std::string(R"({"added_tokens": [],
      "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
      "pre_tokenizer": {"type": "Split", "pattern": {"String": ")") + pattern + R"("}, "behavior": "MergedWithPrevious"},
      "model": {"type": "BPE", "byte_fallback": true, "unk_token": "<unk>",
                "vocab": {"<unk>": 0, "a": 1, "b": 2, "\u2581": 3, "ab": 4, "\u2581a": 5},
                "merges": [["a", "b"], ["\u2581", "a"]]}})"), "", "", {});
  };
  const OpenedTokenizer tokenizer(read(" "));
  EXPECT_EQ(tokenizer.Encode("ab a b"), (Ids{4, 5, 3, 2}));
  EXPECT_THROW(read("a"), compiler::Error);
}

TEST(TokenizerJson, APostProcessorThatAddsNothing) {
  const TempFolder folder;
  json source = json::parse(ReadFile(DataPath("text/tokenizer.json")));
  source["post_processor"] = {{"type", "TemplateProcessing"}, {"single", json::array()}};
  const TokenizerModel model = compiler::ReadTokenizerJson(folder.Write("tokenizer.json", source.dump()), "", "", {});
  EXPECT_EQ(model.flags, SmallModel().flags & ~(layout::kFlagAddBos | layout::kFlagAddEos));
}

TEST(Pieces, ALongOneIsCutBetweenCharacters) {
  TokenizerModel model = SmallModel();
  const OpenedTokenizer tokenizer(model);
  std::string text = "x";
  while (text.size() < 3 * layout::kMaxPieceBytes) text += "\u00e9";
  const size_t cut = layout::kMaxPieceBytes - 1;  // the last boundary that fits: x and whole characters of two bytes
  Ids expected = MergePlainly(model, text.substr(0, cut));
  for (size_t at = cut; at < text.size(); at += layout::kMaxPieceBytes) {
    const Ids more = MergePlainly(model, text.substr(at, layout::kMaxPieceBytes));
    expected.insert(expected.end(), more.begin(), more.end());
  }
  EXPECT_EQ(tokenizer.Encode(text), expected);
}

TEST(Pieces, TheWindowDoesNotShow) {
  // The same text in one call and word by word: words end at pre-token boundaries.
  const OpenedTokenizer tokenizer(SmallModel());
  std::mt19937 random(3);
  std::string text;
  Ids expected;
  while (text.size() < 40000) {
    const std::string word = " " + RandomText(&random, "theinandro", 1 + random() % 300);
    text += word;
    const Ids ids = tokenizer.Encode(word);
    expected.insert(expected.end(), ids.begin(), ids.end());
  }
  EXPECT_EQ(tokenizer.Encode(text), expected);
}

TEST(Parts, MergesCrossPartsButNotTokens) {
  const OpenedTokenizer tokenizer(SmallModel());
  const std::string a = "turn o", b = "ff the <|user|>", c = "lamp";
  const auto part = [](TextPart::Kind kind, const std::string &text) {
    TextPart result;
    result.kind = kind;
    result.text = OpenedTokenizer::Chars(text);
    return result;
  };
  TextPart token;
  token.kind = TextPart::Kind::kToken;
  token.token = 2;
  const TextPart parts[] = {part(TextPart::Kind::kPlain, a), part(TextPart::Kind::kMarkup, b), token,
                            part(TextPart::Kind::kPlain, b), part(TextPart::Kind::kPlain, c)};
  Ids expected = tokenizer.Encode("turn off the ");
  expected.push_back(1);
  expected.push_back(2);
  const Ids rest = tokenizer.Encode("ff the <|user|>lamp");
  expected.insert(expected.end(), rest.begin(), rest.end());
  Ids ids(100);
  size_t count = 0;
  std::vector<uint8_t> work(kMaxEncodeWorkBytes);
  ASSERT_EQ(EncodeParts(tokenizer.get(), Span<const TextPart>(parts, 5), {}, Span<int32_t>(ids.data(), ids.size()), &count,
                        Span<uint8_t>(work.data(), work.size())),
            Status::kOk);
  ids.resize(count);
  EXPECT_EQ(ids, expected);
  token.token = static_cast<int32_t>(VocabSize(tokenizer.get()));
  EXPECT_EQ(EncodeParts(tokenizer.get(), Span<const TextPart>(&token, 1), {}, Span<int32_t>(ids.data(), ids.size()), &count,
                        Span<uint8_t>(work.data(), work.size())),
            Status::kToken);
}

TEST(Buffers, TooSmallOnesAreSaid) {
  const OpenedTokenizer tokenizer(SmallModel());
  const std::string text = "turn off the lamp in the kitchen";
  const Ids expected = tokenizer.Encode(text);
  std::vector<uint8_t> work(EncodeWorkBytes(tokenizer.get(), text.size()));
  for (size_t room = 0; room <= expected.size(); ++room) {
    Ids ids(expected.size() + 1, -7);
    size_t count = 0;
    const Status status = Encode(tokenizer.get(), OpenedTokenizer::Chars(text), {}, Span<int32_t>(ids.data(), room), &count,
                                 Span<uint8_t>(work.data(), work.size()));
    EXPECT_EQ(status, room < expected.size() ? Status::kBuffer : Status::kOk);
    EXPECT_EQ(count, expected.size());
    EXPECT_EQ(ids[room], -7);
  }
  size_t count = 0;
  Ids ids(100);
  EXPECT_EQ(Encode(tokenizer.get(), OpenedTokenizer::Chars(text), {}, Span<int32_t>(ids.data(), ids.size()), &count,
                   Span<uint8_t>(work.data(), work.size() - 1)),
            Status::kMemory);
  EXPECT_EQ(Encode(tokenizer.get(), OpenedTokenizer::Chars(text), {}, Span<int32_t>(ids.data(), ids.size()), &count,
                   Span<uint8_t>(work.data() + 1, work.size() - 1)),
            Status::kMemory);
}

// Random bytes through every kind of tokenizer, all buffers exact and guarded: nothing is read or written outside.
TEST(Buffers, RandomBytesStayInside) {
  std::mt19937 random(4);
  for (const uint32_t kind : {0u, 1u, 2u, 3u, 4u, 5u}) {
    for (const bool characters : {false, true}) {
      TokenizerModel model = characters ? PieceModel(SomePieces()) : SmallModel();
      model.pre_tokenizer = static_cast<layout::PreTokenizer>(kind);
      if (!characters) model.normalizer = layout::Normalizer::kNfc;
      const OpenedTokenizer tokenizer(model);
      for (int i = 0; i < 60; ++i) {
        const size_t bytes = random() % (i % 20 == 0 ? 10000 : 50);
        GuardedBuffer<char> text(bytes);
        for (size_t j = 0; j < bytes; ++j) {
          text.data()[j] =
              static_cast<char>(random() % 3 == 0 ? random() : " aeth\xcc\x81\xe1\x84\x80\xe1\x85\xa1<|>"[random() % 16]);
        }
        GuardedBuffer<int32_t> ids(MaxTokens(tokenizer.get(), bytes));
        GuardedBuffer<uint64_t> work(EncodeWorkBytes(tokenizer.get(), bytes) / 8);
        size_t count = 0;
        EncodeOptions options;
        options.markup = i % 2 == 0;
        ASSERT_EQ(Encode(tokenizer.get(), Span<const char>(text.data(), bytes), options,
                         Span<int32_t>(ids.data(), MaxTokens(tokenizer.get(), bytes)), &count,
                         Span<uint8_t>(reinterpret_cast<uint8_t *>(work.data()), EncodeWorkBytes(tokenizer.get(), bytes))),
                  Status::kOk);
        for (size_t j = 0; j < count; ++j) ASSERT_LT(static_cast<uint32_t>(ids.data()[j]), VocabSize(tokenizer.get()));
      }
    }
  }
}

}  // namespace
}  // namespace acorn::test
