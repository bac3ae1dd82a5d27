// The algorithm that the vector variants share, over a Simd of 32-bit lanes whose even and odd lanes are multiplied apart.
// For the ISA files alone: each compiles its own copy, in its anonymous namespace, with its own flags.
//
// A shift of at least 32 is two exact steps: the high half of the 64-bit sum, then a 32-bit shift; the compiler's multipliers
// (up to 31 bits) make it the rule. Smaller shifts take the 64-bit way.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/inline.h"
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
  static constexpr size_t kRegisters = 3;
  OneRow() = default;
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
  static constexpr size_t kRegisters = 4;
  TwoRow() = default;
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

// kVectors vectors of columns from n on, the last of them with `count` columns. Bias and multipliers stay in registers over all rows.
template <size_t kVectors, typename Simd, typename Input, typename Output, typename Shift>
void RunBlock(const Args &args, const Shift &shift, size_t n, size_t count) {
  const auto count_of = [&](size_t v) { return v + 1 == kVectors ? count : Simd::kLanes; };
  Input input[kVectors];
  ACORN_UNROLL
  for (size_t v = 0; v < kVectors; ++v) {
    const typename Simd::Mask mask = Simd::FirstLanes(count_of(v));
    const size_t at = n + v * Simd::kLanes;
    input[v] = Input(args.bias == nullptr ? Simd::Set32(0) : Simd::Load(args.bias + at, mask), Simd::Load(args.multiplier + at, mask));
  }
  Output *y = static_cast<Output *>(args.y) + n;
  size_t at = n;
  for (size_t m = 0; m < args.m; ++m, at += args.acc_stride, y += args.y_stride) {
    ACORN_UNROLL
    for (size_t v = 0; v < kVectors; ++v) {
      typename Simd::V even, odd;
      input[v].Products(&even, &odd, args, at + v * Simd::kLanes, Simd::FirstLanes(count_of(v)));
      Simd::Store(y + v * Simd::kLanes, shift.Finish(even, odd), count_of(v));
    }
  }
}

// Rows of y lie far apart, often in the same few sets of the cache: with blocks of four vectors a row's line is written at once.
template <typename Simd, typename Input, typename Output, typename Shift>
void RunColumns(const Args &args, const Shift &shift) {
  constexpr size_t kVectors = 8 * Input::kRegisters <= Simd::kRegisters ? 4 : 2, kLanes = Simd::kLanes;
  size_t n = 0;
  for (; args.n - n >= kVectors * kLanes; n += kVectors * kLanes) {
    RunBlock<kVectors, Simd, Input, Output>(args, shift, n, kLanes);
  }
  for (; args.n - n > kLanes; n += kLanes) RunBlock<1, Simd, Input, Output>(args, shift, n, kLanes);
  if (n < args.n) RunBlock<1, Simd, Input, Output>(args, shift, n, args.n - n);
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
