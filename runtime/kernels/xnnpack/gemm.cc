#include "kernels/xnnpack/gemm.h"

#include "acorn_schema/layout_xnnpack.h"
#include "base/checked.h"

namespace acorn::xnnpack {
namespace {

// Sums are below 2^24. What the tiles of a file that lies make of them fits an integer all the same: no float outside converts.
constexpr float kMostSum = 2147483520;  // the largest float below 2^31
constexpr MinMaxParams kClamp = {-kMostSum, kMostSum};
constexpr QuantizationParams kIdentity[kMaxRows] = {
    {0, 1.0f}, {0, 1.0f}, {0, 1.0f}, {0, 1.0f}, {0, 1.0f}, {0, 1.0f}, {0, 1.0f}, {0, 1.0f},
    {0, 1.0f}, {0, 1.0f}, {0, 1.0f}, {0, 1.0f}, {0, 1.0f}, {0, 1.0f}, {0, 1.0f}, {0, 1.0f},
};

// A microkernel reads a row of x up to the next multiple of this.
constexpr size_t kReach = 8;

// Channels that pass through the scratch at a time where panels are added up.
constexpr size_t kSumChannels = 64;

using Floats = float __attribute__((vector_size(16), aligned(4), may_alias));
using Ints = int32_t __attribute__((vector_size(16), aligned(4), may_alias));
using OneFloat = float __attribute__((may_alias));

// The floats that a microkernel stored in acc become the integers they stand for.
void ConvertInPlace(int32_t *acc, size_t count) {
  size_t i = 0;
  for (; i + 4 <= count; i += 4) {
    Floats values;
    __builtin_memcpy(&values, acc + i, sizeof(values));
    const Ints integers = __builtin_convertvector(values, Ints);
    __builtin_memcpy(acc + i, &integers, sizeof(integers));
  }
  for (; i < count; ++i) acc[i] = static_cast<int32_t>(*reinterpret_cast<const OneFloat *>(acc + i));
}

void AddConverted(int32_t *acc, const float *sums, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    acc[i] = static_cast<int32_t>(static_cast<uint32_t>(acc[i]) + static_cast<uint32_t>(static_cast<int32_t>(sums[i])));
  }
}

struct Rows {
  const int8_t *x;
  size_t stride;
  size_t count;
};

class Product {
 public:
  Product(const GemmArgs &args, const Gemm &gemm)
      : args_(args),
        gemm_(gemm),
        matrix_{gemm.format, gemm.layout, args.n, args.k_stored, args.k_panel == 0 ? args.k_stored : args.k_panel},
        sums_(reinterpret_cast<float *>(args.scratch)),
        copies_(reinterpret_cast<int8_t *>(args.scratch) + kMaxRows * kSumChannels * sizeof(float)) {}

  void Run() const {
    // Walking the weights in pieces that stay in the L1 cache over the row blocks gained nothing (24 KiB, against a 2 MiB L2).
    for (size_t m = 0; m < args_.m; m += gemm_.mr) {
      RunRows(m, args_.m - m < gemm_.mr ? args_.m - m : gemm_.mr);
    }
  }

 private:
  void RunRows(size_t m, size_t count) const {
    const Rows rows = RowsOf(m, count);
    const size_t n = args_.n_begin, n_end = args_.n_end;
    int32_t *acc = args_.acc + m * args_.acc_stride;
    Call(rows, 0, n, n_end, reinterpret_cast<float *>(acc), args_.acc_stride);
    for (size_t row = 0; row < count; ++row) ConvertInPlace(acc + row * args_.acc_stride, n_end - n);
    for (size_t panel = 1; panel < XnnPanels(args_.k, matrix_.k_panel); ++panel) {
      for (size_t begin = n; begin < n_end; begin += kSumChannels) {
        const size_t end = n_end - begin < kSumChannels ? n_end : begin + kSumChannels;
        Call(rows, panel, begin, end, sums_, kSumChannels);
        for (size_t row = 0; row < count; ++row) {
          AddConverted(acc + row * args_.acc_stride + (begin - n), sums_ + row * kSumChannels, end - begin);
        }
      }
    }
  }

  // Where kReach is past a row's end, the microkernel gets a copy.
  Rows RowsOf(size_t m, size_t count) const {
    const int8_t *x = args_.x + m * args_.x_stride;
    if (args_.k % kReach == 0) return {x, args_.x_stride, count};
    const size_t stride = AlignUp(args_.k, kReach);
    for (size_t row = 0; row < count; ++row) {
      __builtin_memcpy(copies_ + row * stride, x + row * args_.x_stride, args_.k);
      __builtin_memset(copies_ + row * stride + args_.k, 0, stride - args_.k);
    }
    return {copies_, stride, count};
  }

  void Call(const Rows &rows, size_t panel, size_t n, size_t n_end, float *sums, size_t stride) const {
    GemmMicrokernel *microkernel = rows.count == 1 ? gemm_.one_row : gemm_.rows;
    microkernel(rows.count, n_end - n, XnnPanelDepth(matrix_.k, matrix_.k_panel, panel),
                rows.x + panel * matrix_.k_panel, rows.stride, args_.w + XnnTileOffset(matrix_, n, panel), sums,
                stride * sizeof(float), XnnNr(matrix_.layout) * sizeof(float), &kClamp, kIdentity);
  }

  const GemmArgs &args_;
  const Gemm &gemm_;
  XnnMatrix matrix_;
  float *sums_;      // [kMaxRows, kSumChannels]
  int8_t *copies_;   // [mr, k rounded up to kReach]
};

}  // namespace

size_t GemmScratchBytes(size_t m, size_t k) {
  const size_t rows = m < kMaxRows ? m : kMaxRows;
  return kMaxRows * kSumChannels * sizeof(float) + rows * AlignUp(k, 64);
}

void RunGemm(const GemmArgs &args, const Gemm &gemm) { Product(args, gemm).Run(); }

}  // namespace acorn::xnnpack
