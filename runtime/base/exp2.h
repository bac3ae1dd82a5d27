// 2^-t in integers, for what becomes a probability: the sampler's weights and the router's. docs/ARITHMETIC.md §12 is normative.
// Static: a copy compiled for one instruction set must not serve all.
#pragma once

#include <cstdint>

namespace acorn {

// round(2^31 * 2^(-i / 64))
static constexpr uint32_t kExp2Neg[64] = {
    0x80000000, 0x7E9F0606, 0x7D41D96E, 0x7BE86FBA, 0x7A92BE8B, 0x7940BB9E, 0x77F25CCE, 0x76A7980F, 0x75606374, 0x741CB528,
    0x72DC8374, 0x719FC4B9, 0x70666F76, 0x6F307A41, 0x6DFDDBCC, 0x6CCE8AE1, 0x6BA27E65, 0x6A79AD56, 0x69540EC9, 0x683199ED,
    0x6712460B, 0x65F60A7F, 0x64DCDEC3, 0x63C6BA64, 0x62B39509, 0x61A3666D, 0x60962665, 0x5F8BCCDB, 0x5E8451D0, 0x5D7FAD59,
    0x5C7DD7A4, 0x5B7EC8F2, 0x5A82799A, 0x5988E209, 0x5891FAC1, 0x579DBC57, 0x56AC1F75, 0x55BD1CDB, 0x54D0AD5A, 0x53E6C9DA,
    0x52FF6B55, 0x521A8AD7, 0x51382182, 0x50582888, 0x4F7A9930, 0x4E9F6CD4, 0x4DC69CDD, 0x4CF022CA, 0x4C1BF829, 0x4B4A169C,
    0x4A7A77D4, 0x49AD1598, 0x48E1E9BA, 0x4818EE22, 0x47521CC6, 0x468D6FAE, 0x45CAE0F2, 0x450A6ABB, 0x444C0740, 0x438FB0CB,
    0x42D561B4, 0x421D1462, 0x4166C34C, 0x40B268FA,
};
static constexpr uint64_t kLn2Q31 = 0x58B90BFC;  // round(2^31 * ln 2)
static constexpr int kExp2FractionBits = 26;

/// 2^31 * 2^(-t / 2^26), rounded as docs/ARITHMETIC.md §12 says; 0 from t = 32 << 26 on.
static inline uint32_t Exp2NegQ31(uint64_t t_q26) {
  const uint64_t whole = t_q26 >> kExp2FractionBits;
  if (whole >= 32) return 0;
  const uint32_t fraction = static_cast<uint32_t>(t_q26) & ((1u << kExp2FractionBits) - 1);
  const uint32_t index = fraction >> (kExp2FractionBits - 6);
  const uint64_t rest = fraction & ((1u << (kExp2FractionBits - 6)) - 1);  // below 2^-6 in Q26
  // e^-y = 1 - y + y^2/2 - y^3/6 for y = rest * ln 2 < 0.011; the next term is below 2^-30
  const uint64_t y = (rest * kLn2Q31 + (uint64_t{1} << 24)) >> 25;  // Q32
  const uint64_t y2 = (y * y) >> 32;
  const uint64_t y3 = (y2 * y) >> 32;
  const uint64_t power = (uint64_t{1} << 32) - y + (y2 >> 1) - y3 / 6;  // Q32
  return static_cast<uint32_t>((kExp2Neg[index] * power + (uint64_t{1} << (31 + whole))) >> (32 + whole));
}

}  // namespace acorn
