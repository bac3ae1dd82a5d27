// Factors, file bytes, and a whole converted model against the float reference through the public API.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>

#include "acorn_schema/acorn_generated.h"
#include "acorn_schema/file.h"
#include "base/progress.h"
#include "graph/float_model.h"
#include "passes/rotate.h"
#include "quantize/file_size.h"
#include "quantize/recipe.h"
#include "tests/compiler/expect_error.h"
#include "tests/support/model_session.h"
#include "tests/support/shared_data.h"
#include "tests/support/temp_folder.h"
#include "write/device_limits.h"
#include "write/factor.h"
#include "write/file_writer.h"
#include "write/model_writer.h"

namespace acorn::compiler {
namespace {

TEST(DeviceLimits, AreThoseOfTheFormat) {
  const auto refuse = [](const char *name, const std::function<void(ModelConfig *)> &grow, const char *message) {
    ModelConfig config = OpenSourceModel(test::DataPath(name))->config();
    EXPECT_NO_THROW(CheckDeviceLimits(config, "x"));
    grow(&config);
    EXPECT_ERROR(CheckDeviceLimits(config, "x"), ExitCode::kBadModel, message);
  };
  refuse("small_llama", [](ModelConfig *c) { c->vocab = (1 << 20) + 1; }, "x: vocabulary size 1048577 has no place in a model file (1 to 1048576)");
  refuse("small_llama", [](ModelConfig *c) { c->head_dim = 513; }, "head size 513 has no place");
  refuse("small_llama", [](ModelConfig *c) { c->kv_heads = 2049; }, "number of KV heads 2049");
  refuse("small_llama", [](ModelConfig *c) { c->heads = 1 << 14, c->head_dim = 128; }, "width of q, k and v together");
  refuse("small_llama", [](ModelConfig *c) { c->ffn = (1 << 19) + 1; }, "twice the FFN size, 1048578");
  refuse("small_bamba", [](ModelConfig *c) { c->ssm.conv_width = 1; }, "width of the convolution 1 has no place in a model file (2 to 8)");
  refuse("small_bamba", [](ModelConfig *c) { c->ssm.conv_width = 9; }, "width of the convolution 9");
  refuse("small_bamba", [](ModelConfig *c) { c->ssm.state = 1025; }, "state size 1025");
  refuse("small_bamba", [](ModelConfig *c) { c->ssm.head_dim = 1 << 17, c->ssm.state = 512; }, "size of a layer's state");
  refuse("small_bamba", [](ModelConfig *c) { c->ssm.head_dim = 1 << 17, c->ssm.state = 1; }, "width of a state-space layer's inputs together");
  refuse("small_granite_h", [](ModelConfig *c) { c->experts = 1025; }, "number of experts 1025");
  refuse("small_granite_h", [](ModelConfig *c) { c->experts_per_token = 65; }, "number of experts of a token 65");
  refuse("small_granite_h", [](ModelConfig *c) { c->shared_ffn = 1 << 20; }, "twice the FFN size of the shared expert, 2097152");

  ModelConfig config = OpenSourceModel(test::DataPath("small_mamba2"))->config();
  EXPECT_EQ(LongestContext(config), 1 << 20);
  config.max_context = 1 << 26;
  EXPECT_EQ(LongestContext(config), (1 << 24) - 64);
  config.ssm_layers[0] = false;
  EXPECT_EQ(LongestContext(config), 65536 - 64);
}

TEST(Factor, IsCloseAndKeepsItsBound) {
  for (const double value : {1e-9, 3.7e-5, 0.49, 1.0, 77.3, 40000.0}) {
    for (const int bits : {8, 22, 31, 38}) {
      const uint64_t bound = (uint64_t{1} << bits) - 1;
      const IntegerFactor factor = MakeFactor(value, bound);
      EXPECT_GE(factor.shift, 1);
      EXPECT_LE(factor.shift, 62);
      EXPECT_LT(static_cast<long double>(factor.multiplier) * static_cast<long double>(bound), std::ldexp(1.0L, 62));
      const double back = std::ldexp(static_cast<double>(factor.multiplier), -factor.shift);
      EXPECT_LE(std::abs(back - value), std::ldexp(0.5, -factor.shift) * 1.0001);
      // No larger shift would have been legal.
      if (factor.shift < 62) {
        EXPECT_GE(factor.multiplier, std::min<int64_t>(1 << 29, (int64_t{1} << (61 - bits)) / 2));
      }
    }
  }
  EXPECT_EQ(MakeFactor(0, 1).multiplier, 0);
  EXPECT_ERROR(MakeFactor(1e12, 127), ExitCode::kBadModel, "too large");
}

TEST(Factor, NormalizedIsInItsBinade) {
  for (const double value : {1e-7, 0.3, 0.9999999999, 1.0, 1.5, 1000.0}) {
    const IntegerFactor factor = MakeNormalizedFactor(value);
    EXPECT_GE(factor.multiplier, 1 << 30);
    EXPECT_NEAR(std::ldexp(static_cast<double>(factor.multiplier), -factor.shift) / value, 1, 1e-9);
  }
}

TEST(FileWriter, HeaderSegmentsAndChecksums) {
  const test::TempFolder folder;
  const std::vector<uint8_t> graph(1000, 7);
  const std::vector<SegmentBytes> segments = {{1, std::vector<uint8_t>(100, 1), 0}, {2, std::vector<uint8_t>(20000, 2), 0}};
  Spool none(folder.File("m"));
  const uint64_t size = WriteModelFile(folder.File("m"), graph, segments, &none);
  const std::string file = test::ReadFile(folder.File("m"));
  const auto *bytes = reinterpret_cast<const uint8_t *>(file.data());
  ASSERT_EQ(file.size(), size);
  EXPECT_EQ(size, 2 * kSegmentAlignment + 20000);
  EXPECT_EQ(std::memcmp(bytes, kFileMagic, 8), 0);
  EXPECT_EQ(LoadLittle32(bytes + kHeaderVersion), kFileVersion);
  EXPECT_EQ(LoadLittle64(bytes + kHeaderFileBytes), size);
  EXPECT_EQ(LoadLittle64(bytes + kHeaderGraphBytes), 1000u);
  EXPECT_EQ(LoadLittle64(bytes + kHeaderGraphChecksum), Checksum(bytes + kHeaderBytes, 1000));
  EXPECT_EQ(LoadLittle64(bytes + kHeaderChecksum), Checksum(bytes, kHeaderChecksum));
  const std::vector<SegmentPlace> places = PlaceSegments(segments, 1000);
  EXPECT_EQ(places[0].offset, kSegmentAlignment);
  EXPECT_EQ(places[1].offset, 2 * kSegmentAlignment);
  for (const SegmentPlace &place : places) EXPECT_EQ(place.checksum, Checksum(bytes + place.offset, place.bytes));
}

TEST(FileWriter, LeavesNothingBehindWhenItFails) {
  const test::TempFolder folder;
  Spool none(folder.File("m"));
  EXPECT_ERROR(WriteModelFile(folder.File("absent/m"), {1}, {}, &none), ExitCode::kIo, "cannot write");
  std::filesystem::create_directory(folder.File("m"));
  folder.Write("m/x", "");  // a folder that is not empty cannot be replaced
  EXPECT_ERROR(WriteModelFile(folder.File("m"), {1}, {}, &none), ExitCode::kIo, "cannot write");
  int entries = 0;
  for ([[maybe_unused]] const auto &entry : std::filesystem::directory_iterator(folder.path())) ++entries;
  EXPECT_EQ(entries, 1);
}

TEST(FileWriter, ExpertsLieOnTheDiskUntilTheFileIsWritten) {
  const test::TempFolder folder;
  const uint8_t kind = 4;  // schema::SegmentKind::Experts
  const std::vector<SegmentBytes> segments = {{1, std::vector<uint8_t>(100, 1), 0}, {kind, {}, 2 * kSegmentAlignment}, {kind, {}, kSegmentAlignment}};
  Spool spool(folder.File("m"));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  std::vector<uint8_t> experts(3 * kSegmentAlignment);
  for (size_t i = 0; i < experts.size(); ++i) experts[i] = static_cast<uint8_t>(i * 7 + i / kSegmentAlignment);
  for (size_t i = 0; i < 3; ++i) spool.Write(experts.data() + i * kSegmentAlignment, kSegmentAlignment);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path())) << "the spool has no name that a crash could leave behind";
  const uint64_t size = WriteModelFile(folder.File("m"), std::vector<uint8_t>(1000, 7), segments, &spool);
  const std::string file = test::ReadFile(folder.File("m"));
  ASSERT_EQ(file.size(), size);
  ASSERT_EQ(size, 5 * kSegmentAlignment);
  EXPECT_EQ(std::memcmp(file.data() + 2 * kSegmentAlignment, experts.data(), experts.size()), 0);
  EXPECT_EQ(LoadLittle64(reinterpret_cast<const uint8_t *>(file.data()) + kHeaderExperts), 2 * kSegmentAlignment);
  EXPECT_EQ(PlaceSegments(segments, 1000)[2].offset, 4 * kSegmentAlignment);

  Spool nowhere(folder.File("absent/m"));
  EXPECT_ERROR(nowhere.Write(experts.data(), 1), ExitCode::kIo, "cannot write");
}

TEST(ModelWriter, ActivationTables) {
  const std::vector<double> silu = ActivationFactors(ActivationKind::kSilu);
  ASSERT_EQ(silu.size(), 514u);
  EXPECT_DOUBLE_EQ(silu[256], 0.5);
  EXPECT_NEAR(silu[256 + 32], 1 / (1 + std::exp(-2.0)), 1e-15);
  EXPECT_EQ(silu[513], silu[512]);
  EXPECT_NEAR(ActivationFactors(ActivationKind::kGelu)[256 + 16], 0.8413447460685429, 1e-15);      // Phi(1)
  EXPECT_NEAR(ActivationFactors(ActivationKind::kGeluTanh)[256 + 16], 0.8411919906082768, 1e-12);  // tanh form at 1
}

struct Case {
  const char *name;
  Recipe recipe;
  WeightFormat body, head;
  DownInput down;
  Layout layout;
  double tolerance;  // of a logit's error, root mean square, relative to the logits' own: measured, and half as much again
};

void PrintTo(const Case &c, std::ostream *out) { *out << c.name; }

class WholeModel : public testing::TestWithParam<Case> {};

CalibrationWindows SomeWindows(const ModelConfig &config) {
  CalibrationWindows windows;
  windows.window = 64;
  uint32_t state = 1;
  for (int i = 0; i < 16 * 64; ++i) {
    state = state * 1664525u + 1013904223u;
    windows.ids.push_back(static_cast<int32_t>((state >> 8) % static_cast<uint32_t>(config.vocab)));
  }
  windows.prefix_candidates = {0, 1};
  return windows;
}

/// The line of progress is for people.
[[maybe_unused]] const bool kSilent = (Progress::Silence(), true);

uint64_t Convert(const SourceModel &source, const RecipeOptions &options, const std::string &path) {
  ModelFacts facts;
  facts.name = "test";
  facts.family = source.config().family;
  facts.vocab_size = static_cast<uint32_t>(source.config().vocab);
  facts.max_context = 128;
  FileSink sink(source.config(), path);
  QuantizeModel(source, SomeWindows(source.config()), options, &sink);
  return sink.Finish(facts);
}

void Convert(const SourceModel &source, const Case &c, const std::string &path) {
  RecipeOptions options;
  options.recipe = c.recipe;
  options.body_format = c.body;
  options.head_format = c.head;
  options.down_input = c.down;
  options.channel_layouts = {c.layout, c.layout};
  Convert(source, options, path);
}

/// Root mean square error of the file's logits relative to the float model's, over one window of the calibration tokens.
double LogitError(const SourceModel &source, const std::string &path) {
  const CalibrationWindows windows = SomeWindows(source.config());
  constexpr int64_t length = 64;
  const std::vector<int32_t> ids(windows.ids.begin(), windows.ids.begin() + length);
  const Matrix want = HeadScorer(source).Logits(RunLayers(source, ids, {0, length}));
  const std::string file = test::ReadFile(path);
  test::ModelSession session(test::AlignedBytes(std::vector<uint8_t>(file.begin(), file.end())));
  EXPECT_EQ(session.status(), ACORN_OK) << "section " << (session.fault().section == nullptr ? "" : session.fault().section)
                                        << " index " << session.fault().index;
  const std::vector<int32_t> got = session.Score(ids);
  if (session.status() != ACORN_OK || static_cast<int64_t>(got.size()) != want.size()) return INFINITY;
  double error = 0, energy = 0;
  for (int64_t i = 0; i < want.size(); ++i) {
    const double difference = got[static_cast<size_t>(i)] / 65536.0 - static_cast<double>(want.data()[i]);
    error += difference * difference;
    energy += static_cast<double>(want.data()[i]) * static_cast<double>(want.data()[i]);
  }
  return std::sqrt(error / energy);
}

TEST_P(WholeModel, LogitsStayCloseToFloat) {
  const auto source = OpenSourceModel(test::DataPath("small_llama"));
  const test::TempFolder folder;
  Convert(*source, GetParam(), folder.File("m.acorn"));
  const double error = LogitError(*source, folder.File("m.acorn"));
  EXPECT_LT(error, GetParam().tolerance);
  RecordProperty("error", std::to_string(error));
}

TEST_P(WholeModel, SameInputGivesTheSameBytes) {
  const auto source = OpenSourceModel(test::DataPath("small_llama"));
  const test::TempFolder folder;
  Convert(*source, GetParam(), folder.File("a"));
  Convert(*source, GetParam(), folder.File("b"));
  EXPECT_EQ(test::ReadFile(folder.File("a")), test::ReadFile(folder.File("b")));
}

// What a pass reads lies as it is read, so that a file that comes from storage comes in one run. A head that is the embedding too
// lies where the head does.
TEST(ModelWriter, WeightsLieInTheOrderOfUse) {
  for (const char *name : {"small_llama", "small_gemma"}) {
    const auto source = OpenSourceModel(test::DataPath(name));
    const test::TempFolder folder;
    RecipeOptions options;
    options.recipe = Recipe::kRtn;
    Convert(*source, options, folder.File("m"));
    const std::string file = test::ReadFile(folder.File("m"));
    const schema::Model *model = schema::GetModel(file.data() + kHeaderBytes);
    const auto place = [&](uint16_t weight) {
      const schema::Ref *data = model->weights()->Get(weight)->data();
      return model->segments()->Get(data->segment())->offset() + data->offset();
    };
    std::vector<uint64_t> places;
    size_t embeddings = 0;
    for (const auto *steps : {model->body(), model->head()}) {
      for (const schema::Step *step : *steps) {
        if (step->op_type() == schema::Op::Linear) places.push_back(place(step->op_as_Linear()->weight()));
        if (step->op_type() != schema::Op::Embedding) continue;
        ++embeddings;
        if (!source->config().tied_head) places.push_back(place(step->op_as_Embedding()->weight()));
      }
    }
    EXPECT_EQ(embeddings, 1u);
    EXPECT_GT(places.size(), 4u);
    EXPECT_TRUE(std::is_sorted(places.begin(), places.end())) << name;
    EXPECT_LT(model->segments()->Get(0)->offset(), places.front()) << "constants";
  }
}

INSTANTIATE_TEST_SUITE_P(
    Recipes, WholeModel,
    testing::Values(
        Case{"rtn_w8", Recipe::kRtn, WeightFormat::kW8, WeightFormat::kW8, DownInput::kHadamard, Layout::kX16C8, 0.021},
        Case{"rtn_w4g32", Recipe::kRtn, WeightFormat::kW4G32, WeightFormat::kW8, DownInput::kHadamard, Layout::kX16C8, 0.04},
        Case{"fast_w8_s15", Recipe::kFast, WeightFormat::kW8, WeightFormat::kW8, DownInput::kS15, Layout::kX8C8, 0.02},
        Case{"fast_w4_channel", Recipe::kFast, WeightFormat::kW4, WeightFormat::kW8, DownInput::kHadamard, Layout::kX16C8,
             0.033},
        Case{"fast_w4g32_head_w4", Recipe::kFast, WeightFormat::kW4G32, WeightFormat::kW4G32, DownInput::kHadamard,
             Layout::kX16C8, 0.17},
        Case{"fast_w4g32_s15", Recipe::kFast, WeightFormat::kW4G32, WeightFormat::kW8, DownInput::kS15, Layout::kX16C8, 0.03}),
    [](const testing::TestParamInfo<Case> &c) { return std::string(c.param.name); });

struct FamilyCase {
  const char *name;
  const char *family;  // tests/data/small_*
  Recipe recipe;
  double tolerance;  // measured, and half as much again
};

void PrintTo(const FamilyCase &c, std::ostream *out) { *out << c.name; }

class SmallFamilies : public testing::TestWithParam<FamilyCase> {};

TEST_P(SmallFamilies, LogitsStayCloseToFloat) {
  const FamilyCase &c = GetParam();
  const auto source = OpenSourceModel(test::DataPath(std::string("small_") + c.family));
  const test::TempFolder folder;
  Convert(*source, {"", c.recipe, WeightFormat::kW8, WeightFormat::kW8, DownInput::kHadamard, Layout::kX16C8, 0},
          folder.File("m"));
  const double error = LogitError(*source, folder.File("m"));
  EXPECT_LT(error, c.tolerance);
  RecordProperty("error", std::to_string(error));
}

INSTANTIATE_TEST_SUITE_P(
    Recipes, SmallFamilies,
    testing::Values(FamilyCase{"gemma_rtn", "gemma", Recipe::kRtn, 0.1},
                    FamilyCase{"gemma_fast", "gemma", Recipe::kFast, 0.09},
                    FamilyCase{"phi3_rtn", "phi3", Recipe::kRtn, 0.14},
                    FamilyCase{"phi3_fast", "phi3", Recipe::kFast, 0.115},
                    FamilyCase{"mistral_rtn", "mistral", Recipe::kRtn, 0.14},
                    FamilyCase{"mistral_fast", "mistral", Recipe::kFast, 0.13},
                    FamilyCase{"qwen2_rtn", "qwen2", Recipe::kRtn, 0.155},
                    FamilyCase{"qwen2_fast", "qwen2", Recipe::kFast, 0.13},
                    FamilyCase{"stablelm_rtn", "stablelm", Recipe::kRtn, 0.09},
                    FamilyCase{"stablelm_fast", "stablelm", Recipe::kFast, 0.07}),
    [](const testing::TestParamInfo<FamilyCase> &c) { return std::string(c.param.name); });

/// A layer of many formats with every input in 15 bits that can be, and one of 8-bit weights.
RecipeOptions MixedOptions(Recipe recipe) {
  RecipeOptions options;
  options.recipe = recipe;
  LayerFormats parts;
  parts.qkv = WeightFormat::kW8;
  parts.o = WeightFormat::kW4G64;
  parts.gate_up = WeightFormat::kW8;
  parts.inputs = {EdgeType::kS15, EdgeType::kS15, EdgeType::kS15};
  LayerFormats eight;
  for (WeightFormat *format : {&eight.qkv, &eight.o, &eight.gate_up, &eight.down}) *format = WeightFormat::kW8;
  options.layers = {parts, eight};
  return options;
}

TEST(MixedModel, ComputesWhatItsPartsSay) {
  const auto source = OpenSourceModel(test::DataPath("small_llama"));
  const test::TempFolder folder;
  for (const Recipe recipe : {Recipe::kRtn, Recipe::kFast}) {
    Convert(*source, MixedOptions(recipe), folder.File("mixed"));
    RecipeOptions plain;
    plain.recipe = recipe;
    Convert(*source, plain, folder.File("plain"));
    const double error = LogitError(*source, folder.File("mixed"));
    EXPECT_LT(error, 0.9 * LogitError(*source, folder.File("plain")));
    RecordProperty("error", std::to_string(error));
  }
}

TEST(MixedModel, FileBytesIsATightBound) {
  const auto source = OpenSourceModel(test::DataPath("small_llama"));
  const test::TempFolder folder;
  RecipeOptions channel;
  channel.body_format = WeightFormat::kW4;
  channel.head_format = WeightFormat::kW4G32;
  RecipeOptions narrow_cache = MixedOptions(Recipe::kRtn);
  narrow_cache.kv_bits = 4;
  for (const RecipeOptions &options : {RecipeOptions(), channel, MixedOptions(Recipe::kRtn), narrow_cache}) {
    const uint64_t bytes = Convert(*source, options, folder.File("m"));
    const uint64_t bound = FileBytes(source->config(), FfnShapeOf(source->config(), options), options, 0);
    EXPECT_LE(bytes, bound);
    // The graph and the constants may each take a step of alignment less.
    EXPECT_LE(bound, bytes + 2 * kSegmentAlignment);
  }
}

/// Of states every factor is rounded: x, B and C.
double LargestError(const ModelConfig &config) { return config.HasStateSpace() ? 0.036 : 0.02; }

class TinyFamilies : public testing::TestWithParam<const char *> {};

TEST_P(TinyFamilies, ConvertAndAgree) {
  const std::string folder_name = std::string("models/tiny/") + GetParam();
  ACORN_NEED_SHARED(folder_name);
  const auto source = OpenSourceModel(test::SharedPath(folder_name));
  const test::TempFolder folder;
  Convert(*source, {"", Recipe::kFast, WeightFormat::kW8, WeightFormat::kW8, DownInput::kHadamard, Layout::kX16C8, 0},
          folder.File("m"));
  const double error = LogitError(*source, folder.File("m"));
  EXPECT_LT(error, LargestError(source->config()));
  RecordProperty("error", std::to_string(error));
}

TEST_P(TinyFamilies, RotatedTheyAgreeToo) {
  const std::string folder_name = std::string("models/tiny/") + GetParam();
  ACORN_NEED_SHARED(folder_name);
  const auto source = OpenSourceModel(test::SharedPath(folder_name));
  if (RefusalOf(source->config(), RotationKind::kR1R2) != nullptr) GTEST_SKIP() << "R1 is refused here";
  const test::TempFolder folder;
  Convert(RotatedModel(*source, RotationKind::kR1R2, 1),
          {"", Recipe::kFast, WeightFormat::kW8, WeightFormat::kW8, DownInput::kHadamard, Layout::kX16C8, 0}, folder.File("m"));
  const double error = LogitError(*source, folder.File("m"));
  EXPECT_LT(error, LargestError(source->config()));
  RecordProperty("error", std::to_string(error));
}

INSTANTIATE_TEST_SUITE_P(Shared, TinyFamilies,
                         testing::Values("llama", "llama3", "mistral", "qwen2", "qwen3", "phi3", "gemma", "stablelm", "mamba2",
                                         "bamba"),
                         [](const testing::TestParamInfo<const char *> &family) { return std::string(family.param); });

}  // namespace
}  // namespace acorn::compiler
