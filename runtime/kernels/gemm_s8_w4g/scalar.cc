// The formula as a loop, for every machine and for every test.
#include "acorn_schema/layout.h"
#include "kernels/gemm.h"

namespace acorn::gemm_s8_w4g {
namespace {

constexpr uint32_t kBits = 4;
constexpr size_t kRowDepth = c4::RowDepth(kBits);

// One row of x times one tile: 16 sums.
void RowTimesTile(int32_t *sums, const int8_t *x, const uint8_t *tile, size_t k, uint32_t group) {
  const uint8_t *row = tile + c4::HeaderBytes(k, group);
  for (size_t c = 0; c < c4::kTileChannels; ++c) sums[c] = 0;
  for (size_t g = 0; g < k / group; ++g) {
    int32_t dots[c4::kTileChannels] = {};
    for (size_t depth = 0; depth < group; depth += kRowDepth) {
      for (size_t c = 0; c < c4::kTileChannels; ++c) {
        for (size_t i = 0; i < 4; ++i) {
          const int32_t byte = row[c * 4 + i];
          dots[c] += ((byte & 15) - 8) * x[i] + ((byte >> 4) - 8) * x[4 + i];
        }
      }
      x += kRowDepth;
      row += c4::kRowBytes;
    }
    for (size_t c = 0; c < c4::kTileChannels; ++c) sums[c] += tile[g * c4::kTileChannels + c] * dots[c];
  }
}

}  // namespace

size_t ScratchBytesScalar(size_t m, size_t k);
void RunScalar(const GemmArgs &args);

size_t ScratchBytesScalar(size_t, size_t) { return 0; }

void RunScalar(const GemmArgs &args) {
  for (size_t n = args.n_begin; n < args.n_end; n += c4::kTileChannels) {
    const uint8_t *tile = args.w + n / c4::kTileChannels * c4::TileBytes(args.k, args.group, kBits);
    for (size_t m = 0; m < args.m; ++m) {
      int32_t sums[c4::kTileChannels];
      RowTimesTile(sums, args.x + m * args.x_stride, tile, args.k, args.group);
      int32_t *acc = args.acc + m * args.acc_stride + (n - args.n_begin);
      for (size_t c = 0; c < c4::kTileChannels && n + c < args.n_end; ++c) acc[c] = sums[c];
    }
  }
}

}  // namespace acorn::gemm_s8_w4g
