// The twin's integers are the device's: logits of whole models, bit for bit, against the library on the written file.
#include <gtest/gtest.h>

#include <torch/torch.h>

#include <optional>

#include "tests/compiler/train/small_model.h"
#include "tests/support/model_session.h"
#include "tests/support/shared_data.h"
#include "tests/support/temp_folder.h"
#include "train/checkpoint.h"
#include "train/model_twin.h"
#include "train/parameters.h"

namespace acorn::compiler {
namespace {

/// Logits of the first 64 tokens by the library, from a file.
std::vector<int32_t> DeviceLogits(const ModelConfig &config, QuantizedModel model, const std::vector<int32_t> &ids) {
  const test::TempFolder folder;
  ModelFacts facts;
  facts.name = "test";
  facts.family = config.family;
  facts.vocab_size = static_cast<uint32_t>(config.vocab);
  facts.max_context = 128;
  FileSink sink(config, folder.File("m.acorn"));
  WriteModel(std::move(model), &sink);
  sink.Finish(facts);
  const std::string file = test::ReadFile(folder.File("m.acorn"));
  test::ModelSession session(test::AlignedBytes(std::vector<uint8_t>(file.begin(), file.end())));
  EXPECT_EQ(session.status(), ACORN_OK) << (session.fault().section == nullptr ? "" : session.fault().section) << " "
                                        << session.fault().index;
  return session.Score(ids);
}

std::vector<int32_t> TwinLogits(const ModelConfig &config, const QuantizedModel &model, const std::vector<int32_t> &ids) {
  ModelTwin twin(config, &model, static_cast<int64_t>(ids.size()));
  const torch::Tensor logits = twin.Logits(ids).contiguous();
  return {logits.data_ptr<int32_t>(), logits.data_ptr<int32_t>() + logits.numel()};
}

/// Every parameter somewhere else, zero points included.
void Disturb(const ModelConfig &config, QuantizedModel *model) {
  Parameters parameters(config, model, false);
  torch::manual_seed(7);
  std::vector<torch::Tensor> values = parameters.Values();
  for (torch::Tensor &value : values) value.copy_(torch::randn_like(value) * (value.numel() == 1 ? 1.5 : 0.05));
  for (torch::Tensor &value : values) value.clamp_(-4, 4);
  parameters.SetValues(values);
  parameters.Apply();
}

struct Case {
  const char *name;
  WeightFormat body, head;
  DownInput down;
  int kv_bits = 8;
};

class TwinEqualsDevice : public testing::TestWithParam<Case> {};

TEST_P(TwinEqualsDevice, Logits) {
  const auto source = OpenSourceModel(test::DataPath("small_llama"));
  const ModelConfig &config = source->config();
  RecipeOptions options;
  options.body_format = GetParam().body;
  options.head_format = GetParam().head;
  options.down_input = GetParam().down;
  options.kv_bits = GetParam().kv_bits;
  QuantizedModel model = QuantizeSmall(*source, options);
  const CalibrationWindows windows = SomeWindows(config);
  const std::vector<int32_t> ids(windows.ids.begin(), windows.ids.begin() + windows.window);
  EXPECT_EQ(TwinLogits(config, model, ids), DeviceLogits(config, model, ids)) << "as quantised";
  Disturb(config, &model);
  EXPECT_EQ(TwinLogits(config, model, ids), DeviceLogits(config, model, ids)) << "with every parameter moved";
}

INSTANTIATE_TEST_SUITE_P(
    Formats, TwinEqualsDevice,
    testing::Values(Case{"w8", WeightFormat::kW8, WeightFormat::kW8, DownInput::kHadamard},
                    Case{"w4", WeightFormat::kW4, WeightFormat::kW8, DownInput::kHadamard},
                    Case{"w4g32_head_w4", WeightFormat::kW4G32, WeightFormat::kW4G32, DownInput::kHadamard},
                    Case{"w4g32_s15", WeightFormat::kW4G32, WeightFormat::kW8, DownInput::kS15},
                    Case{"w8_kv4", WeightFormat::kW8, WeightFormat::kW8, DownInput::kHadamard, 4},
                    Case{"w4g32_s15_kv4", WeightFormat::kW4G32, WeightFormat::kW8, DownInput::kS15, 4}),
    [](const testing::TestParamInfo<Case> &c) { return std::string(c.param.name); });

/// With keys and values of 8 and of 4 bits, as quantised and with every parameter moved. prefix: absent: the recipe's own.
void ExpectTwinEqualsDevice(const std::string &path, const std::optional<std::vector<int32_t>> &prefix = {}) {
  const auto source = OpenSourceModel(path);
  const ModelConfig &config = source->config();
  const CalibrationWindows windows = SomeWindows(config);
  const std::vector<int32_t> ids(windows.ids.begin(), windows.ids.begin() + windows.window);
  for (const int kv_bits : {8, 4}) {
    RecipeOptions options;
    options.kv_bits = kv_bits;
    options.prefix_tokens = prefix;
    QuantizedModel model = QuantizeSmall(*source, options);
    EXPECT_EQ(TwinLogits(config, model, ids), DeviceLogits(config, model, ids)) << kv_bits;
    Disturb(config, &model);
    EXPECT_EQ(TwinLogits(config, model, ids), DeviceLogits(config, model, ids)) << kv_bits;
  }
}

class TwinOfStateSpaceFamily : public testing::TestWithParam<const char *> {};

TEST_P(TwinOfStateSpaceFamily, EqualsDevice) {
  const std::string path = test::DataPath(std::string("small_") + GetParam());
  ExpectTwinEqualsDevice(path);
  ExpectTwinEqualsDevice(path, std::vector<int32_t>{3});
  ExpectTwinEqualsDevice(path, std::vector<int32_t>{1, 3});
}

INSTANTIATE_TEST_SUITE_P(Data, TwinOfStateSpaceFamily, testing::Values("mamba2", "bamba", "granite_h_dense"),
                         [](const auto &c) { return std::string(c.param); });

class TwinOfFamily : public testing::TestWithParam<const char *> {};

TEST_P(TwinOfFamily, EqualsDevice) {
  const std::string folder = std::string("models/tiny/") + GetParam();
  ACORN_NEED_SHARED(folder);
  ExpectTwinEqualsDevice(test::SharedPath(folder));
}

INSTANTIATE_TEST_SUITE_P(Shared, TwinOfFamily,
                         testing::Values("llama", "llama3", "mistral", "qwen2", "qwen3", "phi3", "gemma", "stablelm", "mamba2", "bamba"),
                         [](const auto &c) { return std::string(c.param); });

TEST(Twin, ShortWindowsRunInTheSameMachine) {
  const auto source = OpenSourceModel(test::DataPath("small_llama"));
  const QuantizedModel model = QuantizeSmall(*source, {});
  const CalibrationWindows windows = SomeWindows(source->config());
  ModelTwin twin(source->config(), &model, 64);
  const std::vector<int32_t> all(windows.ids.begin(), windows.ids.begin() + 64), some(all.begin(), all.begin() + 9);
  const torch::Tensor long_run = twin.Logits(all).narrow(0, 0, 9);
  EXPECT_TRUE(torch::equal(twin.Logits(some), long_run));
}

TEST(Checkpoint, KeepsAModelWhole) {
  for (const char *name : {"small_llama", "small_bamba"}) {
    const auto source = OpenSourceModel(test::DataPath(name));
    RecipeOptions options;
    options.kv_bits = 4;
    options.prefix_tokens = std::vector<int32_t>{3, 1};
    QuantizedModel model = QuantizeSmall(*source, options);
    Disturb(source->config(), &model);
    const test::TempFolder folder;
    Archive archive;
    PutModel(&archive, model);
    archive.Save(folder.File("c"));
    const QuantizedModel back = GetModel(Archive::Load(folder.File("c")));
    const CalibrationWindows windows = SomeWindows(source->config());
    const std::vector<int32_t> ids(windows.ids.begin(), windows.ids.begin() + 64);
    EXPECT_EQ(DeviceLogits(source->config(), back, ids), DeviceLogits(source->config(), model, ids)) << name;
  }
}

}  // namespace
}  // namespace acorn::compiler
