// The fixed part of an Acorn file: header layout, alignments and the checksum. FORMAT.md is its prose.
// For the writer, the reader and the tests alike; pure functions, no dependency.
#pragma once

#include <cstddef>
#include <cstdint>

namespace acorn {

constexpr char kFileMagic[9] = "ACORNMDL";
constexpr uint32_t kFileVersion = 0;
constexpr uint32_t kHeaderBytes = 64;
constexpr uint64_t kSegmentAlignment = 16384;  // Android's large pages, and every storage block size
constexpr uint64_t kRefAlignment = 64;         // a cache line, and the widest vector register

/// Byte offsets of the header's fields; all little endian.
enum HeaderField : uint32_t {
  kHeaderMagic = 0,                // char[8]
  kHeaderVersion = 8,              // u32
  kHeaderSize = 12,                // u32, kHeaderBytes
  kHeaderFileBytes = 16,           // u64
  kHeaderGraphOffset = 24,         // u64, kHeaderBytes
  kHeaderGraphBytes = 32,          // u64, the flatbuffer
  kHeaderGraphChecksum = 40,       // u64
  kHeaderExperts = 48,             // u64, offset of the first segment of experts, behind all others; 0: there is none
  kHeaderChecksum = 56,            // u64, of bytes [0, 56)
};

// Written out: compilers make one load of this, and eight of a loop.
inline uint32_t LoadLittle32(const uint8_t *p) {
  return uint32_t{p[0]} | uint32_t{p[1]} << 8 | uint32_t{p[2]} << 16 | uint32_t{p[3]} << 24;
}

inline uint64_t LoadLittle(const uint8_t *p, uint64_t bytes) {
  uint64_t value = 0;
  for (uint64_t i = 0; i < bytes; ++i) value |= uint64_t{p[i]} << (8 * i);
  return value;
}

inline uint64_t LoadLittle64(const uint8_t *p) { return LoadLittle32(p) | uint64_t{LoadLittle32(p + 4)} << 32; }

constexpr uint64_t kFnvBasis = 0xcbf29ce484222325u;
constexpr uint64_t kFnvPrime = 0x100000001b3u;

/// FNV-1a-64 over little-endian u64 words (the last one zero-padded), then over the length in bytes as one more word.
/// Guards against accidents, not against malice.
inline uint64_t Checksum(const uint8_t *data, uint64_t bytes) {
  uint64_t hash = kFnvBasis;
  uint64_t i = 0;
  for (; i + 8 <= bytes; i += 8) hash = (hash ^ LoadLittle64(data + i)) * kFnvPrime;
  if (i < bytes) hash = (hash ^ LoadLittle(data + i, bytes - i)) * kFnvPrime;
  return (hash ^ bytes) * kFnvPrime;
}

/// Eight FNV-1a-64 hashes over words i, i + 8, i + 16, ..., then Checksum() over the eight: some times as fast, for what is read
/// again and again.  bytes: a multiple of 64
inline uint64_t WideChecksum(const uint8_t *data, uint64_t bytes) {
  // Each by its own name: compilers keep these in registers, and an array in memory, at half the speed.
  uint64_t a = kFnvBasis, b = a, c = a, d = a, e = a, f = a, g = a, h = a;
  for (uint64_t i = 0; i < bytes; i += 64) {
    a = (a ^ LoadLittle64(data + i)) * kFnvPrime;
    b = (b ^ LoadLittle64(data + i + 8)) * kFnvPrime;
    c = (c ^ LoadLittle64(data + i + 16)) * kFnvPrime;
    d = (d ^ LoadLittle64(data + i + 24)) * kFnvPrime;
    e = (e ^ LoadLittle64(data + i + 32)) * kFnvPrime;
    f = (f ^ LoadLittle64(data + i + 40)) * kFnvPrime;
    g = (g ^ LoadLittle64(data + i + 48)) * kFnvPrime;
    h = (h ^ LoadLittle64(data + i + 56)) * kFnvPrime;
  }
  uint64_t hash = kFnvBasis;
  const uint64_t lanes[] = {a, b, c, d, e, f, g, h};
  for (const uint64_t part : lanes) hash = (hash ^ part) * kFnvPrime;
  return (hash ^ bytes) * kFnvPrime;
}

/// An expert's record in four stripes that can be read and checked apart: a quarter each in whole blocks of 16 KiB, the later ones
/// shorter or empty.  record_bytes: a multiple of 64
constexpr size_t kRecordStripes = 4;
struct Stripe {
  uint64_t begin, end;  // in the record
};
inline Stripe StripeOf(uint64_t record_bytes, size_t i) {
  const uint64_t most = (record_bytes / kRecordStripes / kSegmentAlignment + 1) * kSegmentAlignment;
  const uint64_t begin = i * most, end = begin + most;
  return {begin < record_bytes ? begin : record_bytes, end < record_bytes ? end : record_bytes};
}

/// Of a record, from WideChecksum() of each of its stripes: Checksum() over the four.
inline uint64_t ChecksumOfStripes(const uint64_t (&stripes)[kRecordStripes]) {
  uint64_t hash = kFnvBasis;
  for (const uint64_t stripe : stripes) hash = (hash ^ stripe) * kFnvPrime;
  return (hash ^ sizeof stripes) * kFnvPrime;
}

inline uint64_t RecordChecksum(const uint8_t *record, uint64_t record_bytes) {
  uint64_t stripes[kRecordStripes];
  for (size_t i = 0; i < kRecordStripes; ++i) {
    const Stripe stripe = StripeOf(record_bytes, i);
    stripes[i] = WideChecksum(record + stripe.begin, stripe.end - stripe.begin);
  }
  return ChecksumOfStripes(stripes);
}

/// FNV-1a-64 continued over one integer as four little-endian bytes, from kFnvBasis on: the digests of docs/ARITHMETIC.md §13.
inline uint64_t Digest(uint64_t hash, int32_t value) {
  for (int shift = 0; shift < 32; shift += 8) hash = (hash ^ ((static_cast<uint32_t>(value) >> shift) & 255)) * kFnvPrime;
  return hash;
}

}  // namespace acorn
