#include "import/dequantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "tests/support/shared_data.h"
#include "tests/support/temp_folder.h"

namespace acorn::compiler {
namespace {

struct Golden {
  const char *file;
  ElementType type;
};

class DequantizeGolden : public testing::TestWithParam<Golden> {};

// Values made by an independent implementation (tests/golden/make_dequantize.py); equal bit for bit.
TEST_P(DequantizeGolden, EqualsReference) {
  const std::string data = test::ReadFile(test::DataPath(std::string("dequantize/") + GetParam().file));
  ASSERT_GT(data.size(), 8u);
  uint32_t elems, block_bytes;
  std::memcpy(&elems, data.data(), 4);
  std::memcpy(&block_bytes, data.data() + 4, 4);
  ASSERT_EQ(data.size(), 8 + block_bytes + elems * 4);
  const ElementType type = GetParam().type;
  ASSERT_EQ(block_bytes, elems / BlockElems(type) * BlockBytes(type));
  std::vector<float> got(elems);
  Dequantize(got.data(), reinterpret_cast<const uint8_t *>(data.data()) + 8, elems, type);
  for (uint32_t i = 0; i < elems; ++i) {
    float want;
    std::memcpy(&want, data.data() + 8 + block_bytes + i * 4, 4);
    ASSERT_EQ(std::memcmp(&want, &got[i], 4), 0) << "element " << i << ": " << got[i] << ", reference " << want;
  }
}

INSTANTIATE_TEST_SUITE_P(AllTypes, DequantizeGolden,
                         testing::Values(Golden{"q4_0.bin", ElementType::kQ4_0}, Golden{"q4_1.bin", ElementType::kQ4_1},
                                         Golden{"q5_0.bin", ElementType::kQ5_0}, Golden{"q5_1.bin", ElementType::kQ5_1},
                                         Golden{"q8_0.bin", ElementType::kQ8_0}, Golden{"q4_k.bin", ElementType::kQ4_K},
                                         Golden{"q5_k.bin", ElementType::kQ5_K}, Golden{"q6_k.bin", ElementType::kQ6_K},
                                         Golden{"f16.bin", ElementType::kF16}, Golden{"bf16.bin", ElementType::kBF16}),
                         [](const testing::TestParamInfo<Golden> &param_info) {
                           return std::string(ElementTypeName(param_info.param.type));
                         });

TEST(Dequantize, HalfSpecialValues) {
  EXPECT_EQ(HalfToFloat(0x3c00), 1.0f);
  EXPECT_EQ(HalfToFloat(0xc000), -2.0f);
  EXPECT_EQ(HalfToFloat(0x0001), 0x1p-24f);
  EXPECT_EQ(HalfToFloat(0x03ff), 0x1.ff8p-15f);
  EXPECT_EQ(HalfToFloat(0x7bff), 65504.0f);
  EXPECT_TRUE(std::signbit(HalfToFloat(0x8000)));
  EXPECT_TRUE(std::isinf(HalfToFloat(0x7c00)));
  EXPECT_TRUE(std::isnan(HalfToFloat(0x7e00)));
}

TEST(Dequantize, PlainFloats) {
  const double wide[2] = {1.5, -3.25};
  float out[2];
  Dequantize(out, reinterpret_cast<const uint8_t *>(wide), 2, ElementType::kF64);
  EXPECT_EQ(out[0], 1.5f);
  EXPECT_EQ(out[1], -3.25f);
  const float plain[2] = {0.1f, -7e20f};
  Dequantize(out, reinterpret_cast<const uint8_t *>(plain), 2, ElementType::kF32);
  EXPECT_EQ(std::memcmp(out, plain, sizeof plain), 0);
}

}  // namespace
}  // namespace acorn::compiler
