// Grouped kernels as a loop, for every machine and for every test.
#pragma once

#include "acorn_schema/layout.h"
#include "kernels/gemm.h"

namespace acorn::grouped {

/// One row of x times one tile: 16 sums. Format has kBits and Dot: the products of a channel's four bytes with the x of their depths.
/// Sums of a file that lies about its bounds wrap, as they do in registers.
template <typename Format>
void RowTimesTile(uint32_t *sums, const int8_t *x, const uint8_t *tile, size_t k, size_t k_stored, uint32_t group) {
  constexpr size_t kRowDepth = c4::RowDepth(Format::kBits);
  const uint8_t *row = tile + c4::HeaderBytes(k_stored, group);
  for (size_t c = 0; c < c4::kTileChannels; ++c) sums[c] = 0;
  for (size_t g = 0; g < k / group; ++g) {
    uint32_t dots[c4::kTileChannels] = {};
    for (size_t depth = 0; depth < group; depth += kRowDepth) {
      for (size_t c = 0; c < c4::kTileChannels; ++c) dots[c] += static_cast<uint32_t>(Format::Dot(row + 4 * c, x));
      x += kRowDepth;
      row += c4::kRowBytes;
    }
    for (size_t c = 0; c < c4::kTileChannels; ++c) sums[c] += tile[g * c4::kTileChannels + c] * dots[c];
  }
}

template <typename Format>
void RunScalar(const GemmArgs &args) {
  const size_t channels = args.n_end - args.n_begin;
  for (size_t run = 0; run < args.runs; ++run) {
    for (size_t n = 0; n < channels; n += c4::kTileChannels) {
      const size_t index = (args.n_begin + run * args.run_step + n) / c4::kTileChannels;
      const uint8_t *tile = args.w + index * c4::TileBytes(args.k_stored, args.group, Format::kBits);
      for (size_t m = 0; m < args.m; ++m) {
        uint32_t sums[c4::kTileChannels];
        RowTimesTile<Format>(sums, args.x + m * args.x_stride, tile, args.k, args.k_stored, args.group);
        int32_t *acc = args.acc + m * args.acc_stride + run * channels + n;
        for (size_t c = 0; c < c4::kTileChannels && n + c < channels; ++c) acc[c] = static_cast<int32_t>(sums[c]);
      }
    }
  }
}

}  // namespace acorn::grouped
