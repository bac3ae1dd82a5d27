// The reference against real arithmetic, so that a slip in docs/ARITHMETIC.md shows; and the builder's models, so that the
// whole-model tests have something in their values.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <vector>

#include "tests/reference/reference_model.h"
#include "tests/support/model_builder.h"

namespace acorn::reference {
namespace {

std::vector<int32_t> SomeTokens(uint32_t vocab_size, size_t count) {
  test::Random random(7);
  std::vector<int32_t> tokens(count);
  for (int32_t &token : tokens) token = static_cast<int32_t>(random.Between(0, vocab_size - 1));
  return tokens;
}

ReferenceModel Load(const test::ModelSpec &spec) {
  const test::AlignedBytes file = test::BuildModel(spec);
  return ReferenceModel(std::vector<uint8_t>(file.data(), file.data() + file.size()));
}

TEST(ReferencePrimitives, RoundingIsHalfUp) {
  EXPECT_EQ(RoundShift(3, 1), 2);
  EXPECT_EQ(RoundShift(-3, 1), -1);
  EXPECT_EQ(RoundShift(-1, 1), 0);
  EXPECT_EQ(RoundShift(5, 3), 1);
  EXPECT_EQ(RoundShift(-5, 3), -1);
  EXPECT_EQ(Saturate(-128, Range::kS8), -127);
  EXPECT_EQ(Saturate(40000, Range::kS15), 16319);
  EXPECT_EQ(Saturate(-40000, Range::kS15), -16320);
  EXPECT_EQ(Bits(0), 0);
  EXPECT_EQ(Bits(255), 8);
}

TEST(ReferenceRope, SineIsWithinOneUnit) {
  for (uint64_t phase = 0; phase < (uint64_t{1} << 32); phase += 1234567) {
    const double exact = 16384 * std::sin(std::ldexp(static_cast<double>(phase), -32) * 6.283185307179586);
    ASSERT_NEAR(Sine(static_cast<uint32_t>(phase)), exact, 0.75) << phase;
  }
  EXPECT_EQ(Sine(0), 0);
  EXPECT_EQ(Sine(uint32_t{1} << 30), 16384);
  EXPECT_EQ(Sine(uint32_t{3} << 30), -16384);
}

TEST(ReferenceAttention, ExponentialIsWithinSixUnits) {
  for (int64_t t = 0; t < 18 * 32768; t += 37) {
    ASSERT_NEAR(Exp2(t), 65535 * std::exp2(static_cast<double>(-t) / 32768), 6) << t;
  }
  EXPECT_EQ(Exp2(0), 65535u);
  EXPECT_EQ(Exp2(17 * 32768), 0u);
}

TEST(ReferenceAttention, AgreesWithSoftmax) {
  constexpr uint32_t kDim = 8;
  constexpr uint64_t kKeys = 50;
  test::Random random(3);
  std::vector<int32_t> q(kDim), y(kDim);
  std::vector<int8_t> k(kDim * kKeys), v(kDim * kKeys);
  for (int32_t &value : q) value = static_cast<int32_t>(random.Between(-127, 127));
  for (int8_t &value : k) value = static_cast<int8_t>(random.Between(-127, 127));
  for (int8_t &value : v) value = static_cast<int8_t>(random.Between(-127, 127));
  // exponent: octaves in Q15 for a score; result: 1.5.
  const AttentionHead head{{int64_t{3} << 20, 20}, {int64_t{3} << 29, 30}, 4, kDim, kDim, kDim};
  Attend(head, {{q.data(), 0, kKeys}}, k.data(), v.data(), y.data());
  std::vector<double> weights(kKeys);
  double den = 0, largest = -1e30;
  for (int pass = 0; pass < 2; ++pass) {
    for (uint64_t j = 0; j < kKeys; ++j) {
      double score = 0;
      for (uint32_t d = 0; d < kDim; ++d) score += q[d] * k[j * kDim + d];
      if (pass == 0) largest = std::max(largest, score);
      if (pass == 1) den += weights[j] = std::exp2((score - largest) * 3 / 32768);
    }
  }
  for (uint32_t d = 0; d < kDim; ++d) {
    double value = 0;
    for (uint64_t j = 0; j < kKeys; ++j) value += weights[j] / den * v[j * kDim + d];
    EXPECT_NEAR(y[d], std::clamp(1.5 * value + 4, -127.0, 127.0), 0.6) << d;  // half a unit of rounding, and the table
  }
}

TEST(ReferenceRmsNorm, AgreesWithSquareRoot) {
  for (const double spread : {1.0, 50.0, 3000.0, 30000.0}) {
    test::Random random(5);
    std::vector<int32_t> x(96), y(96);
    for (int32_t &value : x) value = static_cast<int32_t>(std::lround(random.Real(-spread, spread)));
    RmsNormSpec spec{std::vector<int16_t>(96), 17, {(int64_t{5} << 28) + 12345, 30}, 0, Range::kS16};
    for (int16_t &g : spec.gamma) g = static_cast<int16_t>(random.Between(-20000, 20000));
    RmsNorm(spec, x.data(), y.data());
    double sum = 17;
    for (const int32_t value : x) sum += double(value) * value;
    for (size_t i = 0; i < x.size(); ++i) {
      const double exact = double(x[i]) * spec.gamma[i] / std::sqrt(sum) * std::ldexp(double(spec.factor.multiplier), -30);
      const double clamped = std::clamp(exact, -32767.0, 32767.0);
      ASSERT_NEAR(y[i], clamped, 0.51 + std::fabs(clamped) * 4e-7) << spread << " at " << i;
    }
  }
}

TEST(ReferenceRmsNorm, ZeroesGiveTheZeroPoint) {
  const RmsNormSpec spec{std::vector<int16_t>(4, 100), 0, {int64_t{1} << 30, 30}, 9, Range::kS8};
  const std::vector<int32_t> x(4, 0);
  std::vector<int32_t> y(4, -1);
  RmsNorm(spec, x.data(), y.data());
  EXPECT_EQ(y, std::vector<int32_t>(4, 9));
}

TEST(ReferenceLayerNorm, AgreesWithMeanAndVariance) {
  for (const double spread : {1.0, 50.0, 3000.0, 30000.0}) {
    test::Random random(5);
    std::vector<int32_t> x(96), y(96);
    for (int32_t &value : x) value = static_cast<int32_t>(std::lround(random.Real(-spread, spread / 3)));
    LayerNormSpec spec{std::vector<int16_t>(96), std::vector<int32_t>(96), 96 * 96 * 17, 22, 0, Range::kS16};
    for (int16_t &g : spec.gamma) g = static_cast<int16_t>(random.Between(-20000, 20000));
    for (int32_t &b : spec.bias) b = static_cast<int32_t>(random.Between(-1000000, 1000000));
    LayerNorm(spec, x.data(), y.data());
    double mean = 0, variance = 17;
    for (const int32_t value : x) mean += value / 96.0;
    for (const int32_t value : x) variance += (value - mean) * (value - mean) / 96;
    for (size_t i = 0; i < x.size(); ++i) {
      const double exact = (x[i] - mean) / std::sqrt(variance) * spec.gamma[i] / 4 + spec.bias[i] / 128.0;
      const double clamped = std::clamp(exact, -32767.0, 32767.0);
      // Half a unit of the result, half a unit of z in Q20 times gamma / 4, and the root's error.
      ASSERT_NEAR(y[i], clamped, 0.51 + 5000 / 2097152.0 + std::fabs(exact) * 4e-7) << spread << " at " << i;
    }
  }
}

TEST(ReferenceLayerNorm, EqualValuesGiveTheBias) {
  const LayerNormSpec spec{std::vector<int16_t>(4, 100), {0, 1 << 10, -(1 << 10), 5 << 10}, 0, 25, 9, Range::kS8};
  const std::vector<int32_t> x(4, -77);
  std::vector<int32_t> y(4, -1);
  LayerNorm(spec, x.data(), y.data());
  EXPECT_EQ(y, (std::vector<int32_t>{9, 10, 8, 14}));
}

TEST(ReferenceHadamard, TwiceIsTheBlockTimesTheInput) {
  std::vector<int32_t> x = {5, -7, 11, 2, 0, 1, -3, 8}, once(8), twice(8);
  Hadamard(8, {int64_t{1} << 20, 20}, 0, Range::kS16, x.data(), once.data());
  EXPECT_EQ(once[0], 17);
  EXPECT_EQ(once[1], 17 - 2 * (-7 + 2 + 1 + 8));
  Hadamard(8, {int64_t{1} << 17, 20}, 0, Range::kS16, once.data(), twice.data());
  EXPECT_EQ(twice, x);
}

TEST(ReferenceGate, AgreesWithSilu) {
  std::vector<int16_t> table(514);
  for (int i = 0; i < 514; ++i) {
    table[static_cast<size_t>(i)] =
        static_cast<int16_t>(std::min(32767.0, std::round(32768 / (1 + std::exp(-(std::min(i, 512) - 256) / 16.0)))));
  }
  for (int32_t gate = -32767; gate < 32768; gate += 111) {  // 1/2048 a unit
    const double g = gate / 2048.0;
    const double exact = 2048 * g / (1 + std::exp(-g)) * 0.5;
    ASSERT_NEAR(Gate(table, {1 << 20, 20}, 18, gate, 2048 * 0.5), exact * 2048 * 128 / 262144, 4) << gate;
  }
}

TEST(ReferenceDigest, IsFnv1a) {
  EXPECT_EQ(Digest(nullptr, 0), 0xcbf29ce484222325u);
  const int32_t value = 0x64636261;  // "abcd"
  EXPECT_EQ(Digest(&value, 1), 0xfc179f83ee0724ddu);
}

class ReferenceModels : public testing::TestWithParam<test::ModelSpec> {};

// Each position's logits depend on what came before alone.
TEST_P(ReferenceModels, AreCausal) {
  const ReferenceModel model = Load(GetParam());
  const std::vector<int32_t> tokens = SomeTokens(model.vocab_size(), 12);
  const std::vector<int32_t> all = model.Logits(tokens);
  const std::vector<int32_t> first = model.Logits({tokens.begin(), tokens.begin() + 5});
  EXPECT_TRUE(std::equal(first.begin(), first.end(), all.begin()));
}

// Edges carry values: neither nothing but zeroes nor nothing but the ends of the range.
TEST_P(ReferenceModels, HaveLivelyEdges) {
  const ReferenceModel model = Load(GetParam());
  size_t steps = 0;
  model.Logits(SomeTokens(model.vocab_size(), 12), [&](const StepTrace &step) {
    ++steps;
    std::map<int32_t, size_t> counts;
    for (const int32_t value : step.data) ++counts[value];
    const size_t possible = std::min<size_t>(GetParam().kv_bits == 4 ? 10 : 40, step.data.size() / 2);  // a gate has one column
    EXPECT_GT(counts.size(), possible) << step.list << " " << step.index << " " << step.op;
    size_t ends = counts.begin()->second + counts.rbegin()->second;
    EXPECT_LT(ends, step.data.size() / 4) << step.list << " " << step.index << " " << step.op;
  });
  EXPECT_GT(steps, 10u);
}

INSTANTIATE_TEST_SUITE_P(Specs, ReferenceModels, testing::ValuesIn(test::VariedSpecs()),
                         [](const auto &spec) { return spec.param.name; });

}  // namespace
}  // namespace acorn::reference
