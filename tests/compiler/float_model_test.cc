// Whole models against logits made by transformers in float32 (and a float64 pass for stories260K).
#include "graph/float_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "tests/compiler/expect_error.h"
#include "tests/support/shared_data.h"
#include "tests/support/temp_folder.h"

namespace acorn::compiler {
namespace {

using nlohmann::json;

json ReadJson(const std::string &path) { return json::parse(test::ReadFile(path)); }

// [ids, vocab]
Matrix AllLogits(const SourceModel &source, const std::vector<int32_t> &ids) {
  const int64_t tokens = static_cast<int64_t>(ids.size());
  return HeadScorer(source).Logits(RunLayers(source, ids, EvenBoundaries(tokens, tokens)));
}

// Every logit within 1e-4 of the largest one.
void ExpectGolden(const std::string &model, const std::string &golden_path) {
  const auto source = OpenSourceModel(model);
  const json golden = ReadJson(golden_path);
  const Matrix logits = AllLogits(*source, golden["ids"].get<std::vector<int32_t>>());
  double largest = 0, worst = 0;
  for (const auto &item : golden["logits"].items()) {
    const std::vector<double> want = item.value();
    ASSERT_EQ(static_cast<int64_t>(want.size()), logits.cols());
    for (size_t i = 0; i < want.size(); ++i) {
      largest = std::max(largest, std::abs(want[i]));
      worst = std::max(worst, std::abs(want[i] - logits(std::stoll(item.key()), static_cast<int64_t>(i))));
    }
  }
  EXPECT_GT(largest, 0.0);
  EXPECT_LE(worst, 1e-4 * largest);
}

int32_t ArgMax(const Matrix &logits, int64_t row) {
  Eigen::Index best;
  logits.row(row).maxCoeff(&best);
  return static_cast<int32_t>(best);
}

void ExpectTop5(const Matrix &logits, const std::vector<int32_t> &ids, const std::vector<double> &values) {
  const int64_t last = logits.rows() - 1;
  for (size_t i = 0; i < ids.size(); ++i) EXPECT_NEAR(logits(last, ids[i]), values[i], 2e-3) << "id " << ids[i];
  EXPECT_EQ(ArgMax(logits, last), ids[0]);
}

TEST(FloatModel, SmallLlamaFolder) { ExpectGolden(test::DataPath("small_llama"), test::DataPath("small_llama/golden.json")); }

TEST(FloatModel, SmallLlamaGguf) { ExpectGolden(test::DataPath("small_llama.gguf"), test::DataPath("small_llama_gguf.json")); }

TEST(FloatModel, SmallLlama2c) { ExpectGolden(test::DataPath("small_llama.bin"), test::DataPath("small_llama_bin.json")); }

class SmallFamilies : public testing::TestWithParam<const char *> {};

TEST_P(SmallFamilies, FolderAndGguf) {
  const std::string folder = test::DataPath(std::string("small_") + GetParam());
  ExpectGolden(folder, folder + "/golden.json");
  ExpectGolden(folder + ".gguf", folder + "/golden.json");
}

INSTANTIATE_TEST_SUITE_P(Data, SmallFamilies, testing::Values("gemma", "phi3", "stablelm", "mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "mamba2", "bamba",
                                         "granite_h", "granite_h_dense"),
                         [](const testing::TestParamInfo<const char *> &family) { return std::string(family.param); });

// Sliding windows of 6 tokens, in all layers and from the second on.
TEST(FloatModel, SmallMistral) { ExpectGolden(test::DataPath("small_mistral"), test::DataPath("small_mistral/golden.json")); }
TEST(FloatModel, SmallQwen2) { ExpectGolden(test::DataPath("small_qwen2"), test::DataPath("small_qwen2/golden.json")); }

class TinyModels : public testing::TestWithParam<const char *> {};

TEST_P(TinyModels, EveryLogit) {
  const std::string folder = std::string("models/tiny/") + GetParam();
  ACORN_NEED_SHARED(folder);
  ExpectGolden(test::SharedPath(folder), test::SharedPath(folder + "/golden.json"));
}

INSTANTIATE_TEST_SUITE_P(Shared, TinyModels,
                         testing::Values("llama", "llama3", "mistral", "qwen2", "qwen3", "phi3", "gemma", "stablelm", "mixtral",
                                         "qwen2_moe", "qwen3_moe", "olmoe", "mamba2", "bamba", "granite_h"),
                         [](const testing::TestParamInfo<const char *> &param_info) { return std::string(param_info.param); });

class HomeModels : public testing::TestWithParam<const char *> {};

TEST_P(HomeModels, PromptsAndGreedy) {
  const std::string folder = std::string("models/") + GetParam();
  ACORN_NEED_SHARED(folder);
  const auto source = OpenSourceModel(test::SharedPath(folder));
  const json golden = ReadJson(test::SharedPath(folder + "/golden.json"));
  for (const json &prompt : golden["prompts"]) {
    const std::vector<int32_t> ids = prompt["ids"];
    ExpectTop5(AllLogits(*source, ids), prompt["top5_ids"], prompt["top5_logits"]);
    // One pass over prompt and answer: each token of the answer is the greedy choice of the position before it.
    const std::vector<int32_t> answer = prompt["greedy_ids"];
    std::vector<int32_t> both = ids;
    both.insert(both.end(), answer.begin(), answer.end());
    const Matrix logits = AllLogits(*source, both);
    for (size_t i = 0; i < answer.size(); ++i) {
      EXPECT_EQ(ArgMax(logits, static_cast<int64_t>(ids.size() + i) - 1), answer[i]) << "answer token " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shared, HomeModels, testing::Values("dense", "moe", "mamba2", "hybrid"),
                         [](const testing::TestParamInfo<const char *> &model) { return std::string(model.param); });

TEST(FloatModel, Stories260K) {
  ACORN_NEED_SHARED("data/models/stories260K");
  const auto source = OpenSourceModel(test::SharedPath("data/models/stories260K/stories260K.bin"));
  const json golden = ReadJson(test::SharedPath("data/models/stories260K/golden_numpy_f64.json"));
  const std::vector<int32_t> ids = golden["greedy_from_BOS_200_ids"];
  const Matrix logits = AllLogits(*source, ids);
  for (size_t i = 0; i + 1 < ids.size(); ++i) EXPECT_EQ(ArgMax(logits, static_cast<int64_t>(i)), ids[i + 1]);
  const std::vector<double> first = golden["logits_pos31_first16"];
  for (size_t i = 0; i < first.size(); ++i) EXPECT_NEAR(logits(31, static_cast<int64_t>(i)), first[i], 5e-4);
  EXPECT_NEAR(logits.row(31).cast<double>().sum(), golden["logits_pos31_sum"].get<double>(), 0.05);
}

TEST(FloatModel, SmolLm2Prompts) {
  ACORN_NEED_SHARED("data/smollm2");
  if (!test::PathExists(test::SmolLm2Path())) GTEST_SKIP() << "needs " << test::SmolLm2Path();
  const auto source = OpenSourceModel(test::SmolLm2Path());
  const json golden = ReadJson(test::SharedPath("data/smollm2/golden.json"));
  // All prompts in one pass, each a window of its own.
  std::vector<int32_t> ids;
  std::vector<int64_t> boundaries = {0};
  for (const json &prompt : golden["golden"]) {
    const std::vector<int32_t> part = prompt["ids"];
    ids.insert(ids.end(), part.begin(), part.end());
    boundaries.push_back(static_cast<int64_t>(ids.size()));
  }
  const Matrix states = RunLayers(*source, ids, boundaries);
  const HeadScorer scorer(*source);
  for (size_t i = 0; i + 1 < boundaries.size(); ++i) {
    const json &prompt = golden["golden"][i];
    ExpectTop5(scorer.Logits(states.middleRows(boundaries[i + 1] - 1, 1)), prompt["top5_ids"], prompt["top5_logits"]);
  }
}

TEST(Perplexity, ScoresWindowsApart) {
  const auto source = OpenSourceModel(test::DataPath("small_llama"));
  std::vector<int32_t> ids(50);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 37 % 128);
  PerplexityOptions options;
  options.window = 16;
  options.score_from = 5;
  const PerplexityResult result = Perplexity(*source, ids, options);
  EXPECT_EQ(result.windows, 3);  // the last two ids are dropped
  EXPECT_EQ(result.scored_tokens, 3 * 11);
  double sum = 0;
  for (int w = 0; w < 3; ++w) {
    const Matrix logits = AllLogits(*source, {ids.begin() + w * 16, ids.begin() + (w + 1) * 16});
    for (int p = 5; p < 16; ++p) {
      const auto row = logits.row(p - 1).cast<double>();
      const double loss = std::log(row.array().exp().sum()) - row(ids[static_cast<size_t>(w * 16 + p)]);
      EXPECT_NEAR(result.losses[static_cast<size_t>(w * 11 + p - 5)], loss, 1e-5);
      sum += loss;
    }
  }
  EXPECT_NEAR(result.perplexity, std::exp(sum / 33), 1e-3);
  options.max_windows = 1;
  EXPECT_EQ(Perplexity(*source, ids, options).scored_tokens, 11);
}

TEST(Perplexity, RefusesOptions) {
  const auto source = OpenSourceModel(test::DataPath("small_llama"));
  const std::vector<int32_t> ids(20, 3);
  const auto run = [&](int64_t window, int64_t score_from) {
    PerplexityOptions options;
    options.window = window;
    options.score_from = score_from;
    Perplexity(*source, ids, options);
  };
  EXPECT_ERROR(run(21, 1), ExitCode::kUsage, "less than one window");
  EXPECT_ERROR(run(1, 1), ExitCode::kUsage, "--window");
  EXPECT_ERROR(run(10, 10), ExitCode::kUsage, "--score-from");
  EXPECT_ERROR(run(10, 0), ExitCode::kUsage, "--score-from");
  EXPECT_ERROR(Perplexity(*source, std::vector<int32_t>(512, 128), {}), ExitCode::kUsage, "outside the vocabulary");
}

}  // namespace
}  // namespace acorn::compiler
