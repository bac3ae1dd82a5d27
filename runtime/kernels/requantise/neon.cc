#include "kernels/requantise/kernel.h"
#include "kernels/simd_neon.h"

namespace acorn::requantise {
namespace {

struct StoreS32 {
  using Type = int32_t;
  static void Store(int32_t *p, size_t count, S32x16 a, int32_t) {
    int32_t values[kBlock];
    int32_t *to = count == kBlock ? p : values;
    for (int i = 0; i < 4; ++i) vst1q_s32(to + 4 * i, vmaxq_s32(a.v[i], vdupq_n_s32(-INT32_MAX)));
    if (count != kBlock) __builtin_memcpy(p, values, count * sizeof(int32_t));
  }
};

template <typename Scale>
struct OneRow {
  explicit OneRow(const Args &args) : scale(args.shift), acc(args.acc) {}
  S32x16 Scaled(size_t at, size_t count, S32x16 bias, S32x16 multiplier) const {
    return Apply(scale, Add(Load(acc + at, count), bias), multiplier);
  }
  Scale scale;
  const int32_t *acc;
};

struct TwoRow {
  explicit TwoRow(const Args &args) : scale(args.shift), acc(args.acc), acc_low(args.acc_low) {}
  // The product of the sum, summand by summand: a summand's may wrap, the sum's does not.
  S32x16 Scaled(size_t at, size_t count, S32x16 bias, S32x16 multiplier) const {
    const S32x16 a = Load(acc + at, count), b = Load(acc_low + at, count);
    S32x16 y;
    for (int i = 0; i < 4; ++i) {
      const int32x4_t factor = multiplier.v[i];
      const int32x2_t factor_low = vget_low_s32(factor);
      int64x2_t low = vshlq_n_s64(vmull_s32(vget_low_s32(a.v[i]), factor_low), 7);
      int64x2_t high = vshlq_n_s64(vmull_high_s32(a.v[i], factor), 7);
      low = vmlal_s32(vmlal_s32(low, vget_low_s32(b.v[i]), factor_low), vget_low_s32(bias.v[i]), factor_low);
      high = vmlal_high_s32(vmlal_high_s32(high, b.v[i], factor), bias.v[i], factor);
      y.v[i] = scale.Shift(low, high);
    }
    return y;
  }
  WideScale scale;
  const int32_t *acc, *acc_low;
};

// A block of columns at a time, so that bias and multipliers stay in registers over all rows.
template <typename Output, typename Input>
void Run(const Args &args) {
  const Input input(args);
  const size_t rows = args.m, acc_stride = args.acc_stride, y_stride = args.y_stride;
  const int32_t *bias_row = args.bias, *multiplier_row = args.multiplier;
  auto *y_row = static_cast<typename Output::Type *>(args.y);
  const int32_t zero_point = args.zero_point;
  ForBlocks(args.n, [=](size_t n, size_t count) ACORN_INLINE_BODY {
    const S32x16 bias = bias_row == nullptr ? S32x16{} : Load(bias_row + n, count);
    const S32x16 multiplier = Load(multiplier_row + n, count);
    auto *y = y_row + n;
    size_t at = n;
    for (size_t m = rows; m > 0; --m, at += acc_stride, y += y_stride) {
      Output::Store(y, count, input.Scaled(at, count, bias, multiplier), zero_point);
    }
  });
}

template <typename Output>
void RunOneRow(const Args &args) {
  if (args.shift >= HighScale::kLeastShift) {
    Run<Output, OneRow<HighScale>>(args);
  } else {
    Run<Output, OneRow<WideScale>>(args);
  }
}

}  // namespace

void S8Neon(const Args &args);
void S16Neon(const Args &args);
void S32Neon(const Args &args);
void TwoRowS8Neon(const Args &args);
void TwoRowS16Neon(const Args &args);
void TwoRowS32Neon(const Args &args);

void S8Neon(const Args &args) { RunOneRow<StoreS8>(args); }
void S16Neon(const Args &args) { RunOneRow<StoreS16>(args); }
void S32Neon(const Args &args) { RunOneRow<StoreS32>(args); }
void TwoRowS8Neon(const Args &args) { Run<StoreS8, TwoRow>(args); }
void TwoRowS16Neon(const Args &args) { Run<StoreS16, TwoRow>(args); }
void TwoRowS32Neon(const Args &args) { Run<StoreS32, TwoRow>(args); }

}  // namespace acorn::requantise
