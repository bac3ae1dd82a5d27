#include "base/fixed_point.h"
#include "kernels/rmsnorm/kernel.h"

namespace acorn::rmsnorm {
namespace {

// kSeed[i] = 2^30 * sqrt(16 / (i + 16.5)), rounded, at most 2^30: the middle of the i-th of 48 parts of [2^28, 2^30).
constexpr uint32_t kSeed[48] = {
    1057347856, 1026693558, 998559613, 972618566, 948599586, 926276469, 905458609, 885984104, 867714429, 850530263,
    834328203,  819018128,  804521086, 790767575, 777696137, 765252196, 753387102, 742057327, 731223792, 720851298,
    710908045,  701365222,  692196655, 683378504, 674889000, 666708225, 658817909, 651201261, 643842818, 636728315,
    629844563,  623179354,  616721362, 610460069, 604385689, 598489102, 592761802, 587195840, 581783781, 576518662,
    571393950,  566403514,  561541591, 556802759, 552181909, 547674226, 543275165, 538980433,
};

template <typename Output, Output (*saturate)(int64_t)>
void Rows(const Args &args) {
  for (size_t row = 0; row < args.m; ++row) {
    for (size_t group = 0; group < args.groups; ++group) {
      const int16_t *x = args.x + row * args.x_stride + group * args.depth;
      Output *y = static_cast<Output *>(args.y) + row * args.y_stride + group * args.depth;
      uint64_t n = args.eps_term;
      for (size_t i = 0; i < args.depth; ++i) n += static_cast<uint64_t>(int64_t{x[i]} * x[i]);
      const Reciprocal reciprocal = ReciprocalRoot(n, args);
      for (size_t i = 0; i < args.depth; ++i) {
        const int64_t product = int64_t{x[i]} * args.gamma[i] * reciprocal.multiplier;
        const int64_t rounded = reciprocal.shift == 0 ? 0 : RoundShift(product, reciprocal.shift);
        y[i] = saturate(rounded + args.zero_point);
      }
    }
  }
}

}  // namespace

uint64_t Rsqrt(uint64_t v) {
  uint64_t r = kSeed[(v >> 24) - 16];
  for (int step = 0; step < 2; ++step) {
    const uint64_t a = (r * r) >> 30;
    const uint64_t b = (a * v) >> 28;
    r = (r * ((uint64_t{3} << 30) - b)) >> 31;
  }
  return r < uint64_t{1} << 30 ? r : uint64_t{1} << 30;
}

Root RootOf(uint64_t n) {
  const int e = (BitLength(n) - 29) >> 1;
  return {static_cast<int64_t>(Rsqrt(e >= 0 ? n >> (2 * e) : n << (-2 * e))), e};
}

Reciprocal ReciprocalRoot(uint64_t n, const Args &args) {
  if (n == 0) return {0, 0};
  const Root root = RootOf(n);
  const int shift = args.shift + 13 + root.e;
  if (shift > 62) return {0, 0};
  return {static_cast<int32_t>(RoundShift(root.r * args.multiplier, 31)), shift};
}

void RunS8Scalar(const Args &args) { Rows<int8_t, SaturateS8>(args); }
void RunS16Scalar(const Args &args) { Rows<int16_t, SaturateS16>(args); }

}  // namespace acorn::rmsnorm
