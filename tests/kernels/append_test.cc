// append: every variant of this machine against the formula, byte by byte through the layout; bytes that belong to other rows
// keep their values.
#include <gtest/gtest.h>

#include <algorithm>
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
static_assert(kv_cache::CacheBytes(kv_cache::kMaxRows, 2048, 18, 8) == uint64_t{1} << 32);
static_assert(kv_cache::CacheBytes(kv_cache::kMaxRows, 4096, 18, 4) == uint64_t{1} << 32);

constexpr size_t kWidths[] = {8, 4};

struct Shape {
  size_t capacity, first_row, m, kv_heads, head_dim;
  size_t used_k = 0, used_v = 0;  // the first dimensions; 0: all
  size_t k_dim() const { return used_k == 0 ? head_dim : used_k; }
  size_t v_dim() const { return used_v == 0 ? head_dim : used_v; }
};
constexpr Shape kShapes[] = {{1, 0, 1, 1, 2},    {16, 0, 16, 1, 16},  {33, 15, 3, 3, 6},   {40, 7, 33, 2, 64},
                             {20, 19, 1, 3, 30}, {64, 16, 16, 3, 64}, {70, 13, 50, 1, 80}, {9, 2, 5, 2, 128},
                             {40, 7, 33, 2, 64, 48, 64}, {40, 7, 33, 2, 64, 64, 48}, {20, 3, 5, 3, 80, 16, 32},
                             {20, 3, 5, 2, 34, 18, 30},  {9, 0, 9, 2, 128, 2, 6}};

template <typename Value>
void Check(const append::Kernel &kernel, const Shape &s, size_t bits, int32_t shift) {
  SCOPED_TRACE(testing::Message() << kernel.name << " capacity=" << s.capacity << " first_row=" << s.first_row << " m=" << s.m
                                  << " head_dim=" << s.head_dim << " k_dim=" << s.k_dim() << " v_dim=" << s.v_dim()
                                  << " bits=" << bits << " shift=" << shift);
  constexpr bool kScaled = sizeof(Value) == 2;
  test::Corners corners(s.capacity * 7 + s.m);
  const size_t k_width = s.kv_heads * s.k_dim(), v_width = s.kv_heads * s.v_dim(), k_stride = k_width + 3, v_stride = v_width + 1;
  GuardedBuffer<int8_t> k((s.m - 1) * k_stride + k_width);
  GuardedBuffer<Value> v((s.m - 1) * v_stride + v_width);
  GuardedBuffer<int32_t> multiplier(kScaled ? s.kv_heads : 0);
  corners.FillSigned(&k, 127);
  corners.FillSigned(&v, kScaled ? 32767 : 127);
  corners.FillSigned(&multiplier, 2147483647);
  const size_t bytes = kv_cache::CacheBytes(s.capacity, s.kv_heads, s.head_dim, bits);
  GuardedBuffer<uint8_t> k_cache(bytes);
  GuardedBuffer<int8_t> v_cache(bytes);
  for (size_t i = 0; i < bytes; ++i) {
    k_cache[i] = static_cast<uint8_t>(i * 7 + 1);
    v_cache[i] = static_cast<int8_t>(i * 5 + 2);
  }
  const std::vector<uint8_t> k_before(k_cache.begin(), k_cache.end());
  const std::vector<int8_t> v_before(v_cache.begin(), v_cache.end());
  const append::Args args = {k_cache.data(), v_cache.data(), s.capacity, s.first_row, s.m, s.kv_heads, s.head_dim,
                             s.k_dim(), s.v_dim(), bits, k.data(), v.data(), k_stride, v_stride, multiplier.data(), shift};
  (kScaled ? kernel.run : kernel.copy)(args);
  const int64_t limit = bits == 4 ? 7 : 127;
  const auto clamped = [&](int64_t x) { return std::min(std::max(x, -limit), limit); };
  for (size_t row = 0; row < s.capacity; ++row) {
    for (size_t head = 0; head < s.kv_heads; ++head) {
      const size_t block = head * kv_cache::HeadBytes(s.capacity, s.head_dim, bits);
      const bool written = row >= s.first_row && row < s.first_row + s.m;
      for (size_t d = 0; d < s.head_dim; ++d) {
        int64_t key = kv_cache::KeyAt(k_before.data() + block, row, d, s.head_dim, bits);
        int64_t value = kv_cache::ValueAt(v_before.data() + block, row, d, s.head_dim, bits);
        if (written && d < s.k_dim()) key = clamped(k[(row - s.first_row) * k_stride + head * s.k_dim() + d]);
        if (written && d < s.v_dim()) {
          const int64_t x = v[(row - s.first_row) * v_stride + head * s.v_dim() + d];
          value = clamped(kScaled ? static_cast<int64_t>(test::Sat8(test::Rs(test::Wide{x} * multiplier[head], shift))) : x);
        }
        if (!written || d < s.k_dim()) {
          ASSERT_EQ(kv_cache::KeyAt(k_cache.data() + block, row, d, s.head_dim, bits), key)
              << "row " << row << " head " << head << " d " << d;
        }
        if (!written || d < s.v_dim()) {
          ASSERT_EQ(kv_cache::ValueAt(v_cache.data() + block, row, d, s.head_dim, bits), value)
              << "row " << row << " head " << head << " d " << d;
        }
      }
    }
  }
}

TEST(Append, EveryVariantIsTheFormula) {
  const uint32_t features = test::HostFeatures();
  for (const append::Kernel &kernel : append::Kernels()) {
    if ((kernel.needs & ~features) != 0) continue;
    for (const Shape &shape : kShapes) {
      for (size_t bits : kWidths) {
        for (int32_t shift : {1, 16, 17, 24, 38, 62}) Check<int16_t>(kernel, shape, bits, shift);
        Check<int8_t>(kernel, shape, bits, 1);
      }
    }
  }
}

TEST(KvCache, PlacesAreDistinct) {
  constexpr size_t kRows = 37, kDim = 22;
  std::vector<int> keys(kv_cache::HeadBytes(kRows, kDim, 8)), values(keys.size());
  for (size_t row = 0; row < kRows; ++row) {
    for (size_t d = 0; d < kDim; ++d) {
      EXPECT_EQ(++keys.at(kv_cache::KeyOffset(row, d, kDim)), 1);
      EXPECT_EQ(++values.at(kv_cache::ValueOffset(row, d, kDim)), 1);
    }
  }
}

TEST(KvCache, NibblesAreDistinctAndAByteIsOfOneRow) {
  constexpr size_t kRows = 37, kDim = 22;
  const size_t bytes = kv_cache::HeadBytes(kRows, kDim, 4);
  std::vector<int> keys(2 * bytes), values(2 * bytes), key_row(bytes, -1), value_row(bytes, -1);
  const auto take = [](std::vector<int> *taken, std::vector<int> *row_of, kv_cache::NibblePlace place, int row) {
    EXPECT_EQ(++taken->at(2 * place.byte + static_cast<size_t>(place.shift / 4)), 1);
    if (row_of->at(place.byte) != -1) {
      EXPECT_EQ(row_of->at(place.byte), row);
    }
    row_of->at(place.byte) = row;
  };
  for (size_t row = 0; row < kRows; ++row) {
    for (size_t d = 0; d < kDim; ++d) {
      take(&keys, &key_row, kv_cache::KeyNibble(row, d, kDim), static_cast<int>(row));
      take(&values, &value_row, kv_cache::ValueNibble(row, d, kDim), static_cast<int>(row));
    }
  }
}

}  // namespace
}  // namespace acorn
