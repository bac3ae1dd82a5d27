// embed: rows of packed weights against the plain matrix, for every format and layout, on exact buffers.
#include <gtest/gtest.h>

#include <vector>

#include "acorn_schema/layout_xnnpack.h"
#include "kernels/embed/kernel.h"
#include "tests/support/formula.h"
#include "tests/support/guarded_buffer.h"

namespace acorn {
namespace {

using test::GuardedBuffer;

struct Shape {
  WeightFormat format;
  Layout layout;
  size_t n, k, k_panel;
};
constexpr Shape kShapes[] = {{WeightFormat::kW4G32, Layout::kC4, 17, 96, 0},   {WeightFormat::kW4G64, Layout::kC4, 16, 128, 0},
                             {WeightFormat::kW4G128, Layout::kC4, 35, 256, 0}, {WeightFormat::kW8, Layout::kX16C8, 33, 71, 0},
                             {WeightFormat::kW8, Layout::kX16C8, 16, 100, 48}, {WeightFormat::kW8, Layout::kX8C8, 9, 64, 16},
                             {WeightFormat::kW4, Layout::kX16C8, 31, 90, 32},  {WeightFormat::kW4, Layout::kX8C8, 11, 57, 57},
                             {WeightFormat::kW4, Layout::kX16C8, 5, 48, 0},   {WeightFormat::kW8, Layout::kX16C4, 18, 70, 32},
                             {WeightFormat::kW4, Layout::kX16C4, 20, 45, 0},  {WeightFormat::kW4, Layout::kX16C1, 19, 33, 16},
                             {WeightFormat::kW8, Layout::kX8C2S4, 13, 75, 32}, {WeightFormat::kW8, Layout::kX8C2S4, 8, 40, 0},
                             {WeightFormat::kW2G32, Layout::kC4, 21, 96, 0}};

/// A packed matrix and its integers: multiplier times weight.
struct Matrix {
  explicit Matrix(const Shape &s) : packed(PackedBytes(s)), plain(s.n * s.k) {
    test::Corners corners(s.n * 1000 + s.k);
    for (uint8_t &byte : packed) byte = static_cast<uint8_t>(corners.Between(0, 255));
    for (size_t n = 0; n < s.n; ++n) {
      for (size_t k = 0; k < s.k; ++k) plain[n * s.k + k] = Put(s, n, k, &corners);
    }
  }

  static size_t PackedBytes(const Shape &s) {
    if (s.layout == Layout::kC4) return c4::PackedBytes(s.format, s.n, s.k);
    return XnnPackedBytes({s.format, s.layout, s.n, s.k, s.k_panel == 0 ? s.k : s.k_panel});
  }

  void PutBits(uint64_t offset, uint32_t shift, uint32_t bits, uint32_t mask) {
    packed[offset] = static_cast<uint8_t>((packed[offset] & ~(mask << shift)) | bits << shift);
  }

  int32_t Put(const Shape &s, size_t n, size_t k, test::Corners *corners) {
    if (s.layout == Layout::kC4) {
      const bool two_bits = s.format == WeightFormat::kW2G32;
      const auto code = static_cast<uint32_t>(corners->Between(0, two_bits ? 3 : 15));
      const int32_t w = two_bits ? 2 * static_cast<int32_t>(code) - 3 : static_cast<int32_t>(code) - 8;
      PutBits(c4::WeightOffset(s.format, n, k, s.k), c4::Shift(s.format, k), code, two_bits ? 3 : 15);
      return w * packed[c4::MultiplierOffset(s.format, n, k / GroupSize(s.format), s.k)];  // as random as it was
    }
    const auto w = static_cast<int32_t>(s.format == WeightFormat::kW8 ? corners->Between(-127, 127) : corners->Between(-8, 7));
    const XnnWeightPlace place = XnnWeight({s.format, s.layout, s.n, s.k, s.k_panel == 0 ? s.k : s.k_panel}, n, k);
    PutBits(place.offset, place.shift, XnnEncode(s.format, s.layout, w), s.format == WeightFormat::kW8 ? 255 : 15);
    return w;
  }

  GuardedBuffer<uint8_t> packed;
  std::vector<int32_t> plain;  // [n, k]
};

TEST(Embed, EveryFormatAndLayout) {
  for (const Shape &s : kShapes) {
    for (int32_t shift : {1, 20, 33, 62}) {
      SCOPED_TRACE(testing::Message() << "format " << static_cast<int>(s.format) << " layout " << static_cast<int>(s.layout)
                                      << " n=" << s.n << " k=" << s.k << " k_panel=" << s.k_panel << " shift=" << shift);
      Matrix matrix(s);
      test::Corners corners(9);
      const size_t m = s.n + 2, stride = s.k + 3;
      GuardedBuffer<int32_t> tokens(m), multiplier(s.n);
      GuardedBuffer<int16_t> y((m - 1) * stride + s.k);
      for (size_t i = 0; i < m; ++i) tokens[i] = static_cast<int32_t>((i * 7 + s.n - 1) % s.n);
      corners.FillSigned(&multiplier, 2147483647);
      for (int16_t &v : y) v = 12345;
      embed::Run({y.data(), stride, tokens.data(), m, matrix.packed.data(), s.n, s.k, s.k_panel, s.format, s.layout,
                  multiplier.data(), shift});
      for (size_t i = 0; i < y.size(); ++i) {
        const auto token = static_cast<size_t>(tokens[i / stride]);
        const size_t column = i % stride;
        const int64_t expected =
            column >= s.k ? 12345
                          : test::Sat16(test::Rs(test::Wide{matrix.plain[token * s.k + column]} * multiplier[token], shift));
        ASSERT_EQ(y[i], expected) << "row " << i / stride << " column " << column;
      }
    }
  }
}

}  // namespace
}  // namespace acorn
