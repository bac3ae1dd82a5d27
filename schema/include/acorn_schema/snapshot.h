// The header of a snapshot, a session in one run of bytes: docs/SNAPSHOTS.md is its prose and says what follows it.
#pragma once

#include <cstdint>

namespace acorn {

constexpr char kSnapshotMagic[9] = "ACORNSES";
constexpr uint32_t kSnapshotVersion = 0;
constexpr uint32_t kSnapshotHeaderBytes = 64;
constexpr uint64_t kSnapshotAlignment = 64;  // of every part, from the start

/// Byte offsets of the header's fields; all little endian.
enum SnapshotField : uint32_t {
  kSnapshotMagicAt = 0,            // char[8]
  kSnapshotVersionAt = 8,          // u32
  kSnapshotRateAt = 12,            // u32, percent
  kSnapshotBytesAt = 16,           // u64, of all, this header too
  kSnapshotModelAt = 24,           // u64, kHeaderChecksum of the model file
  kSnapshotTokensAt = 32,          // u32, of the conversation
  kSnapshotComputedAt = 36,        // u32, of them, those that caches and states have seen
  kSnapshotLogitsAt = 40,          // u32, the vocabulary's size, or 0: no logits are pending
  kSnapshotReservedAt = 44,        // u32, 0
  kSnapshotBodyChecksumAt = 48,    // u64, WideChecksum() of what follows the header
  kSnapshotHeaderChecksumAt = 56,  // u64, Checksum() of bytes [0, 56)
};

}  // namespace acorn
