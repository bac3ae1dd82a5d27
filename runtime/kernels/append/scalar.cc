#include "base/fixed_point.h"
#include "kernels/append/kernel.h"
#include "kernels/kv_cache.h"

namespace acorn::append {
namespace {

/// Four keys, of which the first `bytes` are there, with the cache's offset: adding 128 to a byte flips its top bit.
uint32_t WithOffset(const int8_t *k, size_t bytes) {
  uint32_t quad = 0;
  __builtin_memcpy(&quad, k, bytes);
  return quad ^ 0x80808080;
}

int8_t *ValueOut(const Args &args, size_t row, size_t head) {
  return args.v_cache + head * kv_cache::HeadBytes(args.capacity, args.head_dim) +
         kv_cache::ValueOffset(args.first_row + row, 0, args.head_dim);
}

}  // namespace

void AppendKeys(const Args &args) {
  constexpr size_t kQuadStride = 4 * kv_cache::kTileRows;  // four keys lie side by side
  const size_t head_bytes = kv_cache::HeadBytes(args.capacity, args.head_dim);
  for (size_t row = 0; row < args.m; ++row) {
    for (size_t head = 0; head < args.kv_heads; ++head) {
      const int8_t *k = args.k + row * args.k_stride + head * args.head_dim;
      const int8_t *const end = k + args.head_dim / 4 * 4;
      uint8_t *out = args.k_cache + head * head_bytes + kv_cache::KeyOffset(args.first_row + row, 0, args.head_dim);
      for (; k < end; k += 4, out += kQuadStride) {
        const uint32_t quad = WithOffset(k, 4);
        __builtin_memcpy(out, &quad, 4);
      }
      if (args.head_dim % 4 != 0) {  // head_dim is even
        const uint32_t quad = WithOffset(k, 2);
        __builtin_memcpy(out, &quad, 4);
      }
    }
  }
}

void RunScalar(const Args &args) {
  AppendKeys(args);
  for (size_t row = 0; row < args.m; ++row) {
    for (size_t head = 0; head < args.kv_heads; ++head) {
      const int16_t *v = static_cast<const int16_t *>(args.v) + row * args.v_stride + head * args.head_dim;
      int8_t *out = ValueOut(args, row, head);
      const int64_t multiplier = args.multiplier[head];
      for (size_t d = 0; d < args.head_dim; ++d) out[4 * d] = SaturateS8(RoundShift(v[d] * multiplier, args.shift));
    }
  }
}

void CopyScalar(const Args &args) {
  AppendKeys(args);
  for (size_t row = 0; row < args.m; ++row) {
    for (size_t head = 0; head < args.kv_heads; ++head) {
      const int8_t *v = static_cast<const int8_t *>(args.v) + row * args.v_stride + head * args.head_dim;
      int8_t *out = ValueOut(args, row, head);
      for (size_t d = 0; d < args.head_dim; ++d) out[4 * d] = v[d];
    }
  }
}

}  // namespace acorn::append
