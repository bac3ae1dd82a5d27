#include "text/tokenizer.h"

#include "text/piece_encoder.h"
#include "text/pre_tokenizer.h"
#include "text/text_stream.h"
#include "text/token_tables.h"

namespace acorn {
namespace {

namespace layout = tokenizer_layout;

constexpr size_t kWorkAlignment = 8;
constexpr size_t kMaxWindowBytes = 2 * layout::kMaxPieceBytes + TextStream::kMinRoom;
// No canonical composition makes a text more than three times as long in UTF-8 (Unicode FAQ on normalisation).
constexpr size_t kMaxNfcGrowth = 3;

static_assert(PieceEncoder::WorkBytes(layout::kMaxPieceBytes) + kMaxWindowBytes <= kMaxEncodeWorkBytes,
              "the public bound of the work buffer");

// Bytes that a text may have after normalisation, saturating.
size_t NormalizedBytes(const Tokenizer &tokenizer, size_t text_bytes) {
  const bool nfc = tokenizer.header->normalizer == static_cast<uint32_t>(layout::Normalizer::kNfc);
  constexpr size_t kLarge = SIZE_MAX / 64;
  if (text_bytes > kLarge) text_bytes = kLarge;
  return text_bytes * (nfc ? kMaxNfcGrowth : 1) + 1;  // and a dummy prefix
}

struct WorkLayout {
  size_t piece_bytes;
  size_t window_bytes;
  size_t total_bytes;
};

WorkLayout PlanWork(const Tokenizer &tokenizer, size_t text_bytes) {
  const size_t normalized = NormalizedBytes(tokenizer, text_bytes);
  WorkLayout work;
  work.piece_bytes = normalized < layout::kMaxPieceBytes ? normalized : size_t{layout::kMaxPieceBytes};
  const size_t window = normalized + TextStream::kMinRoom;
  work.window_bytes = window < kMaxWindowBytes ? window : kMaxWindowBytes;
  const size_t total = PieceEncoder::WorkBytes(work.piece_bytes) + work.window_bytes;
  work.total_bytes = (total + kWorkAlignment - 1) / kWorkAlignment * kWorkAlignment;
  return work;
}

// Encodes the current section of the stream through a sliding window.
void EncodeSection(const Tokenizer &tokenizer, TextStream *stream, PieceEncoder *encoder, uint8_t *window, size_t window_bytes,
                   IdSink *sink) {
  const auto kind = static_cast<layout::PreTokenizer>(tokenizer.header->pre_tokenizer);
  size_t start = 0, end = 0;
  for (;;) {
    if (end - start <= layout::kMaxPieceBytes && !stream->SectionDone()) {
      __builtin_memmove(window, window + start, end - start);
      end -= start;
      start = 0;
      end += stream->Fill(window + end, window_bytes - end);
    }
    if (start == end) return;
    size_t view = end - start;
    if (view > layout::kMaxPieceBytes) {  // cut between characters
      view = layout::kMaxPieceBytes;
      for (int i = 0; i < kMaxUtf8Bytes - 1 && IsUtf8Continuation(window[start + view]); ++i) --view;
    }
    const size_t piece = NextPiece(kind, window + start, view);
    encoder->Encode(window + start, piece, sink);
    start += piece;
  }
}

}  // namespace

size_t EncodeWorkBytes(const Tokenizer &tokenizer, size_t text_bytes) { return PlanWork(tokenizer, text_bytes).total_bytes; }

size_t MaxTokens(const Tokenizer &tokenizer, size_t text_bytes) {
  // At most one token for each byte; each special token may bring a dummy prefix, but is longer than one byte or
  // replaces the byte that it is.
  const bool every = tokenizer.header->dummy_prefix == static_cast<uint32_t>(layout::DummyPrefix::kEvery);
  return NormalizedBytes(tokenizer, text_bytes) * (every ? 2 : 1) + 1;
}

Status EncodeParts(const Tokenizer &tokenizer, Span<const TextPart> parts, EncodeOptions options, Span<int32_t> out,
                   size_t *count, Span<uint8_t> work) {
  *count = 0;
  size_t text_bytes = 0;
  for (const TextPart &part : parts) {
    if (part.kind == TextPart::Kind::kToken) {
      if (part.token < 0 || static_cast<uint32_t>(part.token) >= tokenizer.header->vocab_size) return Status::kToken;
    } else {
      text_bytes += part.text.size();
    }
  }
  const WorkLayout plan = PlanWork(tokenizer, text_bytes);
  if (work.size() < plan.total_bytes || reinterpret_cast<uintptr_t>(work.data()) % kWorkAlignment != 0) {
    return Status::kMemory;
  }
  uint8_t *window = work.data() + PieceEncoder::WorkBytes(plan.piece_bytes);
  PieceEncoder encoder(tokenizer, work.data(), plan.piece_bytes);
  TextStream stream(tokenizer, parts, options.continues);
  IdSink sink{out};
  if (options.bos && AddsBos(tokenizer)) sink.Put(tokenizer.header->bos_id);
  for (;;) {
    EncodeSection(tokenizer, &stream, &encoder, window, plan.window_bytes, &sink);
    int32_t token;
    if (!stream.NextSection(&token)) break;
    sink.Put(token);
  }
  *count = sink.count;
  return sink.count > out.size() ? Status::kBuffer : Status::kOk;
}

Status Encode(const Tokenizer &tokenizer, Span<const char> text, EncodeOptions options, Span<int32_t> out, size_t *count,
              Span<uint8_t> work) {
  const TextPart part{options.markup ? TextPart::Kind::kMarkup : TextPart::Kind::kPlain, text, 0};
  return EncodeParts(tokenizer, Span<const TextPart>(&part, 1), options, out, count, work);
}

Span<const uint8_t> TokenText(const Tokenizer &tokenizer, int32_t id) {
  ACORN_DCHECK(id >= 0 && static_cast<uint32_t>(id) < tokenizer.header->vocab_size);
  const uint32_t start = tokenizer.token_starts[id];
  return Span<const uint8_t>(tokenizer.token_text + start, tokenizer.token_starts[id + 1] - start);
}

uint32_t TokenFlags(const Tokenizer &tokenizer, int32_t id) {
  size_t low = 0, high = tokenizer.specials.size();
  while (low < high) {
    const size_t middle = (low + high) / 2;
    const layout::Special &special = tokenizer.specials[middle];
    if (special.id == static_cast<uint32_t>(id)) return special.flags;
    if (special.id < static_cast<uint32_t>(id)) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return 0;
}

uint32_t MatchMarkup(const Tokenizer &tokenizer, const uint8_t *text, size_t bytes, size_t *length) {
  uint32_t best = kNoIndex;
  *length = 0;
  for (const layout::Special &special : tokenizer.specials) {
    if ((special.flags & layout::kSpecialMarkup) == 0) continue;
    const Span<const uint8_t> token = TokenText(tokenizer, static_cast<int32_t>(special.id));
    if (token.size() <= *length || token.size() > bytes) continue;
    if (__builtin_memcmp(token.data(), text, token.size()) != 0) continue;
    best = special.id;
    *length = token.size();
  }
  return best;
}

}  // namespace acorn
