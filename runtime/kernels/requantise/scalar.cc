// The formula as a loop, for every machine and for every test.
#include "base/fixed_point.h"
#include "kernels/requantise/kernel.h"

namespace acorn::requantise {
namespace {

// Of a file that lies about its bounds sums and products wrap, as they do in registers.
struct OneRow {
  static int64_t Sum(const Args &args, size_t at, int32_t bias) {
    return static_cast<int32_t>(static_cast<uint32_t>(args.acc[at]) + static_cast<uint32_t>(bias));
  }
};
struct TwoRow {
  static int64_t Sum(const Args &args, size_t at, int32_t bias) {
    return int64_t{args.acc[at]} * 128 + args.acc_low[at] + bias;
  }
};

template <typename Input, typename Output, int64_t kLimit>
void Run(const Args &args) {
  for (size_t m = 0; m < args.m; ++m) {
    Output *y = static_cast<Output *>(args.y) + m * args.y_stride;
    for (size_t n = 0; n < args.n; ++n) {
      const int64_t sum = Input::Sum(args, m * args.acc_stride + n, args.bias == nullptr ? 0 : args.bias[n]);
      const uint64_t product = static_cast<uint64_t>(sum) * static_cast<uint64_t>(args.multiplier[n]);
      const int64_t rounded = static_cast<int64_t>(product + (uint64_t{1} << (args.shift - 1))) >> args.shift;
      y[n] = static_cast<Output>(Clamp(rounded + args.zero_point, -kLimit, kLimit));
    }
  }
}

}  // namespace

void S8Scalar(const Args &args);
void S16Scalar(const Args &args);
void S32Scalar(const Args &args);
void TwoRowS8Scalar(const Args &args);
void TwoRowS16Scalar(const Args &args);
void TwoRowS32Scalar(const Args &args);

void S8Scalar(const Args &args) { Run<OneRow, int8_t, 127>(args); }
void S16Scalar(const Args &args) { Run<OneRow, int16_t, 32767>(args); }
void S32Scalar(const Args &args) { Run<OneRow, int32_t, 2147483647>(args); }
void TwoRowS8Scalar(const Args &args) { Run<TwoRow, int8_t, 127>(args); }
void TwoRowS16Scalar(const Args &args) { Run<TwoRow, int16_t, 32767>(args); }
void TwoRowS32Scalar(const Args &args) { Run<TwoRow, int32_t, 2147483647>(args); }

}  // namespace acorn::requantise
