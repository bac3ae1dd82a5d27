// The sampler: exact vectors computed from docs/ARITHMETIC.md §12 with unbounded integers, weights against the real
// exponential, and whole draws against a plain reference that sorts everything.
#include "text/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "tests/support/wide.h"

namespace acorn::test {
namespace {

constexpr Scale kOne = {1 << 20, 20};  // logits are Q16 natural units already

class Sampler {
 public:
  Sampler(std::vector<int32_t> logits, Scale scale) : logits_(std::move(logits)), scale_(scale) {}

  int32_t Draw(const SamplerParams &params, uint64_t position, const std::vector<int32_t> &recent = {}) const {
    std::vector<uint64_t> work(SamplerWorkBytes(params, static_cast<uint32_t>(logits_.size())) / 8);
    int32_t token = -1;
    EXPECT_EQ(Sample(&token, Span<const int32_t>(logits_.data(), logits_.size()), scale_,
                     Span<const int32_t>(recent.data(), recent.size()), params, position,
                     Span<uint8_t>(reinterpret_cast<uint8_t *>(work.data()), work.size() * 8)),
              Status::kOk);
    return token;
  }

 private:
  std::vector<int32_t> logits_;
  Scale scale_;
};

// Known answers of the Random123 library (kat_vectors, philox4x32 10).
TEST(Philox, KnownAnswers) {
  const auto expect = [](const PhiloxBlock &counter, uint32_t low, uint32_t high, std::vector<uint32_t> words) {
    const PhiloxBlock block = Philox4x32(counter, low, high);
    EXPECT_EQ(std::vector<uint32_t>(block.word, block.word + 4), words);
  };
  expect({{0, 0, 0, 0}}, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  expect({{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}}, 0xffffffff, 0xffffffff,
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  expect({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0xa4093822, 0x299f31d0,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST(Weights, ExactVectors) {
  const std::vector<std::pair<uint64_t, uint32_t>> powers = {
      {0, 2147483648},        {1, 2147483626},    {1048576, 2124350982}, {1048575, 2124351003}, {67108864, 1073741824},
      {12345678, 1890387779}, {987654321, 79728}, {2147483647, 1},       {2147483648, 0},       {2080374789, 1}};
  for (const auto &[t, expected] : powers) EXPECT_EQ(Exp2NegQ31(t), expected) << t;
  struct Vector {
    uint64_t delta;
    uint32_t temperature, weight;
  };
  const std::vector<Vector> weights = {{0, 65536, 2147483648},    {1, 65536, 2147450887},     {65536, 65536, 790015087},
                                       {65536, 52429, 615267300}, {700000, 131072, 10293122}, {1453635, 65536, 0},
                                       {1453700, 65536, 0},       {4294967294, 6553600, 0},   {5, 1, 14469631}};
  for (const Vector &vector : weights) {
    EXPECT_EQ(SampleWeightQ31(vector.delta, vector.temperature), vector.weight) << vector.delta << ' ' << vector.temperature;
  }
}

// Tolerances: docs/ARITHMETIC.md §12.2.
TEST(Weights, CloseToTheExponential) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 200000; ++i) {
    const uint64_t t = random() >> (33 + random() % 20);
    const long double exact = std::ldexp(std::exp2(-static_cast<long double>(t) / (1 << 26)), 31);
    ASSERT_LE(std::fabs(Exp2NegQ31(t) - exact), 0.5L + std::ldexp(exact, -29)) << t;
    const uint32_t temperature = 655 + static_cast<uint32_t>(random() % (20u << 16));
    const uint64_t delta = random() % (22u * temperature);
    const long double weight = std::ldexp(std::exp(-static_cast<long double>(delta) / temperature), 31);
    ASSERT_LE(std::fabs(SampleWeightQ31(delta, temperature) - weight), 0.5L + std::ldexp(weight, -27))
        << delta << ' ' << temperature;
  }
}

TEST(Weights, NeverGrowWithTheDistance) {
  uint32_t last = Exp2NegQ31(0);
  for (uint64_t t = 0; t < (uint64_t{1} << 27); t += 61) {
    const uint32_t weight = Exp2NegQ31(t);
    ASSERT_LE(weight, last) << t;
    last = weight;
  }
}

std::vector<int32_t> ScatteredLogits() {
  std::vector<int32_t> logits;
  for (uint32_t i = 0; i < 200; ++i) logits.push_back(static_cast<int32_t>(i * 2654435761u) >> 8);
  return logits;
}

TEST(Draws, ExactVectors) {
  const Sampler sampler(ScatteredLogits(), {1 << 20, 21});
  const std::vector<int32_t> recent = {0, 5, 13, 100, 13, -1, 500, 144, 89, 34, 178, 55};
  const std::vector<uint64_t> positions = {0, 1, 2, 3, 4, 5, 6, 7, uint64_t{1} << 32, (uint64_t{1} << 40) + 1};
  struct Case {
    SamplerParams params;
    std::vector<int32_t> tokens;
  };
  const std::vector<Case> cases = {
      {{1, 65536, 0, 65536, 0, 65536}, {182, 182, 127, 72, 127, 72, 72, 72, 72, 38}},
      {{(uint64_t{1} << 63) + 5, 200000, 0, 65536, 0, 65536}, {72, 4, 127, 72, 127, 4, 38, 127, 127, 38}},
      {{3, 3 * 65536, 7, 65536, 0, 65536}, {72, 38, 93, 72, 38, 72, 127, 72, 93, 72}},
      {{4, 3 * 65536, 0, 30000, 0, 65536}, {127, 127, 38, 72, 72, 127, 72, 72, 72, 72}},
      {{5, 3 * 65536, 0, 65536, 20000, 65536}, {72, 72, 182, 182, 72, 127, 182, 38, 72, 4}},
      {{6, 4 * 65536, 40, 60000, 3000, 80000}, {182, 127, 72, 38, 127, 38, 38, 38, 127, 4}},
      {{7, 0, 0, 65536, 0, 90000}, {72, 72, 72, 72, 72, 72, 72, 72, 72, 72}},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    for (size_t j = 0; j < positions.size(); ++j) {
      EXPECT_EQ(sampler.Draw(cases[i].params, positions[j], recent), cases[i].tokens[j]) << "case " << i << ", draw " << j;
    }
  }
}

// The page's §3 and §4 with a full sort and wide products.
int32_t DrawPlainly(const std::vector<int32_t> &values, const SamplerParams &params, uint64_t position) {
  std::vector<int32_t> order(values.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  const auto value = [&](int32_t id) { return int64_t{values[static_cast<size_t>(id)]}; };
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return value(a) > value(b); });
  if (params.temperature_q16 == 0) return order[0];
  const auto weight = [&](int32_t id) -> test::Wide {
    return SampleWeightQ31(static_cast<uint64_t>(value(order[0]) - value(id)), params.temperature_q16);
  };
  std::vector<int32_t> kept;
  for (const int32_t id : order) {
    if (weight(id) != 0) kept.push_back(id);
  }
  const auto total = [&] {
    test::Wide sum = 0;
    for (const int32_t id : kept) sum += weight(id);
    return sum;
  };
  if (params.top_k != 0 && kept.size() > params.top_k) kept.resize(params.top_k);
  if (params.top_p_q16 < 65536) {
    const test::Wide need = total() * params.top_p_q16 / 65536;
    test::Wide sum = 0;
    size_t count = 0;
    while (sum < need) sum += weight(kept[count++]);
    kept.resize(count);
  }
  while (weight(kept.back()) < uint64_t{params.min_p_q16} << 15) kept.pop_back();
  const PhiloxBlock block = Philox4x32({{static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0, 0}},
                                       static_cast<uint32_t>(params.seed), static_cast<uint32_t>(params.seed >> 32));
  const uint64_t random = uint64_t{block.word[1]} << 32 | block.word[0];
  const test::Wide target = (test::Wide{random} * total()) >> 64;
  test::Wide sum = 0;
  for (const int32_t id : kept) {
    sum += weight(id);
    if (target < sum) return id;
  }
  return -1;
}

TEST(Draws, AgreeWithTheSortedReference) {
  std::mt19937_64 random(2);
  for (int i = 0; i < 3000; ++i) {
    std::vector<int32_t> logits(1 + random() % 300);
    const int64_t spread = int64_t{1} << (random() % 22);
    for (int32_t &logit : logits) logit = static_cast<int32_t>(static_cast<int64_t>(random() % (2 * spread)) - spread);
    SamplerParams params;
    params.seed = random();
    params.temperature_q16 = static_cast<uint32_t>(random() % (3u << 16));
    if (random() % 2 == 0) params.top_k = static_cast<uint32_t>(random() % 50);
    if (random() % 2 == 0) params.top_p_q16 = 1 + static_cast<uint32_t>(random() % 65536);
    if (random() % 2 == 0) params.min_p_q16 = static_cast<uint32_t>(random() % 65537);
    const uint64_t position = random() >> (random() % 64);
    EXPECT_EQ(Sampler(logits, kOne).Draw(params, position), DrawPlainly(logits, params, position)) << "case " << i;
  }
}

// Chi-square of 60,000 draws over 12 tokens: 11 degrees of freedom, 31.3 is exceeded once in a thousand seeds.
TEST(Draws, FollowTheDistribution) {
  std::vector<int32_t> logits;
  std::vector<double> probability;
  double sum = 0;
  for (int i = 0; i < 12; ++i) {
    logits.push_back((i * 7 % 12) * 16384);
    probability.push_back(std::exp(logits.back() / 65536.0 / 0.8));
    sum += probability.back();
  }
  const Sampler sampler(logits, kOne);
  SamplerParams params;
  params.seed = 11;
  params.temperature_q16 = 52429;  // 0.8
  constexpr int kDraws = 60000;
  std::vector<int> counts(12);
  for (int i = 0; i < kDraws; ++i) ++counts[static_cast<size_t>(sampler.Draw(params, static_cast<uint64_t>(i)))];
  double chi_square = 0;
  for (size_t i = 0; i < 12; ++i) {
    const double expected = kDraws * probability[i] / sum;
    chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  EXPECT_LT(chi_square, 31.3);
}

TEST(ArgMax, IsTheFirstOfTheLargest) {
  std::mt19937 random(7);
  for (const size_t size : {1, 2, 63, 64, 65, 127, 128, 129, 1000}) {
    for (const int32_t values : {1, 2, 40, 1 << 30}) {
      std::vector<int32_t> logits(size);
      for (int32_t &logit : logits) logit = static_cast<int32_t>(random() % static_cast<uint32_t>(values)) - values / 2;
      logits[random() % size] = INT32_MIN;
      const auto first = std::max_element(logits.begin(), logits.end()) - logits.begin();
      ASSERT_EQ(ArgMax(Span<const int32_t>(logits.data(), size)), first) << "size " << size << " values " << values;
    }
  }
}

TEST(Draws, TiesGoToTheLowerId) {
  const Sampler sampler({3, 9, 9, 9}, kOne);
  EXPECT_EQ(sampler.Draw({}, 0), 1);
  SamplerParams params;
  params.temperature_q16 = 65536;
  params.top_k = 1;
  for (uint64_t position = 0; position < 50; ++position) EXPECT_EQ(sampler.Draw(params, position), 1);
}

TEST(Draws, ThePenaltyMovesBothSignsDown) {
  SamplerParams params;
  params.repetition_penalty_q16 = 2 * 65536;
  EXPECT_EQ(Sampler({100, 90, -500}, kOne).Draw(params, 0, {0, 0, 0}), 1);  // once for each id: 50, not 12
  EXPECT_EQ(Sampler({100, 49, -500}, kOne).Draw(params, 0, {0, 0, 0}), 0);
  EXPECT_EQ(Sampler({-100, -150, -500}, kOne).Draw(params, 0, {0}), 1);
}

TEST(Arguments, OutOfRangeIsRefused) {
  const std::vector<int32_t> logits = {1, 2, 3};
  const Span<const int32_t> view(logits.data(), logits.size());
  alignas(8) uint8_t work[32];
  int32_t token = 0;
  const auto sample = [&](const SamplerParams &params, Scale scale, Span<uint8_t> buffer) {
    return Sample(&token, view, scale, {}, params, 0, buffer);
  };
  SamplerParams warm;
  warm.temperature_q16 = 65536;
  EXPECT_EQ(SamplerWorkBytes(warm, 3), 24u);
  EXPECT_EQ(SamplerWorkBytes({}, 3), 0u);
  EXPECT_EQ(sample(warm, kOne, {work, 24}), Status::kOk);
  EXPECT_EQ(sample(warm, kOne, {work, 23}), Status::kMemory);
  EXPECT_EQ(sample(warm, kOne, {work + 1, 24}), Status::kMemory);
  EXPECT_EQ(sample({}, kOne, {}), Status::kOk);
  EXPECT_EQ(sample({}, {0, 20}, {}), Status::kArgument);
  EXPECT_EQ(sample({}, {1, 63}, {}), Status::kArgument);
  EXPECT_EQ(Sample(&token, {}, kOne, {}, {}, 0, {}), Status::kArgument);
  const auto refused = [&](auto change) {
    SamplerParams params = warm;
    change(&params);
    EXPECT_EQ(CheckSamplerParams(params), Status::kArgument);
    EXPECT_EQ(sample(params, kOne, {work, 24}), Status::kArgument);
  };
  refused([](SamplerParams *p) { p->temperature_q16 = (100u << 16) + 1; });
  refused([](SamplerParams *p) { p->top_p_q16 = 0; });
  refused([](SamplerParams *p) { p->top_p_q16 = 65537; });
  refused([](SamplerParams *p) { p->min_p_q16 = 65537; });
  refused([](SamplerParams *p) { p->repetition_penalty_q16 = 654; });
  refused([](SamplerParams *p) { p->repetition_penalty_q16 = (100u << 16) + 1; });
}

}  // namespace
}  // namespace acorn::test
