#include "base/fixed_point.h"
#include "kernels/append/kernel.h"
#include "kernels/kv_cache.h"

namespace acorn::append {
namespace {

constexpr uint32_t kOffset = 0x80808080;  // 128 for each of four keys; adding 128 to a byte flips its top bit

int8_t *ValueOut(const Args &args, size_t row, size_t head) {
  return args.v_cache + head * kv_cache::HeadBytes(args.capacity, args.head_dim) +
         kv_cache::ValueOffset(args.first_row + row, 0, args.head_dim);
}

}  // namespace

void AppendKeys(const Args &args) {
  const size_t head_bytes = kv_cache::HeadBytes(args.capacity, args.head_dim);
  for (size_t row = 0; row < args.m; ++row) {
    for (size_t head = 0; head < args.kv_heads; ++head) {
      const int8_t *k = args.k + row * args.k_stride + head * args.head_dim;
      uint8_t *out = args.k_cache + head * head_bytes + kv_cache::KeyOffset(args.first_row + row, 0, args.head_dim);
      for (size_t d = 0; d < args.head_dim; d += 4) {  // four keys lie side by side
        uint32_t quad = 0;
        __builtin_memcpy(&quad, k + d, args.head_dim - d < 4 ? 2 : 4);  // head_dim is even
        quad ^= kOffset;
        __builtin_memcpy(out + d * kv_cache::kTileRows, &quad, 4);
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
