// Element types of source tensors and their conversion to float32: plain floats and the block formats of GGML.
// Formulas follow the documented block layouts; every block format reads little-endian bytes and needs no alignment.
#pragma once

#include <cstddef>
#include <cstdint>

namespace acorn::compiler {

enum class ElementType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kF64,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ4_K,
  kQ5_K,
  kQ6_K,
};

const char *ElementTypeName(ElementType type);
/// Elements in one block (1 for plain floats) and the bytes it takes.
int64_t BlockElems(ElementType type);
int64_t BlockBytes(ElementType type);

float HalfToFloat(uint16_t half);
float Bfloat16ToFloat(uint16_t bfloat16);

/// Writes `count` float32 values. In: `count` is a multiple of BlockElems(type); `src` holds
/// count / BlockElems(type) * BlockBytes(type) bytes at any alignment.
void Dequantize(float *dst, const uint8_t *src, int64_t count, ElementType type);

}  // namespace acorn::compiler
