#include "pack/pack.h"

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>

#include "acorn_schema/layout_xnnpack.h"
#include "base/error.h"

namespace acorn::compiler {
namespace {

void StoreLittle32(uint8_t *p, uint32_t value) {
  for (int i = 0; i < 4; ++i) p[i] = static_cast<uint8_t>(value >> (8 * i));
}

void PackC4(PackedWeight *packed, const QuantizedMatrix &matrix) {
  const uint64_t n = static_cast<uint64_t>(matrix.n), k = static_cast<uint64_t>(matrix.k);
  const WeightFormat format = matrix.format;
  const uint32_t group = GroupSize(format), mask = c4::Mask(format);
  const uint64_t tile_bytes = c4::TileBytes(format, k), header_bytes = c4::HeaderBytes(k, group);
  packed->bytes.assign(c4::PackedBytes(format, n, k), 0);
  uint8_t *bytes = packed->bytes.data();
  for (uint64_t tile = 0; tile < c4::Tiles(n); ++tile) {
    std::memset(bytes + tile * tile_bytes + header_bytes, c4::PaddingByte(format), tile_bytes - header_bytes);
  }
  for (uint64_t channel = 0; channel < n; ++channel) {
    for (uint64_t g = 0; g < k / group; ++g) {
      bytes[c4::MultiplierOffset(format, channel, g, k)] = matrix.multipliers[channel * (k / group) + g];
    }
    for (uint64_t i = 0; i < k; ++i) {
      const uint32_t shift = c4::Shift(format, i);
      uint8_t &byte = bytes[c4::WeightOffset(format, channel, i, k)];
      byte = static_cast<uint8_t>((byte & ~(mask << shift)) | c4::Encode(format, matrix.weights[channel * k + i]) << shift);
    }
  }
}

void PackXnn(PackedWeight *packed, const QuantizedMatrix &matrix) {
  const uint64_t n = static_cast<uint64_t>(matrix.n), k = static_cast<uint64_t>(matrix.k);
  const uint64_t k_panel = static_cast<uint64_t>(packed->k_panel);
  const WeightFormat format = matrix.format;
  const Layout layout = packed->layout;
  const XnnMatrix place{format, layout, n, k, k_panel};
  const uint64_t padded_n = XnnTiles(layout, n) * XnnNr(layout);
  packed->bytes.assign(XnnPackedBytes(place), XnnPadding(format, layout));
  uint8_t *bytes = packed->bytes.data();
  const uint32_t mask = format == WeightFormat::kW4 ? 15 : 255;
  for (uint64_t channel = 0; channel < padded_n; ++channel) {
    for (uint64_t panel = 0; panel < XnnPanels(k, k_panel); ++panel) {
      int32_t sum = 0;
      const uint64_t begin = panel * k_panel;
      const uint64_t depth = XnnPanelDepth(k, k_panel, panel);
      for (uint64_t i = begin; i < begin + depth && channel < n; ++i) {
        const int8_t w = matrix.weights[channel * k + i];
        const XnnWeightPlace at = XnnWeight(place, channel, i);
        bytes[at.offset] =
            static_cast<uint8_t>((bytes[at.offset] & ~(mask << at.shift)) | uint32_t{XnnEncode(format, layout, w)} << at.shift);
        sum += w;
      }
      StoreLittle32(bytes + XnnKsumOffset(place, channel, panel), static_cast<uint32_t>(XnnKsum(format, layout, sum)));
      StoreLittle32(bytes + XnnScaleOffset(place, channel, panel), kXnnScale);
      StoreLittle32(bytes + XnnBiasOffset(place, channel, panel), kXnnBias);
    }
  }
}

bool PanelsFit(const QuantizedMatrix &matrix, int64_t k_panel) {
  for (int64_t channel = 0; channel < matrix.n; ++channel) {
    for (int64_t begin = 0; begin < matrix.k; begin += k_panel) {
      int64_t sum = 0;
      for (int64_t i = begin; i < std::min(begin + k_panel, matrix.k); ++i) sum += std::abs(matrix.weight(channel, i));
      if (kRowLimit * sum >= kXnnSumLimit) return false;
    }
  }
  return true;
}

}  // namespace

namespace {

/// Sum over groups of multiplier * sum of value(w) in the group.
template <typename Value>
int64_t SumChannel(const QuantizedMatrix &matrix, int64_t channel, const Value &value) {
  const int64_t width = matrix.group() == 0 ? matrix.k : matrix.group(), groups = matrix.k / width;
  int64_t total = 0;
  for (int64_t g = 0; g < groups; ++g) {
    const int8_t *w = matrix.weights.data() + channel * matrix.k + g * width;
    int32_t sum = 0;  // k is far below 2^24
    for (int64_t i = 0; i < width; ++i) sum += value(w[i]);
    total += matrix.multipliers.empty() ? sum : int64_t{matrix.multipliers[static_cast<size_t>(channel * groups + g)]} * sum;
  }
  return total;
}

}  // namespace

int64_t QuantizedMatrix::AbsoluteSum(int64_t channel) const {
  return SumChannel(*this, channel, [](int32_t w) { return std::abs(w); });
}

int64_t QuantizedMatrix::Sum(int64_t channel) const {
  return SumChannel(*this, channel, [](int32_t w) { return w; });
}

QuantizedMatrix QuantizedMatrix::Channels(int64_t first, int64_t count) const {
  const auto rows = [&](const auto &all, int64_t width) {
    const auto begin = all.begin() + first * width;
    return std::decay_t<decltype(all)>(begin, begin + count * width);
  };
  // NOLINTNEXTLINE(clang-analyzer-core.DivideZero): what has multipliers has groups
  const int64_t groups = multipliers.empty() ? 0 : k / group();
  return {format, count, k, rows(weights, k), rows(multipliers, groups), rows(scale, 1)};
}

QuantizedMatrix QuantizedMatrix::Inputs(int64_t first, int64_t count) const {
  const auto columns = [&](const auto &all, int64_t width, int64_t begin, int64_t size) {
    std::decay_t<decltype(all)> some;
    for (int64_t row = 0; row < n && width != 0; ++row) {
      const auto at = all.begin() + row * width + begin;
      some.insert(some.end(), at, at + size);
    }
    return some;
  };
  const int64_t unit = multipliers.empty() ? k : group();
  assert(multipliers.empty() || (first % unit == 0 && count % unit == 0));
  // NOLINTBEGIN(clang-analyzer-core.DivideZero): as above
  const int64_t groups = multipliers.empty() ? 0 : k / unit;
  return {format, n, count, columns(weights, k, first, count), columns(multipliers, groups, first / unit, count / unit), scale};
  // NOLINTEND(clang-analyzer-core.DivideZero)
}

uint64_t QuantizedMatrix::PayloadBytes() const {
  const uint64_t row_bits = static_cast<uint64_t>(k) * WeightBits(format);
  return static_cast<uint64_t>(n) * ((row_bits + 7) / 8) + multipliers.size();
}

int64_t ChoosePanelDepth(const QuantizedMatrix &matrix) {
  if (GroupSize(matrix.format) != 0 || PanelsFit(matrix, matrix.k)) return matrix.k;
  // 1024 values of magnitude 127 stay below the limit, so this ends at 1024 at the latest.
  int64_t panels = 2;
  for (;; ++panels) {
    const int64_t depth = ((matrix.k + panels - 1) / panels + 15) / 16 * 16;
    if (depth < matrix.k && PanelsFit(matrix, depth)) return depth;
  }
}

PackedWeight Pack(const QuantizedMatrix &matrix, Layout layout, int64_t k_panel) {
  if (!LayoutHolds(layout, matrix.format)) {
    throw Error(ExitCode::kBadModel, "pack: layout " + std::to_string(static_cast<int>(layout)) + " cannot hold format " +
                                         std::to_string(static_cast<int>(matrix.format)));
  }
  PackedWeight packed;
  packed.format = matrix.format;
  packed.layout = layout;
  packed.n = matrix.n;
  packed.k = matrix.k;
  packed.k_panel = k_panel != 0 ? k_panel : ChoosePanelDepth(matrix);
  int64_t largest = 0;
  for (int64_t channel = 0; channel < matrix.n; ++channel) largest = std::max(largest, matrix.AbsoluteSum(channel));
  packed.acc_bound = static_cast<uint64_t>(kRowLimit * largest);
  if (packed.acc_bound >= uint64_t{1} << 31) {
    throw Error(ExitCode::kBadModel,
                "pack: a sum of a weight [" + std::to_string(matrix.n) + ", " + std::to_string(matrix.k) + "] may reach 2^31");
  }
  if (layout == Layout::kC4) {
    PackC4(&packed, matrix);
  } else {
    PackXnn(&packed, matrix);
  }
  return packed;
}

}  // namespace acorn::compiler
