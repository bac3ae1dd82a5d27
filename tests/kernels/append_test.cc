// append: every variant of this machine against the formula, byte by byte through the layout; bytes that belong to other rows
// keep their values.
#include <gtest/gtest.h>

#include <vector>

#include "kernels/append/kernel.h"
#include "kernels/kv_cache.h"
#include "tests/support/formula.h"
#include "tests/support/guarded_buffer.h"
#include "tests/support/host_features.h"

namespace acorn {
namespace {

using test::GuardedBuffer;

// On a machine of 32 bits too: a cache that does not fit its addresses must not count as a small one.
static_assert(kv_cache::CacheBytes(kv_cache::kMaxRows, 2048, 18) == uint64_t{1} << 32);

struct Shape {
  size_t capacity, first_row, m, kv_heads, head_dim;
};
constexpr Shape kShapes[] = {{1, 0, 1, 1, 2},    {16, 0, 16, 1, 16},  {33, 15, 3, 3, 6},   {40, 7, 33, 2, 64},
                             {20, 19, 1, 3, 30}, {64, 16, 16, 3, 64}, {70, 13, 50, 1, 80}, {9, 2, 5, 2, 128}};

template <typename Value>
void Check(const append::Kernel &kernel, const Shape &s, int32_t shift) {
  SCOPED_TRACE(testing::Message() << kernel.name << " capacity=" << s.capacity << " first_row=" << s.first_row << " m=" << s.m
                                  << " head_dim=" << s.head_dim << " shift=" << shift);
  constexpr bool kScaled = sizeof(Value) == 2;
  test::Corners corners(s.capacity * 7 + s.m);
  const size_t width = s.kv_heads * s.head_dim, k_stride = width + 3, v_stride = width + 1;
  GuardedBuffer<int8_t> k((s.m - 1) * k_stride + width);
  GuardedBuffer<Value> v((s.m - 1) * v_stride + width);
  GuardedBuffer<int32_t> multiplier(kScaled ? s.kv_heads : 0);
  corners.FillSigned(&k, 127);
  corners.FillSigned(&v, kScaled ? 32767 : 127);
  corners.FillSigned(&multiplier, 2147483647);
  const size_t bytes = kv_cache::CacheBytes(s.capacity, s.kv_heads, s.head_dim);
  GuardedBuffer<uint8_t> k_cache(bytes);
  GuardedBuffer<int8_t> v_cache(bytes);
  for (size_t i = 0; i < bytes; ++i) {
    k_cache[i] = static_cast<uint8_t>(i * 7 + 1);
    v_cache[i] = static_cast<int8_t>(i * 5 + 2);
  }
  std::vector<uint8_t> k_expected(k_cache.begin(), k_cache.end());
  std::vector<int8_t> v_expected(v_cache.begin(), v_cache.end());
  const append::Args args = {k_cache.data(), v_cache.data(),    s.capacity, s.first_row, s.m,
                             s.kv_heads,     s.head_dim,        k.data(),   v.data(),    k_stride,
                             v_stride,       multiplier.data(), shift};
  (kScaled ? kernel.run : kernel.copy)(args);
  for (size_t row = 0; row < s.capacity; ++row) {
    for (size_t head = 0; head < s.kv_heads; ++head) {
      const size_t block = head * kv_cache::HeadBytes(s.capacity, s.head_dim);
      for (size_t d = 0; d < s.head_dim; ++d) {
        const size_t key = block + kv_cache::KeyOffset(row, d, s.head_dim),
                     value = block + kv_cache::ValueOffset(row, d, s.head_dim);
        ASSERT_LT(key, bytes);
        ASSERT_LT(value, bytes);
        if (row >= s.first_row && row < s.first_row + s.m) {
          const int64_t x = v[(row - s.first_row) * v_stride + head * s.head_dim + d];
          k_expected[key] = static_cast<uint8_t>(k[(row - s.first_row) * k_stride + head * s.head_dim + d] + 128);
          v_expected[value] = static_cast<int8_t>(kScaled ? test::Sat8(test::Rs(test::Wide{x} * multiplier[head], shift)) : x);
        }
        ASSERT_EQ(k_cache[key], k_expected[key]) << "row " << row << " head " << head << " d " << d;
        ASSERT_EQ(v_cache[value], v_expected[value]) << "row " << row << " head " << head << " d " << d;
      }
    }
  }
}

TEST(Append, EveryVariantIsTheFormula) {
  const uint32_t features = test::HostFeatures();
  for (const append::Kernel &kernel : append::Kernels()) {
    if ((kernel.needs & ~features) != 0) continue;
    for (const Shape &shape : kShapes) {
      for (int32_t shift : {1, 16, 17, 24, 38, 62}) Check<int16_t>(kernel, shape, shift);
      Check<int8_t>(kernel, shape, 1);
    }
  }
}

TEST(KvCache, PlacesAreDistinct) {
  constexpr size_t kRows = 37, kDim = 22;
  std::vector<int> keys(kv_cache::HeadBytes(kRows, kDim)), values(keys.size());
  for (size_t row = 0; row < kRows; ++row) {
    for (size_t d = 0; d < kDim; ++d) {
      EXPECT_EQ(++keys.at(kv_cache::KeyOffset(row, d, kDim)), 1);
      EXPECT_EQ(++values.at(kv_cache::ValueOffset(row, d, kDim)), 1);
    }
  }
}

}  // namespace
}  // namespace acorn
