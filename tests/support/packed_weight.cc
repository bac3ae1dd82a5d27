#include "tests/support/packed_weight.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "acorn_schema/layout_xnnpack.h"

namespace acorn::test {

namespace {

/// The upper half of a product of 128 bits.
uint64_t UpperHalf(uint64_t a, uint64_t b) {
  const uint64_t a0 = a & 0xffffffffu, a1 = a >> 32, b0 = b & 0xffffffffu, b1 = b >> 32;
  const uint64_t middle = a1 * b0 + (a0 * b0 >> 32);
  return a1 * b1 + (middle >> 32) + ((a0 * b1 + (middle & 0xffffffffu)) >> 32);
}

}  // namespace

uint64_t Random::Next() {
  uint64_t z = state_ += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

int64_t Random::Between(int64_t low, int64_t high) {
  const uint64_t count = static_cast<uint64_t>(high - low) + 1, number = Next();
  // number % count, where 32-bit machines take hundreds of steps for a division: the quotient is at most 2 too small.
  if (count != count_) reciprocal_ = UINT64_MAX / count, count_ = count;
  uint64_t rest = number - UpperHalf(number, reciprocal_) * count;
  while (rest >= count) rest -= count;
  return low + static_cast<int64_t>(rest);
}

double Random::Real(double low, double high) {
  return low + (high - low) * static_cast<double>(Next() >> 11) / 9007199254740992.0;
}

int32_t WeightMatrix::At(uint32_t row, uint32_t column) const {
  const uint32_t group = GroupSize(kind.format);
  const int32_t value = w[size_t{row} * k + column];
  return group == 0 ? value : value * multipliers[size_t{row} * (k / group) + column / group];
}

double WeightMatrix::Rms() const {
  double sum = 0;
  for (uint32_t row = 0; row < n; ++row) {
    for (uint32_t column = 0; column < k; ++column) sum += std::pow(At(row, column), 2);
  }
  return std::sqrt(sum / (double(n) * k));
}

int64_t WeightMatrix::RowSum(uint32_t row) const {
  int64_t sum = 0;
  for (uint32_t column = 0; column < k; ++column) sum += At(row, column);
  return sum;
}

int64_t WeightMatrix::RowSumOfMagnitudes(uint32_t row) const {
  int64_t sum = 0;
  for (uint32_t column = 0; column < k; ++column) sum += std::abs(At(row, column));
  return sum;
}

uint64_t WeightMatrix::AccBound(int32_t largest_input) const {
  int64_t largest = 0;
  for (uint32_t row = 0; row < n; ++row) largest = std::max(largest, RowSumOfMagnitudes(row));
  return static_cast<uint64_t>(largest_input * largest);
}

namespace {

int64_t RandomWeight(WeightFormat format, Random *random) {
  switch (WeightBits(format)) {
    case 8:
      return random->Between(-127, 127);
    case 4:
      return random->Between(-8, 7);
    default:
      return 2 * random->Between(0, 3) - 3;
  }
}

}  // namespace

WeightMatrix RandomWeights(WeightKind kind, uint32_t n, uint32_t k, Random *random) {
  WeightMatrix matrix;
  matrix.kind = kind;
  matrix.n = n;
  matrix.k = k;
  matrix.w.resize(size_t{n} * k);
  for (int8_t &w : matrix.w) w = static_cast<int8_t>(RandomWeight(kind.format, random));
  const uint32_t group = GroupSize(kind.format);
  if (group != 0) {
    matrix.multipliers.resize(size_t{n} * (k / group));
    for (uint8_t &m : matrix.multipliers) m = static_cast<uint8_t>(random->Between(96, 255));
  }
  return matrix;
}

namespace {

void Store32(std::vector<uint8_t> *bytes, uint64_t offset, uint32_t value) {
  for (int i = 0; i < 4; ++i) (*bytes)[offset + i] = static_cast<uint8_t>(value >> (8 * i));
}

std::vector<uint8_t> PackGroups(const WeightMatrix &matrix) {
  const WeightFormat format = matrix.kind.format;
  const uint32_t group = GroupSize(format);
  std::vector<uint8_t> bytes(c4::PackedBytes(format, matrix.n, matrix.k), 0);
  const uint64_t header = c4::HeaderBytes(matrix.k, group), tile_bytes = c4::TileBytes(format, matrix.k);
  for (uint64_t tile = 0; tile < c4::Tiles(matrix.n); ++tile) {
    const auto begin = bytes.begin() + static_cast<int64_t>(tile * tile_bytes);
    std::fill(begin + static_cast<int64_t>(header), begin + static_cast<int64_t>(tile_bytes), c4::PaddingByte(format));
  }
  for (uint32_t n = 0; n < matrix.n; ++n) {
    for (uint32_t g = 0; g < matrix.k / group; ++g) {
      bytes[c4::MultiplierOffset(format, n, g, matrix.k)] = matrix.multipliers[size_t{n} * (matrix.k / group) + g];
    }
    for (uint32_t k = 0; k < matrix.k; ++k) {
      uint8_t &byte = bytes[c4::WeightOffset(format, n, k, matrix.k)];
      const uint32_t shift = c4::Shift(format, k), code = c4::Encode(format, matrix.w[size_t{n} * matrix.k + k]);
      byte = static_cast<uint8_t>((byte & ~(c4::Mask(format) << shift)) | code << shift);
    }
  }
  return bytes;
}

std::vector<uint8_t> PackChannels(const WeightMatrix &weights) {
  const WeightFormat format = weights.kind.format;
  const Layout layout = weights.kind.layout;
  const XnnMatrix matrix{format, layout, weights.n, weights.k, weights.PanelDepth()};
  std::vector<uint8_t> bytes(XnnPackedBytes(matrix), XnnPadding(format, layout));
  for (uint64_t n = 0; n < XnnTiles(layout, matrix.n) * XnnNr(layout); ++n) {
    for (uint64_t panel = 0; panel < XnnPanels(matrix.k, matrix.k_panel); ++panel) {
      int32_t sum = 0;
      for (uint64_t i = 0; i < XnnPanelDepth(matrix.k, matrix.k_panel, panel) && n < matrix.n; ++i) {
        sum += weights.w[n * matrix.k + panel * matrix.k_panel + i];
      }
      Store32(&bytes, XnnKsumOffset(matrix, n, panel), static_cast<uint32_t>(XnnKsum(format, layout, sum)));
      Store32(&bytes, XnnScaleOffset(matrix, n, panel), kXnnScale);
      Store32(&bytes, XnnBiasOffset(matrix, n, panel), kXnnBias);
    }
    for (uint64_t k = 0; k < matrix.k && n < matrix.n; ++k) {
      const XnnWeightPlace place = XnnWeight(matrix, n, k);
      const uint32_t mask = (format == WeightFormat::kW8 ? 0xffu : 0xfu) << place.shift;
      const uint32_t bits = uint32_t{XnnEncode(format, layout, weights.w[n * matrix.k + k])} << place.shift;
      bytes[place.offset] = static_cast<uint8_t>((bytes[place.offset] & ~mask) | bits);
    }
  }
  return bytes;
}

}  // namespace

WeightMatrix Widen(const WeightMatrix &matrix, const std::vector<std::pair<uint32_t, uint32_t>> &runs, Random *random) {
  WeightKind kind = matrix.kind;
  const uint32_t group = GroupSize(kind.format);
  const uint32_t unit = group != 0 ? group : kind.k_panel != 0 ? kind.k_panel : matrix.k % 16 == 0 ? matrix.k : 0;
  const bool deeper = unit != 0 && matrix.k % unit == 0;
  if (deeper && group == 0) kind.k_panel = unit;
  const uint32_t k = !deeper ? matrix.k : group != 0 ? matrix.k + (matrix.k / group + 1) / 2 * group : matrix.k + (matrix.k + 1) / 2;
  uint32_t n = 0;
  for (const auto &[first, count] : runs) n = std::max(n, first + count + 3);  // the last tile is not whole
  WeightMatrix wide = RandomWeights(kind, n, k, random);
  uint32_t row = 0;
  for (const auto &[first, count] : runs) {
    for (uint32_t i = 0; i < count; ++i, ++row) {
      std::copy_n(matrix.w.begin() + static_cast<ptrdiff_t>(size_t{row} * matrix.k), matrix.k,
                  wide.w.begin() + static_cast<ptrdiff_t>(size_t{first + i} * k));
      if (group == 0) continue;
      std::copy_n(matrix.multipliers.begin() + static_cast<ptrdiff_t>(size_t{row} * (matrix.k / group)), matrix.k / group,
                  wide.multipliers.begin() + static_cast<ptrdiff_t>(size_t{first + i} * (k / group)));
    }
  }
  return wide;
}

std::vector<uint8_t> Pack(const WeightMatrix &matrix) {
  return GroupSize(matrix.kind.format) != 0 ? PackGroups(matrix) : PackChannels(matrix);
}

}  // namespace acorn::test
