// Mixed widths: what is measured, and what is chosen under a budget.
#include <gtest/gtest.h>

#include <cmath>

#include "base/parallel.h"
#include "base/progress.h"
#include "quantize/file_size.h"
#include "quantize/mixed.h"
#include "tests/support/shared_data.h"

namespace acorn::compiler {
namespace {

[[maybe_unused]] const bool kSilent = (Progress::Silence(), true);

/// Two layers of SmolLM2's geometry.
ModelConfig Config() {
  ModelConfig config;
  config.family = "llama";
  config.hidden = 576;
  config.layers = 2;
  config.ffn = 1536;
  config.heads = 9;
  config.kv_heads = 3;
  config.head_dim = 64;
  config.rotary_dims = 64;
  config.vocab = 1000;
  config.max_context = 64;
  config.tied_head = true;
  return config;
}

/// Every part at its plain format, with a loss of its own.
Sensitivities Even(WeightFormat format, double loss) {
  Sensitivities all;
  for (int64_t layer = 0; layer < 2; ++layer) {
    for (int part = 0; part < static_cast<int>(Part::kHead); ++part) {
      all.parts.push_back({layer, static_cast<Part>(part), format, loss});
      all.together += loss;
    }
  }
  return all;
}

Sensitivity &Find(Sensitivities *all, int64_t layer, Part part) {
  for (Sensitivity &s : all->parts) {
    if (s.layer == layer && s.part == part) return s;
  }
  ADD_FAILURE() << PartName(part);
  return all->parts.front();
}

uint64_t Bytes(const RecipeOptions &options) { return FileBytes(Config(), FfnShapeOf(Config(), options), options, 0); }

TEST(Mixed, TakesWhatGainsMostForEachByteFirst) {
  const RecipeOptions plain;
  Sensitivities all = Even(WeightFormat::kW4G32, 1e-5);
  Find(&all, 1, Part::kDown).loss = 1e-2;
  Find(&all, 0, Part::kFfnIn).loss = 9e-3;
  all.together = 12e-5 + 1.9e-2;
  // Room for a down of 8 bits and little else.
  const uint64_t down = WeightBytes(WeightFormat::kW8, {}, 576, 1536) - WeightBytes(WeightFormat::kW4G32, {}, 576, 1536);
  const uint64_t budget = Bytes(plain) + down + 20000;
  const MixedChoice choice = ChooseMixed(Config(), plain, all, {budget, 0}, 0);
  ASSERT_EQ(choice.options.layers.size(), 2u);
  const LayerFormats &first = choice.options.layers[0], &second = choice.options.layers[1];
  EXPECT_EQ(second.down, WeightFormat::kW8);
  EXPECT_EQ(first.down, WeightFormat::kW4G32);
  EXPECT_EQ(first.inputs.ffn_in, EdgeType::kS15);
  EXPECT_EQ(second.inputs.ffn_in, EdgeType::kS8);
  EXPECT_EQ(choice.raised_weights, 1);
  EXPECT_EQ(choice.raised_inputs, 1);
  EXPECT_LE(Bytes(choice.options), budget);
  EXPECT_EQ(choice.file_bytes, Bytes(choice.options));
  EXPECT_NEAR(choice.plain_loss, all.together, 1e-9);
  EXPECT_NEAR(choice.loss, 12e-5, 1e-9);
}

TEST(Mixed, EveryBudgetIsKept) {
  for (const WeightFormat format : {WeightFormat::kW4, WeightFormat::kW4G128, WeightFormat::kW4G32}) {
    RecipeOptions plain;
    plain.body_format = format;
    Sensitivities all = Even(format, 1e-4);
    for (size_t i = 0; i < all.parts.size(); ++i) all.parts[i].loss *= 1 + static_cast<double>(i * 7 % 5);
    double loss = 0;
    for (uint64_t extra = 0; extra < 4'000'000; extra += 150'000) {
      const MixedChoice choice = ChooseMixed(Config(), plain, all, {Bytes(plain) + extra, 0}, 0);
      EXPECT_LE(choice.file_bytes, Bytes(plain) + extra);
      EXPECT_LE(choice.loss, choice.plain_loss);
      loss = choice.loss;
    }
    EXPECT_LT(loss, 0.3 * ChooseMixed(Config(), plain, all, {Bytes(plain), 0}, 0).loss);
  }
}

TEST(Mixed, SmallerGroupsStandBetween) {
  RecipeOptions plain;
  plain.body_format = WeightFormat::kW4;
  Sensitivities all = Even(WeightFormat::kW4, 0);
  // Nearly all of the loss goes with groups, for a sixteenth of the bytes of 8 bits.
  Find(&all, 0, Part::kGateUp).loss = 1e-2;
  Sensitivities with_groups = all;
  for (auto it = with_groups.parts.begin(); it != with_groups.parts.end(); ++it) {
    if (it->layer == 0 && it->part == Part::kGateUp) {
      with_groups.parts.insert(it + 1, {0, Part::kGateUp, WeightFormat::kW4G32, 1e-3});
      break;
    }
  }
  const MixedChoice little = ChooseMixed(Config(), plain, with_groups, {Bytes(plain) + 200'000, 0}, 0);
  EXPECT_EQ(little.options.layers[0].gate_up, WeightFormat::kW4G32);
  const MixedChoice much = ChooseMixed(Config(), plain, with_groups, {Bytes(plain) + 2'000'000, 0}, 0);
  EXPECT_EQ(much.options.layers[0].gate_up, WeightFormat::kW8);
  EXPECT_EQ(much.options.layers[0].qkv, WeightFormat::kW4) << "nothing to gain";
}

TEST(Mixed, AHeadOfFourBitsIsOneOfTheParts) {
  RecipeOptions plain;
  plain.head_format = WeightFormat::kW4G32;
  Sensitivities all = Even(WeightFormat::kW4G32, 1e-6);
  all.parts.push_back({2, Part::kHead, WeightFormat::kW4G32, 1e-1});
  const MixedChoice choice = ChooseMixed(Config(), plain, all, {Bytes(plain) + 300'000, 0}, 0);
  EXPECT_EQ(choice.options.head_format, WeightFormat::kW8);
}

TEST(Mixed, ALossIsReachedWithFewBytes) {
  const RecipeOptions plain;
  const Sensitivities all = Even(WeightFormat::kW4G32, 1e-3);
  const MixedChoice loose = ChooseMixed(Config(), plain, all, {0, 0.5}, 0);
  EXPECT_EQ(loose.raised_weights + loose.raised_inputs, 0);
  const MixedChoice some = ChooseMixed(Config(), plain, all, {0, 0.005}, 0);
  // The loss of 8-bit weights is that of the six inputs. Inputs may be raised too, and here they are the cheaper ones.
  EXPECT_LE(some.loss - 6e-3, std::log1p(0.005));
  EXPECT_GT(some.raised_weights + some.raised_inputs, 0);
  const MixedChoice none_left = ChooseMixed(Config(), plain, all, {0, 0}, 0);
  EXPECT_LE(none_left.loss, 6e-3 * (1 + 1e-9));
  EXPECT_GT(none_left.raised_weights, 0);
  EXPECT_LT(some.file_bytes, none_left.file_bytes);
}

CalibrationWindows Windows(const ModelConfig &config, int count) {
  CalibrationWindows windows;
  windows.window = 64;
  uint32_t state = 1;
  for (int i = 0; i < count * 64; ++i) {
    state = state * 1664525u + 1013904223u;
    windows.ids.push_back(static_cast<int32_t>((state >> 8) % static_cast<uint32_t>(config.vocab)));
  }
  return windows;
}

TEST(Sensitivity, OfEveryPartAndTheSameOnAnyThreads) {
  const auto source = OpenSourceModel(test::DataPath("small_llama"));
  for (const int count : {1, 12}) {
    const CalibrationWindows windows = Windows(source->config(), count);
    RecipeOptions options;
    options.head_format = WeightFormat::kW4G32;
    SetThreadCount(1);
    const Sensitivities one = MeasureSensitivities(*source, windows, options);
    SetThreadCount(3);
    const Sensitivities three = MeasureSensitivities(*source, windows, options);
    SetThreadCount(0);
    ASSERT_EQ(one.parts.size(), 2u * 7 + 1);
    ASSERT_EQ(three.parts.size(), one.parts.size());
    double sum = 0;
    for (size_t i = 0; i < one.parts.size(); ++i) {
      EXPECT_EQ(one.parts[i].loss, three.parts[i].loss) << PartName(one.parts[i].part);
      EXPECT_GT(one.parts[i].loss, 0) << PartName(one.parts[i].part);
      if (one.parts[i].part != Part::kHead) sum += one.parts[i].loss;
    }
    EXPECT_EQ(one.together, three.together);
    // They add up, on this model's random weights within a half.
    EXPECT_GT(one.together, 0.5 * sum);
    EXPECT_LT(one.together, 1.5 * sum);
  }
}

TEST(Sensitivity, CoarseFormatsAreMeasuredInGroupsToo) {
  const auto source = OpenSourceModel(test::DataPath("small_llama"));
  RecipeOptions options;
  options.recipe = Recipe::kRtn;
  options.body_format = WeightFormat::kW4;
  options.down_input = DownInput::kS15;
  const Sensitivities all = MeasureSensitivities(*source, Windows(source->config(), 6), options);
  ASSERT_EQ(all.parts.size(), 2u * (4 * 2 + 2));  // down's input has its 15 bits
  for (size_t i = 0; i + 1 < all.parts.size(); ++i) {
    const Sensitivity &a = all.parts[i], &b = all.parts[i + 1];
    if (a.format == WeightFormat::kW4 && a.part == b.part) {
      EXPECT_LT(b.loss, a.loss) << PartName(a.part);
    }
  }
}

}  // namespace
}  // namespace acorn::compiler
