// Made-up models: their geometry, that they are the same again, and that they behave as their header promises.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <set>

#include "base/progress.h"
#include "synth/geometry.h"
#include "synth/random_model.h"
#include "tests/compiler/expect_error.h"
#include "tests/support/model_session.h"
#include "tests/support/temp_folder.h"

namespace acorn::compiler {
namespace {

/// The line of progress is for people.
[[maybe_unused]] const bool kSilent = (Progress::Silence(), true);

constexpr char kSmall[] = R"({"model_type": "qwen3_moe", "hidden_size": 128, "intermediate_size": 96, "moe_intermediate_size": 64,
  "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "num_experts": 32,
  "num_experts_per_tok": 4, "norm_topk_prob": true, "vocab_size": 500, "max_position_embeddings": 2048, "rope_theta": 10000.0,
  "rms_norm_eps": 1e-06, "tie_word_embeddings": %s})";
constexpr uint32_t kExperts = 32, kTopK = 4;

std::string Small(bool tied) {
  std::string text = kSmall;
  return text.replace(text.find("%s"), 2, tied ? "true" : "false");
}

std::string Make(const ModelConfig &config, WeightFormat format, uint64_t seed) {
  const test::TempFolder folder;
  ModelFacts facts;
  facts.name = "synth";
  facts.family = config.family;
  facts.vocab_size = static_cast<uint32_t>(config.vocab);
  facts.max_context = 600;
  RecipeOptions options;
  options.body_format = format;
  FileSink sink(config, folder.File("m"));
  MakeRandomModel(config, options, seed, &sink);
  sink.Finish(facts);
  return test::ReadFile(folder.File("m"));
}

test::AlignedBytes Aligned(const std::string &file) { return test::AlignedBytes(std::vector<uint8_t>(file.begin(), file.end())); }

TEST(Geometry, NamesAndFiles) {
  const std::set<std::string> mixtures = {"olmoe-1b-7b", "qwen3-30b-a3b", "mixtral-8x7b"};
  for (const std::string &name : GeometryNames()) {
    const ModelConfig config = FindGeometry(name, 0, 0);
    EXPECT_EQ(config.experts > 0, mixtures.count(name) != 0) << name;
    for (int64_t layer = 0; layer < config.layers; ++layer) EXPECT_EQ(config.IsSparse(layer), config.experts > 0) << name;
  }
  const ModelConfig llama = FindGeometry("llama-3.2-1b", 0, 0);
  EXPECT_EQ(llama.vocab, 128256);
  EXPECT_TRUE(llama.tied_head);
  const ModelConfig mixtral = FindGeometry("mixtral-8x7b", 0, 0);
  EXPECT_EQ(mixtral.hidden, 4096);
  EXPECT_EQ(mixtral.expert_ffn, 14336);
  EXPECT_TRUE(mixtral.normalised_experts);
  EXPECT_TRUE(FindGeometry("olmoe-1b-7b", 0, 0).qk_norm_rows);

  const test::TempFolder folder;
  const std::string path = folder.Write("small.json", Small(false));
  const ModelConfig changed = FindGeometry(path, 12, 9);
  EXPECT_EQ(changed.experts, 12);
  EXPECT_EQ(changed.layers, 9);
  EXPECT_EQ(changed.sparse_layers.size(), 9u);
  EXPECT_EQ(changed.expert_ffn, 64);
  EXPECT_ERROR(FindGeometry("olmo", 0, 0), ExitCode::kUsage, "olmoe-1b-7b");
  EXPECT_ERROR(FindGeometry(path, 3, 0), ExitCode::kUsage, "visits 4");
  EXPECT_ERROR(FindGeometry(folder.Write("bad.json", "{\"model_type\": \"olmoe\"}"), 0, 0), ExitCode::kBadModel, "hidden_size");
}

TEST(RandomModel, IsTheSameAgain) {
  const test::TempFolder folder;
  const ModelConfig config = FindGeometry(folder.Write("small.json", Small(false)), 8, 2);
  const std::string once = Make(config, WeightFormat::kW4G32, 3);
  EXPECT_EQ(Make(config, WeightFormat::kW4G32, 3), once);
  EXPECT_NE(Make(config, WeightFormat::kW4G32, 4), once);
}

struct Choices {
  std::vector<std::set<uint16_t>> layers[6];  // by token
};

void Collect(void *ctx, uint32_t layer, const acorn_route *routes, size_t tokens, size_t top_k) {
  for (size_t token = 0; token < tokens; ++token) {
    std::set<uint16_t> chosen;
    for (size_t k = 0; k < top_k; ++k) chosen.insert(routes[token * top_k + k].expert);
    static_cast<Choices *>(ctx)->layers[layer].push_back(chosen);
  }
}

// Logits of a spread that the head was given, different for different tokens; routers that come back to what they had, the more
// so the further up, and no layer that always takes the same.
TEST(RandomModel, BehavesInEveryFormat) {
  const test::TempFolder folder;
  for (const bool tied : {false, true}) {
    const ModelConfig config = FindGeometry(folder.Write("small.json", Small(tied)), 0, 0);
    for (const WeightFormat format : {WeightFormat::kW4G32, WeightFormat::kW8}) {
      SCOPED_TRACE(std::string(tied ? "tied, format " : "format ") + std::to_string(static_cast<int>(format)));
      test::ModelSession session(Aligned(Make(config, format, 1)));
      ASSERT_EQ(session.status(), ACORN_OK);
      Choices choices;
      acorn_session_set_routing_hook(session.session(), Collect, &choices);
      std::vector<int32_t> ids;
      for (int i = 0; i < 300; ++i) ids.push_back(i * 7919 % 499);
      const std::vector<int32_t> logits = session.Score(ids);
      ASSERT_EQ(logits.size(), 300u * 500);
      acorn_model_info info = {};
      info.struct_size = sizeof info;
      ASSERT_EQ(acorn_model_get_info(session.model(), &info), ACORN_OK);
      const double unit = std::ldexp(static_cast<double>(info.logit_multiplier), -info.logit_shift) / 65536;
      double squares = 0;
      for (const int32_t logit : logits) squares += std::pow(logit * unit, 2);
      EXPECT_NEAR(std::sqrt(squares / static_cast<double>(logits.size())), 2.5, 0.5);
      std::set<int64_t> best;
      for (size_t row = 0; row < 300; ++row) {
        const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(row * 500);
        best.insert(std::max_element(begin, begin + 500) - begin);
      }
      EXPECT_GT(best.size(), 30u);
      for (const auto &tokens : choices.layers) {
        double repeated = 0;
        std::set<uint16_t> used;
        for (size_t token = 1; token < tokens.size(); ++token) {
          for (const uint16_t expert : tokens[token]) repeated += static_cast<double>(tokens[token - 1].count(expert));
          used.insert(tokens[token].begin(), tokens[token].end());
        }
        repeated /= static_cast<double>((tokens.size() - 1) * kTopK);
        EXPECT_GT(repeated, 1.1 * kTopK / kExperts);
        EXPECT_LT(repeated, 0.85);
        EXPECT_GT(used.size(), kExperts / 2);
      }
    }
  }
}

TEST(RandomModel, DenseAndSharedExpertsToo) {
  const test::TempFolder folder;
  const std::string shared = R"({"model_type": "qwen2_moe", "hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 100, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 2,
    "num_experts": 6, "num_experts_per_tok": 2, "decoder_sparse_step": 2, "vocab_size": 90, "max_position_embeddings": 256,
    "rope_theta": 10000.0, "rms_norm_eps": 1e-06})";
  const std::string dense = R"({"model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 2, "vocab_size": 90, "max_position_embeddings": 256, "rms_norm_eps": 1e-06})";
  for (const std::string &text : {shared, dense}) {
    const ModelConfig config = FindGeometry(folder.Write("config.json", text), 0, 0);
    test::ModelSession session(Aligned(Make(config, WeightFormat::kW4G32, 1)));
    ASSERT_EQ(session.status(), ACORN_OK);
    EXPECT_EQ(session.Score({1, 2, 3}).size(), 3u * 90);
  }
}

}  // namespace
}  // namespace acorn::compiler
