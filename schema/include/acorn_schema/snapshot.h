// The header of a snapshot, a session in one run of bytes: docs/SNAPSHOTS.md is its prose and says what follows it.
#pragma once

#include <cstdint>

namespace acorn {

constexpr char kSnapshotMagic[9] = "ACORNSES";
constexpr uint32_t kSnapshotVersion = 1;
constexpr uint32_t kSnapshotHeaderBytes = 64;
constexpr uint64_t kSnapshotAlignment = 64;  // of every part, from the start
constexpr uint64_t kSnapshotMostTokens = uint64_t{1} << 62;  // far beyond any conversation, and sums with it fit 64 bits

/// Byte offsets of the header's fields; all little endian.
enum SnapshotField : uint32_t {
  kSnapshotMagicAt = 0,            // char[8]
  kSnapshotVersionAt = 8,          // u32
  kSnapshotRateAt = 12,            // u32, percent
  kSnapshotBytesAt = 16,           // u64, of all, this header too
  kSnapshotModelAt = 24,           // u64, kHeaderChecksum of the model file
  kSnapshotTokensAt = 32,          // u64, of the conversation
  kSnapshotBehindAt = 40,          // u32, the last of them, those that caches and states have not seen
  kSnapshotLogitsAt = 44,          // u32, the vocabulary's size, or 0: no logits are pending
  kSnapshotBodyChecksumAt = 48,    // u64, WideChecksum() of what follows the header
  kSnapshotHeaderChecksumAt = 56,  // u64, Checksum() of bytes [0, 56)
};

}  // namespace acorn
