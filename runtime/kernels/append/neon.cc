// sqdmulh drops half of the 64-bit product (2^-31, rounded down), which leaves the rounding of the rest as it was if the rest is
// shifted by one bit or more: values are multiplied by 2^15 first, the multiplier by what is still missing.
#include <arm_neon.h>

#include "base/fixed_point.h"
#include "kernels/append/kernel.h"
#include "kernels/kv_cache.h"

namespace acorn::append {
namespace {

constexpr size_t kDims = 16;

/// sat8(RoundShift(v * multiplier, shift))
struct Scale {
  Scale(const Args &args, size_t head) {
    const int missing = args.shift < 17 ? 17 - args.shift : 0;
    // A multiplier that saturates takes every value but 0 beyond 127.
    factor = vdupq_n_s32(static_cast<int32_t>(Clamp(int64_t{args.multiplier[head]} * (1 << missing), INT32_MIN, INT32_MAX)));
    right = vdupq_n_s32(16 - args.shift - missing);
  }

  int16x4_t Round(int32x4_t v) const { return vqmovn_s32(vrshlq_s32(vqdmulhq_s32(v, factor), right)); }

  int8x8_t operator()(int16x8_t v) const {
    return vqmovn_s16(vcombine_s16(Round(vshll_n_s16(vget_low_s16(v), 15)), Round(vshll_high_n_s16(v, 15))));
  }

  int8x16_t operator()(const int16_t *v) const {
    return vmaxq_s8(vcombine_s8((*this)(vld1q_s16(v)), (*this)(vld1q_s16(v + 8))), vdupq_n_s8(-127));
  }

  int32x4_t factor, right;
};

/// What `copy` does with values.
struct Copy {
  Copy(const Args &, size_t) {}
  int8x16_t operator()(const int8_t *v) const { return vld1q_s8(v); }
};

/// kDims finished values, of which n are there to be read.
template <typename Finish, typename Value>
inline int8x16_t Finished(const Finish &finish, const Value *v, size_t n) {
  if (n >= kDims) return finish(v);
  Value values[kDims] = {};
  __builtin_memcpy(values, v, n * sizeof(Value));
  return finish(values);
}

/// Writes one byte in four: the others belong to neighbouring rows, which another thread may be writing.
template <int kLane = 0>
inline void StoreRow(int8_t *out, int8x16_t values) {
  vst1q_lane_s8(out + 4 * kLane, values, kLane);
  if constexpr (kLane + 1 < static_cast<int>(kDims)) StoreRow<kLane + 1>(out, values);
}

/// Sixteen values as eight bytes of a cache of 4 bits.
inline uint8x8_t Nibbles(int8x16_t values) {
  const int8x16_t clamped = vmaxq_s8(vminq_s8(values, vdupq_n_s8(kv_cache::kNibbleLimit)), vdupq_n_s8(-kv_cache::kNibbleLimit));
  const uint8x16_t nibbles = vreinterpretq_u8_s8(vaddq_s8(clamped, vdupq_n_s8(kv_cache::kNibbleOffset)));
  return vorr_u8(vget_low_u8(nibbles), vshl_n_u8(vget_high_u8(nibbles), 4));
}

/// StoreRow of them.
template <int kLane = 0>
inline void StoreNibbles(uint8_t *out, uint8x8_t bytes) {
  vst1_lane_u8(out + 4 * kLane, bytes, kLane);
  if constexpr (kLane < 7) StoreNibbles<kLane + 1>(out, bytes);
}

/// Values of a head go in sixteens, behind v_dim into what may change.
template <typename Finish, typename Value>
void AppendValues(const Args &args) {
  const size_t head_bytes = kv_cache::HeadBytes(args.capacity, args.head_dim, args.bits);
  for (size_t head = 0; head < args.kv_heads; ++head) {
    const Finish finish(args, head);
    const Value *v = static_cast<const Value *>(args.v) + head * args.v_dim;
    int8_t *out = args.v_cache + head * head_bytes;
    for (size_t row = 0; row < args.m;) {
      const size_t at = args.first_row + row;
      const bool four = at % 4 == 0 && row + 4 <= args.m;
      int8_t *group = out + (args.bits == 8 ? kv_cache::ValueOffset(at, 0, args.head_dim)
                                            : kv_cache::ValueNibble(at, 0, args.head_dim).byte);
      for (size_t d = 0; d < args.v_dim; d += kDims, group += 4 * kDims / 8 * args.bits) {
        const size_t n = args.v_dim - d;
        const int8x16_t first = Finished(finish, v + d, n);
        if (four) {
          const int8x16x4_t rows = {{first, Finished(finish, v + args.v_stride + d, n),
                                     Finished(finish, v + 2 * args.v_stride + d, n),
                                     Finished(finish, v + 3 * args.v_stride + d, n)}};
          if (args.bits == 8) {
            vst4q_s8(group, rows);
          } else {
            const uint8x8x4_t bytes = {{Nibbles(rows.val[0]), Nibbles(rows.val[1]), Nibbles(rows.val[2]), Nibbles(rows.val[3])}};
            vst4_u8(reinterpret_cast<uint8_t *>(group), bytes);
          }
        } else if (args.bits == 8) {
          StoreRow(group, first);
        } else {
          StoreNibbles(reinterpret_cast<uint8_t *>(group), Nibbles(first));
        }
      }
      const size_t rows = four ? 4 : 1;
      row += rows;
      v += rows * args.v_stride;
    }
  }
}

}  // namespace

void RunNeon(const Args &args) {
  AppendKeys(args);
  AppendValues<Scale, int16_t>(args);
}

void CopyNeon(const Args &args) {
  AppendKeys(args);
  AppendValues<Copy, int8_t>(args);
}

}  // namespace acorn::append
