#include "import/dequantize.h"

#include <cstring>

namespace acorn::compiler {
namespace {

constexpr int64_t kSmallBlock = 32;
constexpr int64_t kSuperBlock = 256;

uint16_t ReadU16(const uint8_t *p) { return static_cast<uint16_t>(p[0] | p[1] << 8); }

uint32_t ReadU32(const uint8_t *p) {
  return static_cast<uint32_t>(p[0]) | static_cast<uint32_t>(p[1]) << 8 | static_cast<uint32_t>(p[2]) << 16 |
         static_cast<uint32_t>(p[3]) << 24;
}

float BitsToFloat(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

float ReadHalf(const uint8_t *p) { return HalfToFloat(ReadU16(p)); }

// Q4_0: d f16, 16 bytes of nibbles; element i is the low nibble of byte i, element i + 16 the high one.
// x = d * (q - 8)
void Q4_0(float *dst, const uint8_t *src) {
  const float d = ReadHalf(src);
  for (int i = 0; i < 16; ++i) {
    dst[i] = d * static_cast<float>((src[2 + i] & 15) - 8);
    dst[i + 16] = d * static_cast<float>((src[2 + i] >> 4) - 8);
  }
}

// Q4_1: d f16, m f16, nibbles. x = d * q + m
void Q4_1(float *dst, const uint8_t *src) {
  const float d = ReadHalf(src);
  const float m = ReadHalf(src + 2);
  for (int i = 0; i < 16; ++i) {
    dst[i] = d * static_cast<float>(src[4 + i] & 15) + m;
    dst[i + 16] = d * static_cast<float>(src[4 + i] >> 4) + m;
  }
}

// Q5_0: d f16, 32 fifth bits (u32, bit i for element i), nibbles. x = d * (q - 16)
void Q5_0(float *dst, const uint8_t *src) {
  const float d = ReadHalf(src);
  const uint32_t high = ReadU32(src + 2);
  for (int i = 0; i < 16; ++i) {
    const int low_q = (src[6 + i] & 15) | static_cast<int>(high >> i & 1) << 4;
    const int high_q = (src[6 + i] >> 4) | static_cast<int>(high >> (i + 16) & 1) << 4;
    dst[i] = d * static_cast<float>(low_q - 16);
    dst[i + 16] = d * static_cast<float>(high_q - 16);
  }
}

// Q5_1: d f16, m f16, 32 fifth bits, nibbles. x = d * q + m
void Q5_1(float *dst, const uint8_t *src) {
  const float d = ReadHalf(src);
  const float m = ReadHalf(src + 2);
  const uint32_t high = ReadU32(src + 4);
  for (int i = 0; i < 16; ++i) {
    const int low_q = (src[8 + i] & 15) | static_cast<int>(high >> i & 1) << 4;
    const int high_q = (src[8 + i] >> 4) | static_cast<int>(high >> (i + 16) & 1) << 4;
    dst[i] = d * static_cast<float>(low_q) + m;
    dst[i + 16] = d * static_cast<float>(high_q) + m;
  }
}

// Q8_0: d f16, 32 signed bytes. x = d * q
void Q8_0(float *dst, const uint8_t *src) {
  const float d = ReadHalf(src);
  for (int i = 0; i < 32; ++i) dst[i] = d * static_cast<float>(static_cast<int8_t>(src[2 + i]));
}

// Twelve bytes hold eight 6-bit scales and eight 6-bit minima: the first four of each in the low six bits of bytes
// 0-3 and 4-7, the others' low nibbles in bytes 8-11 and their top two bits above the first four.
void SixBitPair(const uint8_t *packed, int index, int *scale, int *min) {
  if (index < 4) {
    *scale = packed[index] & 63;
    *min = packed[index + 4] & 63;
  } else {
    *scale = (packed[index + 4] & 15) | packed[index - 4] >> 6 << 4;
    *min = packed[index + 4] >> 4 | packed[index] >> 6 << 4;
  }
}

// Q4_K: d f16, dmin f16, 12 bytes of scales, 128 bytes of nibbles: each 32 bytes hold 64 elements, low nibbles first.
// x = d * scale * q - dmin * min, one (scale, min) for 32 elements
void Q4_K(float *dst, const uint8_t *src) {
  const float d = ReadHalf(src);
  const float dmin = ReadHalf(src + 2);
  const uint8_t *quants = src + 16;
  for (int part = 0; part < 8; ++part) {
    int scale, min;
    SixBitPair(src + 4, part, &scale, &min);
    const float step = d * static_cast<float>(scale);
    const float offset = dmin * static_cast<float>(min);
    for (int i = 0; i < 32; ++i) {
      const uint8_t byte = quants[part / 2 * 32 + i];
      dst[part * 32 + i] = step * static_cast<float>(part % 2 == 0 ? byte & 15 : byte >> 4) - offset;
    }
  }
}

// Q5_K: as Q4_K with 32 bytes of fifth bits before the nibbles: bit `part` of byte i for element part * 32 + i.
void Q5_K(float *dst, const uint8_t *src) {
  const float d = ReadHalf(src);
  const float dmin = ReadHalf(src + 2);
  const uint8_t *high = src + 16;
  const uint8_t *quants = src + 48;
  for (int part = 0; part < 8; ++part) {
    int scale, min;
    SixBitPair(src + 4, part, &scale, &min);
    const float step = d * static_cast<float>(scale);
    const float offset = dmin * static_cast<float>(min);
    for (int i = 0; i < 32; ++i) {
      const uint8_t byte = quants[part / 2 * 32 + i];
      const int q = (part % 2 == 0 ? byte & 15 : byte >> 4) | (high[i] >> part & 1) << 4;
      dst[part * 32 + i] = step * static_cast<float>(q) - offset;
    }
  }
}

// Q6_K: 128 bytes of low nibbles, 64 bytes of high pairs, 16 signed scales, d f16. Each half of 128 elements uses 64
// low bytes and 32 high bytes: quarter j (32 elements) takes nibble j / 2 of low byte (j % 2) * 32 + i and bits
// 2j, 2j + 1 of high byte i. x = d * scale * (q - 32), one scale for 16 elements
void Q6_K(float *dst, const uint8_t *src) {
  const float d = ReadHalf(src + 208);
  for (int half = 0; half < 2; ++half) {
    const uint8_t *low = src + half * 64;
    const uint8_t *high = src + 128 + half * 32;
    const uint8_t *scales = src + 192 + half * 8;
    for (int j = 0; j < 4; ++j) {
      for (int i = 0; i < 32; ++i) {
        const int nibble = low[j % 2 * 32 + i] >> (j / 2 * 4) & 15;
        const int q = nibble | (high[i] >> (2 * j) & 3) << 4;
        const auto scale = static_cast<int8_t>(scales[j * 2 + i / 16]);
        dst[half * 128 + j * 32 + i] = d * static_cast<float>(scale) * static_cast<float>(q - 32);
      }
    }
  }
}

struct Format {
  const char *name;
  int64_t elems;
  int64_t bytes;
  void (*block)(float *dst, const uint8_t *src);  // null: plain floats
};

// Indexed by ElementType.
constexpr Format kFormats[] = {
    {"F32", 1, 4, nullptr},           {"F16", 1, 2, nullptr},           {"BF16", 1, 2, nullptr},
    {"F64", 1, 8, nullptr},           {"Q4_0", kSmallBlock, 18, Q4_0},  {"Q4_1", kSmallBlock, 20, Q4_1},
    {"Q5_0", kSmallBlock, 22, Q5_0},  {"Q5_1", kSmallBlock, 24, Q5_1},  {"Q8_0", kSmallBlock, 34, Q8_0},
    {"Q4_K", kSuperBlock, 144, Q4_K}, {"Q5_K", kSuperBlock, 176, Q5_K}, {"Q6_K", kSuperBlock, 210, Q6_K},
};

const Format &FormatOf(ElementType type) { return kFormats[static_cast<int>(type)]; }

}  // namespace

const char *ElementTypeName(ElementType type) { return FormatOf(type).name; }
int64_t BlockElems(ElementType type) { return FormatOf(type).elems; }
int64_t BlockBytes(ElementType type) { return FormatOf(type).bytes; }

float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = half >> 10 & 31;
  const uint32_t mantissa = half & 0x3ff;
  if (exponent == 31) return BitsToFloat(sign | 0x7f800000 | mantissa << 13);
  if (exponent != 0) return BitsToFloat(sign | (exponent + 112) << 23 | mantissa << 13);
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // subnormal half, exact in float
  return sign != 0 ? -magnitude : magnitude;
}

float Bfloat16ToFloat(uint16_t bfloat16) { return BitsToFloat(static_cast<uint32_t>(bfloat16) << 16); }

void Dequantize(float *dst, const uint8_t *src, int64_t count, ElementType type) {
  switch (type) {
    case ElementType::kF32:
      for (int64_t i = 0; i < count; ++i) dst[i] = BitsToFloat(ReadU32(src + i * 4));
      return;
    case ElementType::kF16:
      for (int64_t i = 0; i < count; ++i) dst[i] = ReadHalf(src + i * 2);
      return;
    case ElementType::kBF16:
      for (int64_t i = 0; i < count; ++i) dst[i] = Bfloat16ToFloat(ReadU16(src + i * 2));
      return;
    case ElementType::kF64:
      for (int64_t i = 0; i < count; ++i) {
        const uint64_t bits = ReadU32(src + i * 8) | static_cast<uint64_t>(ReadU32(src + i * 8 + 4)) << 32;
        double value;
        std::memcpy(&value, &bits, sizeof value);
        dst[i] = static_cast<float>(value);
      }
      return;
    default:
      break;
  }
  const Format &format = FormatOf(type);
  for (int64_t i = 0; i < count / format.elems; ++i) format.block(dst + i * format.elems, src + i * format.bytes);
}

}  // namespace acorn::compiler
