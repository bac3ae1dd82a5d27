// The tokenizer segment of a model file: one block of tables, read in place by the runtime. FORMAT_TOKENIZER.md explains
// every field. Shared by the writer (compiler/text), the reader (runtime/text) and the tests.
#pragma once

#include <cstddef>
#include <cstdint>

namespace acorn::tokenizer_layout {

constexpr uint32_t kMagic = 0x4B544341;  // "ACTK" read as a little-endian word
constexpr uint32_t kVersion = 0;
constexpr uint32_t kTableAlignment = 8;  // of every table and of the segment itself

constexpr int kIdBits = 21;
constexpr uint32_t kIdMask = (1u << kIdBits) - 1;
constexpr uint32_t kMaxVocabulary = kIdMask;  // so that no slot of a hash table looks empty
constexpr uint32_t kMaxMerges = kIdMask;
constexpr uint32_t kMaxSpecials = 4096;
constexpr uint32_t kMaxMarkupBytes = 65536;  // of all texts that are looked for at each place of a text with markup
constexpr uint32_t kMaxTokenBytes = 4096;
constexpr uint32_t kMaxChatOps = 256;
constexpr uint32_t kMaxProbes = 256;  // a key of a hash table lies within this many slots of its home

/// A pre-token longer than this is cut at the last character boundary that fits; the only place where encoding may differ
/// from the original tokenizer.
constexpr uint32_t kMaxPieceBytes = 4096;

enum class Symbols : uint32_t {
  kBytes = 0,       // byte-level: every byte is a symbol (byte_ids)
  kCharacters = 1,  // every UTF-8 character is a symbol; one outside the vocabulary falls back to its bytes
};

enum class MergeRule : uint32_t {
  kPairs = 0,  // merges in the order of a list of pairs
  kRanks = 1,  // any neighbours whose joined text is a token, best rank first (SentencePiece scores)
};

enum class PreTokenizer : uint32_t {
  kNone = 0,       // the whole text is one piece
  kGpt2 = 1,       // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  kDigitGpt2 = 2,  // every \p{N} alone, then kGpt2 on what lies between (SmolLM2)
  kLlama3 = 3,     // (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|
                   // \s+(?!\S)|\s+
  kQwen2 = 4,      // kLlama3 with \p{N} in place of \p{N}{1,3}
  kSpaceRuns = 5,  // before each run of spaces: exact where no token holds a space after another character
};

enum class Normalizer : uint32_t {
  kNone = 0,
  kNfc = 1,
  kMetaspace = 2,  // U+2581 is a space
};

enum class DummyPrefix : uint32_t {
  kNone = 0,
  kFirst = 1,  // one space before a text that starts a sequence
  kEvery = 2,  // and after every special token
};

/// Bits of Header::flags.
constexpr uint32_t kFlagAddBos = 1u << 0;      // a plain prompt starts with bos_id
constexpr uint32_t kFlagAddEos = 1u << 1;      // informative: the source appends eos_id in training
constexpr uint32_t kFlagWholePiece = 1u << 2;  // a piece that is a token is not split (needs text_slots)

/// Bits of Special::flags.
constexpr uint32_t kSpecialHidden = 1u << 0;  // not part of the text that a detokenizer gives
constexpr uint32_t kSpecialMarkup = 1u << 1;  // recognised in text that may hold markup
constexpr uint32_t kSpecialStop = 1u << 2;    // ends a reply

struct Special {
  uint32_t id;
  uint32_t flags;
};

/// A table inside the segment.
struct Table {
  uint32_t offset;  // bytes from the start of the segment, a multiple of kTableAlignment
  uint32_t count;   // elements
};

/// Sections of a chat template, each a list of ChatOps.
enum class ChatSection : uint32_t {
  kStart = 0,             // starts a conversation
  kDefaultSystem = 1,     // after kStart when the first message is not a system message
  kSystem = 2,            // a system message
  kUser = 3,              // a user message
  kUserWithSystem = 4,    // the first user message together with the system message before it; empty: kSystem, then kUser
  kAssistant = 5,         // a whole assistant message
  kGenerationPrompt = 6,  // asks for a reply
  kReplyEnd = 7,          // what follows a generated reply before the next message
};
constexpr uint32_t kChatSections = 8;

enum class ChatOpKind : uint32_t {
  kToken = 0,           // a = token id
  kText = 1,            // a = byte offset in chat_text, b = bytes
  kContent = 2,         // the message's content
  kContentTrimmed = 3,  // without white space at both ends
  kSystem = 4,          // only in kUserWithSystem: the system message's content
  kSystemTrimmed = 5,
};

struct ChatOp {
  uint32_t kind;
  uint32_t a;
  uint32_t b;
};

struct Header {
  uint32_t magic;
  uint32_t version;
  uint32_t segment_bytes;
  uint32_t flags;
  uint32_t symbols;
  uint32_t merge_rule;
  uint32_t pre_tokenizer;
  uint32_t normalizer;
  uint32_t dummy_prefix;
  uint32_t vocab_size;
  uint32_t max_token_bytes;
  int32_t bos_id;  // -1: none, here and below
  int32_t eos_id;
  int32_t unk_id;
  int32_t pad_id;
  uint32_t reserved;    // 0
  Table token_starts;   // u32 [vocab_size + 1], ascending, into token_text
  Table token_text;     // u8: the text of each token as it is decoded
  Table byte_ids;       // s32 [256]: the token of a byte; -1: unk_id if there is one, else dropped
  Table merges;         // u64: PackMerge, in order of rank
  Table merge_slots;    // u32: hash of (left, right) -> PackSlot(rank)
  Table ranks;          // u32 [vocab_size]: lower merges first; kNoRank: never the result of a merge
  Table text_slots;     // u32: hash of text -> PackSlot(id)
  Table specials;       // Special, ascending ids
  Table chat_sections;  // Table [kChatSections] of ChatOp, or empty: no chat template
  Table chat_text;      // u8
};
static_assert(sizeof(Header) == 144, "the header is part of the format");

constexpr uint32_t kNoRank = 0xFFFFFFFFu;
constexpr uint32_t kEmptySlot = 0xFFFFFFFFu;

constexpr uint64_t PackMerge(uint32_t left, uint32_t right, uint32_t result) {
  return uint64_t{left} | uint64_t{right} << kIdBits | uint64_t{result} << (2 * kIdBits);
}
constexpr uint32_t MergeLeft(uint64_t merge) { return static_cast<uint32_t>(merge) & kIdMask; }
constexpr uint32_t MergeRight(uint64_t merge) { return static_cast<uint32_t>(merge >> kIdBits) & kIdMask; }
constexpr uint32_t MergeResult(uint64_t merge) { return static_cast<uint32_t>(merge >> (2 * kIdBits)); }

/// The finaliser of SplitMix64.
constexpr uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}
constexpr uint64_t HashPair(uint32_t left, uint32_t right) { return Mix(uint64_t{left} << 32 | right); }

/// Words of 8 bytes, little-endian, the last one padded with zeros.
inline uint64_t HashText(const uint8_t *text, size_t bytes) {
  uint64_t hash = bytes * 0x9E3779B97F4A7C15u;
  for (; bytes > 8; bytes -= 8, text += 8) {
    uint64_t word;
    __builtin_memcpy(&word, text, 8);
    hash = Mix(hash ^ word);
  }
  uint64_t last = 0;
  for (size_t i = 0; i < bytes; ++i) last |= uint64_t{text[i]} << (8 * i);
  return Mix(hash ^ last);
}

/// A slot is the index of its key (low kIdBits) and bits of the hash, so that most misses end without reading the key.
constexpr uint32_t HomeSlot(uint64_t hash, uint32_t slot_count) {
  return static_cast<uint32_t>(((hash >> 32) * slot_count) >> 32);
}
constexpr uint32_t PackSlot(uint64_t hash, uint32_t index) { return static_cast<uint32_t>(hash) << kIdBits | index; }
constexpr uint32_t SlotIndex(uint32_t slot) { return slot & kIdMask; }

/// Slots for `keys` keys: two thirds full, about five slots read for a miss.
constexpr uint32_t SlotCount(uint32_t keys) { return keys + keys / 2 + 1; }

}  // namespace acorn::tokenizer_layout
