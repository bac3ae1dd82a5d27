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

uint8_t ToNibble(int8_t value) {
  return static_cast<uint8_t>(Clamp(value, -kv_cache::kNibbleLimit, kv_cache::kNibbleLimit) + kv_cache::kNibbleOffset);
}

constexpr size_t kQuadStride = 4 * kv_cache::kTileRows;  // from a row's four bytes of keys to its next ones

void AppendKeyBytes(uint8_t *out, const int8_t *k, size_t k_dim) {
  const int8_t *const end = k + k_dim / 4 * 4;
  for (; k < end; k += 4, out += kQuadStride) {
    const uint32_t quad = WithOffset(k, 4);
    __builtin_memcpy(out, &quad, 4);
  }
  if (k_dim % 4 != 0) {  // k_dim is even
    const uint32_t quad = WithOffset(k, 2);
    __builtin_memcpy(out, &quad, 4);
  }
}

void AppendKeyNibbles(uint8_t *out, const int8_t *k, size_t k_dim) {
  for (size_t d = 0; d < k_dim; d += 8, out += kQuadStride) {
    int8_t eight[8] = {};
    __builtin_memcpy(eight, k + d, k_dim - d < 8 ? k_dim - d : 8);
    for (size_t i = 0; i < 4; ++i) out[i] = static_cast<uint8_t>(ToNibble(eight[i]) | ToNibble(eight[4 + i]) << 4);
  }
}

/// finish(v, head): the s8 of an element of v, which 4 bits clamp further.
template <typename Value, typename Finish>
void AppendValues(const Args &args, const Finish &finish) {
  const size_t head_bytes = kv_cache::HeadBytes(args.capacity, args.head_dim, args.bits);
  for (size_t row = 0; row < args.m; ++row) {
    const size_t at = args.first_row + row;
    for (size_t head = 0; head < args.kv_heads; ++head) {
      const Value *v = static_cast<const Value *>(args.v) + row * args.v_stride + head * args.v_dim;
      int8_t *block = args.v_cache + head * head_bytes;
      if (args.bits == 8) {
        int8_t *out = block + kv_cache::ValueOffset(at, 0, args.head_dim);
        for (size_t d = 0; d < args.v_dim; ++d) out[4 * d] = finish(v[d], head);
        continue;
      }
      for (size_t d = 0; d < args.v_dim; d += d % 8 == 7 ? 9 : 1) {  // the eight dimensions of low nibbles in sixteen
        const uint8_t low = ToNibble(finish(v[d], head));
        const uint8_t high = d + 8 < args.v_dim ? ToNibble(finish(v[d + 8], head)) : 0;
        block[kv_cache::ValueNibble(at, d, args.head_dim).byte] = static_cast<int8_t>(low | high << 4);
      }
    }
  }
}

}  // namespace

void AppendKeys(const Args &args) {
  const size_t head_bytes = kv_cache::HeadBytes(args.capacity, args.head_dim, args.bits);
  for (size_t row = 0; row < args.m; ++row) {
    const size_t at = args.first_row + row;
    for (size_t head = 0; head < args.kv_heads; ++head) {
      const int8_t *k = args.k + row * args.k_stride + head * args.k_dim;
      uint8_t *block = args.k_cache + head * head_bytes;
      if (args.bits == 8) {
        AppendKeyBytes(block + kv_cache::KeyOffset(at, 0, args.head_dim), k, args.k_dim);
      } else {
        AppendKeyNibbles(block + kv_cache::KeyNibble(at, 0, args.head_dim).byte, k, args.k_dim);
      }
    }
  }
}

void RunScalar(const Args &args) {
  AppendKeys(args);
  AppendValues<int16_t>(args, [&](int64_t v, size_t head) {
    return SaturateS8(RoundShift(v * args.multiplier[head], args.shift));
  });
}

void CopyScalar(const Args &args) {
  AppendKeys(args);
  AppendValues<int8_t>(args, [](int8_t v, size_t) { return v; });
}

}  // namespace acorn::append
