// The checksums of file.h for data that comes in pieces: who checks a file without holding it.
#pragma once

#include <cstdint>

#include "acorn_schema/file.h"

namespace acorn {

/// Checksum() of the pieces in their order. Each but the last: a multiple of 8 bytes.
class ChecksumStream {
 public:
  void Add(const uint8_t *data, uint64_t bytes) {
    uint64_t i = 0;
    for (; i + 8 <= bytes; i += 8) hash_ = (hash_ ^ LoadLittle64(data + i)) * kFnvPrime;
    if (i < bytes) hash_ = (hash_ ^ LoadLittle(data + i, bytes - i)) * kFnvPrime;
    bytes_ += bytes;
  }
  uint64_t End() const { return (hash_ ^ bytes_) * kFnvPrime; }

 private:
  uint64_t hash_ = kFnvBasis, bytes_ = 0;
};

/// WideChecksum() of the pieces in their order. Each: a multiple of 64 bytes.
class WideChecksumStream {
 public:
  void Add(const uint8_t *data, uint64_t bytes) {
    uint64_t a = lanes_[0], b = lanes_[1], c = lanes_[2], d = lanes_[3], e = lanes_[4], f = lanes_[5], g = lanes_[6], h = lanes_[7];
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
    const uint64_t lanes[] = {a, b, c, d, e, f, g, h};
    for (int lane = 0; lane < 8; ++lane) lanes_[lane] = lanes[lane];
    bytes_ += bytes;
  }
  uint64_t End() const {
    uint64_t hash = kFnvBasis;
    for (const uint64_t lane : lanes_) hash = (hash ^ lane) * kFnvPrime;
    return (hash ^ bytes_) * kFnvPrime;
  }

 private:
  uint64_t lanes_[8] = {kFnvBasis, kFnvBasis, kFnvBasis, kFnvBasis, kFnvBasis, kFnvBasis, kFnvBasis, kFnvBasis};
  uint64_t bytes_ = 0;
};

}  // namespace acorn
