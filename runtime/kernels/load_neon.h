// Loads of the Arm files that advance a pointer, and nibbles as signed bytes. In an anonymous namespace: each file has its own
// copy.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "kernels/inline.h"

namespace acorn {
namespace {

/// Moves `p` on by the `count` of the load before it. The empty asm hides the sum from GCC, which else keeps the pointer of the
/// loop's start and adds to it before each load that has no offset (ld1 of four registers, ld1r) where a post-index is free.
template <typename T>
ACORN_INLINE void StepOver(const T *&p, size_t count) {
  p += count;
  __asm__ volatile("" : "+r"(p));
}

/// So many bytes at `from`, which moves on.
ACORN_INLINE uint8x16x4_t Take64(const uint8_t *&from) {
  const uint8x16x4_t bytes = vld1q_u8_x4(from);
  StepOver(from, 64);
  return bytes;
}
ACORN_INLINE uint8x16x3_t Take48(const uint8_t *&from) {
  const uint8x16x3_t bytes = vld1q_u8_x3(from);
  StepOver(from, 48);
  return bytes;
}
ACORN_INLINE uint8x16x2_t Take32(const uint8_t *&from) {
  const uint8x16x2_t bytes = vld1q_u8_x2(from);
  StepOver(from, 32);
  return bytes;
}
ACORN_INLINE int8x16_t Take16(const int8_t *&from) {
  const int8x16_t bytes = vld1q_s8(from);
  StepOver(from, 16);
  return bytes;
}

/// The weights in the low and in the high nibbles of `bytes`, which stand in two's complement.
struct Plain {
  static ACORN_INLINE int8x16_t Low(int8x16_t bytes) { return vshrq_n_s8(vshlq_n_s8(bytes, 4), 4); }
  static ACORN_INLINE int8x16_t High(int8x16_t bytes) { return vshrq_n_s8(bytes, 4); }
};

}  // namespace
}  // namespace acorn
