#include "session/snapshot.h"

#include "acorn_schema/file.h"
#include "acorn_schema/snapshot.h"
#include "kernels/kv_cache.h"

namespace acorn {
namespace {

/// What the length of a snapshot depends on, beside the model.
struct Contents {
  uint32_t profile;
  uint64_t position, computed;
  uint32_t logits;  // vocab_size or 0
};

enum class PartKind : uint8_t { kTokens, kLogits, kKeys, kValues, kConv, kScan };

/// One array of a snapshot.
struct Part {
  PartKind kind;
  const Step *step;  // whose it is; tokens and logits: null
  uint64_t offset;   // from the snapshot's start
  uint64_t bytes;    // without what follows up to the next part
  uint64_t rows;     // of keys and values: the prefix and the newest tokens
};

/// Of a conversation's ids, the newest that a session without an end still has.
uint64_t IdsOf(const Model &model, const Contents &contents) {
  const uint64_t most = model.graph.max_context;
  return contents.position < most ? contents.position : most;
}

/// The tokens before token `computed` that it sees.
uint64_t SeenOf(const Cache &cache, uint64_t computed) {
  return cache.window == 0 || computed < cache.window ? computed : cache.window - 1;
}

/// body(part) for the parts in their order. What a session computes at its rate is all that is there: dimensions that only lower
/// rates have are never read again.
template <typename Body>
void ForParts(const Model &model, const Contents &contents, const Body &body) {
  uint64_t offset = kSnapshotHeaderBytes;
  const auto visit = [&](PartKind kind, const Step *step, uint64_t bytes, uint64_t rows = 0) {
    const Part part = {kind, step, offset, bytes, rows};
    offset += AlignUp(bytes, kSnapshotAlignment);
    body(part);
  };
  visit(PartKind::kTokens, nullptr, IdsOf(model, contents) * sizeof(int32_t));
  visit(PartKind::kLogits, nullptr, contents.logits * sizeof(int32_t));
  for (const Step &step : model.graph.profiles[contents.profile].body) {
    if (step.kind == OpKind::kAppend) {
      const Cache &cache = model.graph.caches[step.append.cache];
      const uint64_t rows = model.extent.prefix_rows + SeenOf(cache, contents.computed);
      visit(PartKind::kKeys, &step, kv_cache::CacheBytes(rows, cache.kv_heads, step.append.k_dim, cache.bits), rows);
      visit(PartKind::kValues, &step, kv_cache::CacheBytes(rows, cache.kv_heads, step.append.v_dim, cache.bits), rows);
    } else if (step.kind == OpKind::kConv && contents.computed != 0) {
      const ConvOp &op = step.conv;
      visit(PartKind::kConv, &step, uint64_t{op.taps - 1} * op.in.width * sizeof(int16_t));
    } else if (step.kind == OpKind::kScan && contents.computed != 0) {
      visit(PartKind::kScan, &step, StateBytes(model.graph.states[step.scan.state]));
    }
  }
}

uint64_t BytesOf(const Model &model, const Contents &contents) {
  uint64_t bytes = 0;
  ForParts(model, contents, [&bytes](const Part &part) { bytes = part.offset + AlignUp(part.bytes, kSnapshotAlignment); });
  return bytes;
}

Contents ContentsOf(const Session &session) {
  const uint32_t logits = session.logits == nullptr ? 0 : session.model->graph.vocab_size;
  return {session.profile, session.position, session.state_position, logits};
}

/// The keys or the values of a cache, in memory or in a snapshot: heads one after the other, and in each its tiles.
struct Rows {
  uint64_t tile_bytes, head_bytes;
};

struct CacheSlice {
  uint64_t heads, rows, dim, bits;
  bool keys;
  Rows memory, snapshot;
  bool is_ring;  // in memory; else rows stand where they stand in the snapshot
  uint64_t prefix_rows;
  uint64_t first_token;  // of the rows behind them
  kv_cache::TokenRows token_rows;

  uint64_t MemoryRow(uint64_t row) const {
    return row < prefix_rows ? row : token_rows.RowOf(first_token + (row - prefix_rows));
  }
};

constexpr size_t kValueTileRows = 4;

// computed: tokens of which the part has the newest
CacheSlice SliceOf(const Model &model, const Part &part, uint64_t computed) {
  const AppendOp &op = part.step->append;
  const Cache &cache = model.graph.caches[op.cache];
  const bool keys = part.kind == PartKind::kKeys;
  const uint64_t dim = keys ? op.k_dim : op.v_dim;
  const uint64_t tiles = keys ? 1 : kv_cache::kTileRows / kValueTileRows;  // in as many rows as a tile of keys has
  const auto rows_of = [&](uint64_t rows, uint64_t head_dim) {
    const uint64_t tile_bytes = kv_cache::HeadBytes(kv_cache::kTileRows, head_dim, cache.bits) / tiles;
    return Rows{tile_bytes, kv_cache::HeadBytes(rows, head_dim, cache.bits)};
  };
  const kv_cache::TokenRows token_rows = kv_cache::TokenRowsOf(model.extent, cache.window);
  const uint64_t prefix_rows = model.extent.prefix_rows;
  return {cache.kv_heads, part.rows, dim, cache.bits, keys, rows_of(token_rows.all(), cache.head_dim), rows_of(part.rows, dim),
          cache.window != 0, prefix_rows, computed - (part.rows - prefix_rows), token_rows};
}

enum class Way : uint8_t { kSave, kLoad };

/// Rows that turn in memory and stand in the order of their tokens in a snapshot, one by one: of a tile's units, which hold some bytes
/// for each of its rows, as many as the snapshot has.
void CopyRing(const CacheSlice &slice, Way way, uint8_t *to, const uint8_t *from) {
  const uint64_t tile_rows = slice.keys ? kv_cache::kTileRows : kValueTileRows, row_bytes = slice.keys ? 4 : 1;
  const uint64_t unit = tile_rows * row_bytes;
  const auto offset_of = [&](const Rows &rows, uint64_t head, uint64_t row) {
    return head * rows.head_bytes + row / tile_rows * rows.tile_bytes + row % tile_rows * row_bytes;
  };
  for (uint64_t head = 0; head < slice.heads; ++head) {
    for (uint64_t row = 0; row < slice.rows; ++row) {
      const uint64_t memory = offset_of(slice.memory, head, slice.MemoryRow(row)), snapshot = offset_of(slice.snapshot, head, row);
      uint8_t *out = to + (way == Way::kSave ? snapshot : memory);
      const uint8_t *in = from + (way == Way::kSave ? memory : snapshot);
      for (uint64_t at = 0; at < slice.snapshot.tile_bytes; at += unit) __builtin_memcpy(out + at, in + at, row_bytes);
    }
  }
}

/// The first rows of each head, of each tile as much as both have: a rate's dimensions are the first of the tile too.
void CopyRows(const CacheSlice &slice, uint8_t *to, const Rows &to_rows, const uint8_t *from, const Rows &from_rows) {
  const uint64_t tile_bytes = slice.snapshot.tile_bytes;
  for (uint64_t head = 0; head < slice.heads; ++head) {
    uint8_t *out = to + head * to_rows.head_bytes;
    const uint8_t *in = from + head * from_rows.head_bytes;
    if (to_rows.tile_bytes == from_rows.tile_bytes) {
      __builtin_memcpy(out, in, slice.snapshot.head_bytes);
      continue;
    }
    for (uint64_t done = 0; done < slice.snapshot.head_bytes; done += tile_bytes) {
      __builtin_memcpy(out, in, tile_bytes);
      out += to_rows.tile_bytes;
      in += from_rows.tile_bytes;
    }
  }
}

uint8_t ZeroOf(const CacheSlice &slice) {
  if (slice.bits == 4) return 0x11 * kv_cache::kNibbleOffset;
  return slice.keys ? 128 : 0;
}

void ClearElement(const CacheSlice &slice, uint8_t *block, uint64_t row, uint64_t d) {
  if (slice.bits == 8) {
    block[slice.keys ? kv_cache::KeyOffset(row, d, slice.dim) : kv_cache::ValueOffset(row, d, slice.dim)] = ZeroOf(slice);
    return;
  }
  const kv_cache::NibblePlace place =
      slice.keys ? kv_cache::KeyNibble(row, d, slice.dim) : kv_cache::ValueNibble(row, d, slice.dim);
  block[place.byte] = static_cast<uint8_t>((block[place.byte] & ~(15 << place.shift)) | kv_cache::kNibbleOffset << place.shift);
}

/// Padding of rows and dimensions becomes zeros: in memory it may hold what others left there, which is nobody's business.
void ClearPadding(const CacheSlice &slice, uint8_t *snapshot) {
  const uint8_t zero = ZeroOf(slice);
  // In a tile, units of as many bytes for each row follow one another.
  const uint64_t tile_rows = slice.keys ? kv_cache::kTileRows : kValueTileRows, row_bytes = slice.keys ? 4 : 1;
  const uint64_t used = slice.rows % tile_rows * row_bytes, unit = tile_rows * row_bytes;
  const uint64_t padding = slice.rows / tile_rows * slice.snapshot.tile_bytes;  // offset of the first tile that is not full
  for (uint64_t head = 0; head < slice.heads; ++head) {
    uint8_t *block = snapshot + head * slice.snapshot.head_bytes;
    for (uint64_t row = 0; row < slice.rows; ++row) {
      for (uint64_t d = slice.dim; d < kv_cache::PaddedDim(slice.dim); ++d) ClearElement(slice, block, row, d);
    }
    const uint64_t whole = padding + (used == 0 ? 0 : slice.snapshot.tile_bytes);
    for (uint64_t at = padding; at < whole; at += unit) __builtin_memset(block + at + used, zero, unit - used);
    __builtin_memset(block + whole, zero, slice.snapshot.head_bytes - whole);
  }
}

/// The least of all bytes, each changed by `flip` and then cut to `mask`.  bytes: a multiple of 64
uint8_t LeastByte(const uint8_t *data, uint64_t bytes, uint8_t flip, uint8_t mask) {
  constexpr uint64_t kLanes = 64;  // which compilers make vectors of: this reads all that a session has
  uint8_t least[kLanes];
  __builtin_memset(least, 255, kLanes);
  for (uint64_t i = 0; i < bytes; i += kLanes) {
    for (uint64_t lane = 0; lane < kLanes; ++lane) {
      const auto byte = static_cast<uint8_t>((data[i + lane] ^ flip) & mask);
      least[lane] = byte < least[lane] ? byte : least[lane];
    }
  }
  uint8_t all = 255;
  for (const uint8_t lane : least) all = lane < all ? lane : all;
  return all;
}

bool AllWithin(const uint8_t *words, uint64_t bytes, int32_t low, int32_t high) {
  bool outside = false;
  for (uint64_t i = 0; i < bytes; i += sizeof(int32_t)) {
    const auto word = static_cast<int32_t>(LoadLittle32(words + i));
    outside |= (word < low) | (word > high);
  }
  return !outside;
}

/// Whether the kernels may see it: what they could not have written would be no error of theirs, but other bits on other machines.
bool IsLegal(const Model &model, const Part &part, const uint8_t *data) {
  switch (part.kind) {
    case PartKind::kTokens: return AllWithin(data, part.bytes, 0, static_cast<int32_t>(model.graph.vocab_size - 1));
    case PartKind::kKeys:
    case PartKind::kValues:
      // Append never writes -128: in memory 0 as a key and 128 as a value; and of 4 bits never -8, which is the nibble 0.
      if (model.graph.caches[part.step->append.cache].bits == 4) {
        return LeastByte(data, part.bytes, 0, 0x0f) != 0 && LeastByte(data, part.bytes, 0, 0xf0) != 0;
      }
      return LeastByte(data, part.bytes, part.kind == PartKind::kKeys ? 0 : 0x80, 0xff) != 0;
    case PartKind::kScan: return AllWithin(data, part.bytes, -kStateLimit, kStateLimit);
    case PartKind::kLogits:  // any s32
    case PartKind::kConv:    // any s16
      break;
  }
  return true;
}

/// Where the session keeps a part.
uint8_t *PlaceOf(const Session &session, const Part &part) {
  switch (part.kind) {
    case PartKind::kTokens: return reinterpret_cast<uint8_t *>(IdAt(session, session.position - part.bytes / sizeof(int32_t)));
    case PartKind::kLogits: return reinterpret_cast<uint8_t *>(session.logit_rows.data());
    case PartKind::kKeys: return session.caches[part.step->append.cache].k;
    case PartKind::kValues: return reinterpret_cast<uint8_t *>(session.caches[part.step->append.cache].v);
    case PartKind::kConv:
    case PartKind::kScan: break;
  }
  return session.states[StateOf(*part.step)];
}

void SavePart(const Session &session, const Part &part, uint8_t *out) {
  if (part.kind == PartKind::kKeys || part.kind == PartKind::kValues) {
    const CacheSlice slice = SliceOf(*session.model, part, session.state_position);
    if (slice.is_ring) {
      CopyRing(slice, Way::kSave, out, PlaceOf(session, part));
    } else {
      CopyRows(slice, out, slice.snapshot, PlaceOf(session, part), slice.memory);
    }
    ClearPadding(slice, out);
  } else {
    // The last of several rows of logits may be the one that is pending.
    const void *from = part.kind == PartKind::kLogits ? static_cast<const void *>(session.logits) : PlaceOf(session, part);
    if (part.bytes != 0) __builtin_memcpy(out, from, part.bytes);
  }
  __builtin_memset(out + part.bytes, 0, AlignUp(part.bytes, kSnapshotAlignment) - part.bytes);
}

void LoadPart(Session *session, const Contents &contents, const Part &part, const uint8_t *data) {
  if (part.kind == PartKind::kKeys || part.kind == PartKind::kValues) {
    const CacheSlice slice = SliceOf(*session->model, part, contents.computed);
    if (slice.is_ring) {
      CopyRing(slice, Way::kLoad, PlaceOf(*session, part), data);
    } else {
      CopyRows(slice, PlaceOf(*session, part), slice.memory, data, slice.snapshot);
    }
  } else if (part.bytes != 0) {
    __builtin_memcpy(PlaceOf(*session, part), data, part.bytes);
  }
}

// Everything here is little endian, as the machines are that can open a model.
template <typename T>
void Put(uint8_t *header, SnapshotField field, T value) {
  __builtin_memcpy(header + field, &value, sizeof value);
}

/// The header, against the model and the session; of what follows only its length.
Status ReadHeader(const Session &session, Span<const uint8_t> snapshot, Contents *contents) {
  const uint8_t *p = snapshot.data();
  const Model &model = *session.model;
  const Graph &graph = model.graph;
  if (snapshot.size() < sizeof kSnapshotMagic - 1 || __builtin_memcmp(p, kSnapshotMagic, sizeof kSnapshotMagic - 1) != 0) {
    return Status::kForeign;
  }
  if (snapshot.size() < kSnapshotHeaderBytes) return Status::kTruncated;
  if (LoadLittle32(p + kSnapshotVersionAt) != kSnapshotVersion) return Status::kVersion;
  if (LoadLittle64(p + kSnapshotHeaderChecksumAt) != Checksum(p, kSnapshotHeaderChecksumAt)) return Status::kDamaged;
  if (LoadLittle64(p + kSnapshotModelAt) != model.file_checksum) return Status::kOtherModel;
  const uint32_t rate = LoadLittle32(p + kSnapshotRateAt);
  contents->profile = 0;
  while (contents->profile < graph.profiles.size() && graph.profiles[contents->profile].rate != rate) ++contents->profile;
  contents->position = LoadLittle64(p + kSnapshotTokensAt);
  contents->logits = LoadLittle32(p + kSnapshotLogitsAt);
  const uint64_t behind = LoadLittle32(p + kSnapshotBehindAt), position = contents->position;
  bool grows = graph.caches.empty();  // what sessions keep, with their tokens
  for (const Cache &cache : graph.caches) grows = grows || cache.window == 0;
  // What the states have not seen they will see from the ids, which are then all there.
  if (contents->profile == graph.profiles.size() || position > (grows ? graph.max_context : kSnapshotMostTokens) || behind > position ||
      (behind != 0 && (graph.states.empty() || position > graph.max_context)) ||
      (contents->logits != 0 && (contents->logits != graph.vocab_size || contents->position == 0))) {
    return Status::kInvalid;
  }
  contents->computed = position - behind;
  if (position > model.dims.tokens) return Status::kContextFull;
  // The parts take no more than the session's own memory does, so that sums of sizes are as safe as the plan's.
  const uint64_t bytes = LoadLittle64(p + kSnapshotBytesAt);
  if (bytes != BytesOf(model, *contents)) return Status::kInvalid;
  if (snapshot.size() < bytes) return Status::kTruncated;
  return snapshot.size() == bytes ? Status::kOk : Status::kInvalid;
}

}  // namespace

uint64_t SnapshotBytes(const Session &session) { return BytesOf(*session.model, ContentsOf(session)); }

Status SaveSession(const Session &session, Span<uint8_t> out) {
  const Exclusive exclusive(session.model);
  const Contents contents = ContentsOf(session);
  const uint64_t bytes = BytesOf(*session.model, contents);
  if (out.size() < bytes) return Status::kBuffer;
  uint8_t *header = out.data();
  ForParts(*session.model, contents, [&](const Part &part) { SavePart(session, part, header + part.offset); });
  __builtin_memset(header, 0, kSnapshotHeaderBytes);
  __builtin_memcpy(header + kSnapshotMagicAt, kSnapshotMagic, sizeof kSnapshotMagic - 1);
  Put(header, kSnapshotVersionAt, kSnapshotVersion);
  Put(header, kSnapshotRateAt, RateOf(session));
  Put(header, kSnapshotBytesAt, bytes);
  Put(header, kSnapshotModelAt, session.model->file_checksum);
  Put(header, kSnapshotTokensAt, contents.position);
  Put(header, kSnapshotBehindAt, static_cast<uint32_t>(contents.position - contents.computed));
  Put(header, kSnapshotLogitsAt, contents.logits);
  Put(header, kSnapshotBodyChecksumAt, WideChecksum(header + kSnapshotHeaderBytes, bytes - kSnapshotHeaderBytes));
  Put(header, kSnapshotHeaderChecksumAt, Checksum(header, kSnapshotHeaderChecksumAt));
  return Status::kOk;
}

Status LoadSession(Session *session, Span<const uint8_t> snapshot) {
  const Exclusive exclusive(session->model);
  const Model &model = *session->model;
  const uint8_t *data = snapshot.data();
  Contents contents;
  ACORN_TRY(ReadHeader(*session, snapshot, &contents));
  const uint64_t checksum = WideChecksum(data + kSnapshotHeaderBytes, snapshot.size() - kSnapshotHeaderBytes);
  if (LoadLittle64(data + kSnapshotBodyChecksumAt) != checksum) return Status::kDamaged;
  bool legal = true;
  ForParts(model, contents, [&](const Part &part) { legal = legal && IsLegal(model, part, data + part.offset); });
  if (!legal) return Status::kInvalid;
  // From here on nothing fails.
  session->profile = contents.profile;
  ResetSession(session);
  session->position = contents.position;
  session->first_token = contents.position - IdsOf(model, contents);
  ForParts(model, contents, [&](const Part &part) { LoadPart(session, contents, part, data + part.offset); });
  WritePrefix(session);  // which is the model's, whatever the snapshot says
  session->written = session->loaded = contents.computed;
  if (contents.computed != 0 || session->states.empty()) session->state_position = contents.computed;
  if (contents.logits != 0) session->logits = session->logit_rows.data();
  return Status::kOk;
}

}  // namespace acorn
