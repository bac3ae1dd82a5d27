// Wide: integers of 128 bits, for tests that compute what the runtime must give without a thought for overflow. The compiler's
// own where it has them; 32-bit machines get WideInteger, whose test runs where both are there.
#pragma once

#include <cstdint>
#include <type_traits>

namespace acorn::test {

/// Two's complement in two words. What overflows is lost, as in unsigned arithmetic; division goes towards zero.
class WideInteger {
 public:
  constexpr WideInteger() = default;
  template <typename T, std::enable_if_t<std::is_integral_v<T>, int> = 0>
  constexpr WideInteger(T value) : low_(static_cast<uint64_t>(value)), high_(value < T{0} ? ~uint64_t{0} : 0) {}

  template <typename T, std::enable_if_t<std::is_integral_v<T>, int> = 0>
  constexpr explicit operator T() const { return static_cast<T>(low_); }

  friend constexpr WideInteger operator+(WideInteger a, WideInteger b) {
    const uint64_t low = a.low_ + b.low_;
    return Words(a.high_ + b.high_ + (low < a.low_ ? 1 : 0), low);
  }
  constexpr WideInteger operator-() const { return Words(~high_, ~low_) + 1; }
  friend constexpr WideInteger operator-(WideInteger a, WideInteger b) { return a + -b; }
  friend constexpr WideInteger operator*(WideInteger a, WideInteger b) {
    const uint64_t a0 = a.low_ & kHalf, a1 = a.low_ >> 32, b0 = b.low_ & kHalf, b1 = b.low_ >> 32;
    const uint64_t middle = a1 * b0 + (a0 * b0 >> 32);  // at most (2^32 - 1) · 2^32
    const uint64_t carry = a0 * b1 + (middle & kHalf);
    return Words(a.low_ * b.high_ + a.high_ * b.low_ + a1 * b1 + (middle >> 32) + (carry >> 32), a.low_ * b.low_);
  }
  friend constexpr WideInteger operator/(WideInteger a, WideInteger b) {
    const WideInteger quotient = DivideUnsigned(a.Magnitude(), b.Magnitude());
    return a.Negative() == b.Negative() ? quotient : -quotient;
  }
  friend constexpr WideInteger operator%(WideInteger a, WideInteger b) { return a - a / b * b; }

  /// shift in [0, 127]
  friend constexpr WideInteger operator<<(WideInteger a, int shift) {
    if (shift == 0) return a;
    if (shift >= 64) return Words(a.low_ << (shift - 64), 0);
    return Words(a.high_ << shift | a.low_ >> (64 - shift), a.low_ << shift);
  }
  friend constexpr WideInteger operator>>(WideInteger a, int shift) {
    const uint64_t sign = a.Negative() ? ~uint64_t{0} : 0;
    if (shift == 0) return a;
    if (shift == 64) return Words(sign, a.high_);
    if (shift > 64) return Words(sign, a.high_ >> (shift - 64) | sign << (128 - shift));
    return Words(a.high_ >> shift | sign << (64 - shift), a.low_ >> shift | a.high_ << (64 - shift));
  }

  constexpr WideInteger &operator+=(WideInteger b) { return *this = *this + b; }
  constexpr WideInteger &operator-=(WideInteger b) { return *this = *this - b; }
  constexpr WideInteger &operator--() { return *this = *this - 1; }

  friend constexpr bool operator==(WideInteger a, WideInteger b) { return a.high_ == b.high_ && a.low_ == b.low_; }
  friend constexpr bool operator!=(WideInteger a, WideInteger b) { return !(a == b); }
  friend constexpr bool operator<(WideInteger a, WideInteger b) {
    constexpr uint64_t kSign = uint64_t{1} << 63;  // turned over, signed words are in the order of unsigned ones
    return a.high_ != b.high_ ? (a.high_ ^ kSign) < (b.high_ ^ kSign) : a.low_ < b.low_;
  }
  friend constexpr bool operator>(WideInteger a, WideInteger b) { return b < a; }
  friend constexpr bool operator<=(WideInteger a, WideInteger b) { return !(b < a); }
  friend constexpr bool operator>=(WideInteger a, WideInteger b) { return !(a < b); }

 private:
  static constexpr uint64_t kHalf = 0xffffffff;

  static constexpr WideInteger Words(uint64_t high, uint64_t low) {
    WideInteger value;
    value.high_ = high;
    value.low_ = low;
    return value;
  }
  constexpr bool Negative() const { return high_ >> 63 != 0; }
  constexpr WideInteger Magnitude() const { return Negative() ? -*this : *this; }

  // Both at least 0. Bit by bit, but for words.
  static constexpr WideInteger DivideUnsigned(WideInteger a, WideInteger b) {
    if (a.high_ == 0 && b.high_ == 0) return a.low_ / b.low_;
    WideInteger quotient, rest;
    for (int bit = 127; bit >= 0; --bit) {
      rest = rest << 1;
      rest.low_ |= (bit >= 64 ? a.high_ >> (bit - 64) : a.low_ >> bit) & 1;
      quotient = quotient << 1;
      if (rest < b) continue;
      rest -= b;
      quotient.low_ |= 1;
    }
    return quotient;
  }

  uint64_t low_ = 0, high_ = 0;
};

#if defined(__SIZEOF_INT128__)
using Wide = __int128;
#else
using Wide = WideInteger;
#endif

}  // namespace acorn::test
