// The algorithm that the vector variants share, over a Simd of 32-bit lanes whose even and odd lanes are multiplied apart.
// For the ISA files alone: each compiles its own copy, in its anonymous namespace, with its own flags.
//
// A shift of at least 32 is two exact steps: the high half of the 64-bit sum, then a 32-bit shift; the compiler's multipliers
// (up to 31 bits) make it the rule. Smaller shifts take the 64-bit way.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/requantise/kernel.h"

namespace acorn::requantise {
namespace {

constexpr int64_t LimitOf(const int8_t *) { return 127; }
constexpr int64_t LimitOf(const int16_t *) { return 32767; }
constexpr int64_t LimitOf(const int32_t *) { return 2147483647; }

// One int32 accumulator: sum and multiplier are 32 bits, the product of even lanes is one instruction.
template <typename Simd>
struct OneRow {
  using V = typename Simd::V;
  OneRow(V bias, V multiplier) : bias_(bias), even_(multiplier), odd_(Simd::Odd(multiplier)) {}

  void Products(V *even, V *odd, const Args &args, size_t at, typename Simd::Mask mask) const {
    const V sum = Simd::Add32(Simd::Load(args.acc + at, mask), bias_);
    *even = Simd::MulEven(sum, even_);
    *odd = Simd::MulEven(Simd::Odd(sum), odd_);
  }

 private:
  V bias_, even_, odd_;
};

// 128 * acc + acc_low + bias in 64 bits; multiplying even lanes by 1 or 128 also extends their sign.
template <typename Simd>
struct TwoRow {
  using V = typename Simd::V;
  TwoRow(V bias, V multiplier)
      : one_(Simd::Set32(1)),
        high_(Simd::Set32(128)),
        bias_even_(Simd::MulEven(bias, one_)),
        bias_odd_(Simd::MulEven(Simd::Odd(bias), one_)),
        even_(Simd::MulEven(multiplier, one_)),
        odd_(Simd::MulEven(Simd::Odd(multiplier), one_)) {}

  void Products(V *even, V *odd, const Args &args, size_t at, typename Simd::Mask mask) const {
    const V acc = Simd::Load(args.acc + at, mask), low = Simd::Load(args.acc_low + at, mask);
    *even = Simd::MulLow64(Simd::Add64(Sum(acc, low), bias_even_), even_);
    *odd = Simd::MulLow64(Simd::Add64(Sum(Simd::Odd(acc), Simd::Odd(low)), bias_odd_), odd_);
  }

 private:
  V Sum(V acc, V low) const { return Simd::Add64(Simd::MulEven(acc, high_), Simd::MulEven(low, one_)); }

  V one_, high_, bias_even_, bias_odd_, even_, odd_;
};

// shift >= 32. A value of 32 bits lies between low and high exactly if it does between those cut to 32 bits.
template <typename Simd>
struct LongShift {
  using V = typename Simd::V;
  LongShift(const Args &args, int64_t limit)
      : shift_(args.shift - 32),
        rounding_(Simd::Set64(int64_t{1} << (args.shift - 1))),
        zero_point_(Simd::Set32(args.zero_point)),
        low_(Simd::Set32(Cut(-limit - args.zero_point))),
        high_(Simd::Set32(Cut(limit - args.zero_point))) {}

  V Finish(V even, V odd) const {
    const V value = Simd::ShiftRight32(Simd::HighHalves(Simd::Add64(even, rounding_), Simd::Add64(odd, rounding_)), shift_);
    return Simd::Add32(Simd::Clamp32(value, low_, high_), zero_point_);
  }

 private:
  static int32_t Cut(int64_t value) {
    return static_cast<int32_t>(value < INT32_MIN ? INT32_MIN : value > INT32_MAX ? INT32_MAX : value);
  }

  int shift_;
  V rounding_, zero_point_, low_, high_;
};

template <typename Simd>
struct ShortShift {
  using V = typename Simd::V;
  ShortShift(const Args &args, int64_t limit)
      : shift_(args.shift),
        rounding_(Simd::Set64(int64_t{1} << (args.shift - 1))),
        zero_point_(Simd::Set64(args.zero_point)),
        low_(Simd::Set64(-limit)),
        high_(Simd::Set64(limit)) {}

  V Finish(V even, V odd) const { return Simd::LowHalves(Finish64(even), Finish64(odd)); }

 private:
  V Finish64(V product) const {
    const V value = Simd::ShiftRight64(Simd::Add64(product, rounding_), shift_);
    return Simd::Clamp64(Simd::Add64(value, zero_point_), low_, high_);
  }

  int shift_;
  V rounding_, zero_point_, low_, high_;
};

// A block of columns at a time, so that bias and multipliers stay in registers over all rows.
template <typename Simd, typename Input, typename Output, typename Shift>
void RunColumns(const Args &args, const Shift &shift) {
  for (size_t n = 0; n < args.n; n += Simd::kLanes) {
    const size_t count = args.n - n < Simd::kLanes ? args.n - n : Simd::kLanes;
    const typename Simd::Mask mask = Simd::FirstLanes(count);
    const Input input(args.bias == nullptr ? Simd::Set32(0) : Simd::Load(args.bias + n, mask),
                      Simd::Load(args.multiplier + n, mask));
    Output *y = static_cast<Output *>(args.y) + n;
    size_t at = n;
    for (size_t m = 0; m < args.m; ++m, at += args.acc_stride, y += args.y_stride) {
      typename Simd::V even, odd;
      input.Products(&even, &odd, args, at, mask);
      Simd::Store(y, shift.Finish(even, odd), count);
    }
  }
}

template <typename Simd, template <typename> class Input, typename Output>
void Run(const Args &args) {
  constexpr int64_t kLimit = LimitOf(static_cast<const Output *>(nullptr));
  if (args.shift >= 32) {
    RunColumns<Simd, Input<Simd>, Output>(args, LongShift<Simd>(args, kLimit));
  } else {
    RunColumns<Simd, Input<Simd>, Output>(args, ShortShift<Simd>(args, kLimit));
  }
}

}  // namespace
}  // namespace acorn::requantise

/// Defines the functions that kernels.inc names for a variant.
#define ACORN_REQUANTISE_VARIANT(suffix, Simd)                                   \
  void S8##suffix(const Args &args);                                             \
  void S16##suffix(const Args &args);                                            \
  void S32##suffix(const Args &args);                                            \
  void TwoRowS8##suffix(const Args &args);                                       \
  void TwoRowS16##suffix(const Args &args);                                      \
  void TwoRowS32##suffix(const Args &args);                                      \
  void S8##suffix(const Args &args) { Run<Simd, OneRow, int8_t>(args); }         \
  void S16##suffix(const Args &args) { Run<Simd, OneRow, int16_t>(args); }       \
  void S32##suffix(const Args &args) { Run<Simd, OneRow, int32_t>(args); }       \
  void TwoRowS8##suffix(const Args &args) { Run<Simd, TwoRow, int8_t>(args); }   \
  void TwoRowS16##suffix(const Args &args) { Run<Simd, TwoRow, int16_t>(args); } \
  void TwoRowS32##suffix(const Args &args) { Run<Simd, TwoRow, int32_t>(args); }
