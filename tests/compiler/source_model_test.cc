#include "import/source_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "graph/float_model.h"
#include "tests/compiler/expect_error.h"
#include "tests/support/shared_data.h"
#include "tests/support/temp_folder.h"

namespace acorn::compiler {
namespace {

using nlohmann::json;
constexpr ExitCode kBad = ExitCode::kBadModel;

json SmallConfig() { return json::parse(test::ReadFile(test::DataPath("small_llama/config.json"))); }

// A copy of small_llama whose config.json can be changed.
class Folder : public testing::Test {
 protected:
  void SetUp() override {
    for (const auto &entry : std::filesystem::directory_iterator(test::DataPath("small_llama"))) {
      std::filesystem::copy(entry.path(), folder_.path());
    }
  }
  std::unique_ptr<SourceModel> Open(const json &config) {
    folder_.Write("config.json", config.dump());
    return OpenSourceModel(folder_.path());
  }

  test::TempFolder folder_;
};

TEST(SourceModel, ReadsHuggingFaceFolder) {
  const auto source = OpenSourceModel(test::DataPath("small_llama"));
  const ModelConfig &config = source->config();
  EXPECT_EQ(source->format(), SourceFormat::kHuggingFace);
  EXPECT_EQ(config.family, "llama");
  EXPECT_EQ(config.hidden, 64);
  EXPECT_EQ(config.layers, 2);
  EXPECT_EQ(config.ffn, 96);
  EXPECT_EQ(config.heads, 4);
  EXPECT_EQ(config.kv_heads, 2);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.rotary_dims, 16);
  EXPECT_EQ(config.vocab, 128);
  EXPECT_EQ(config.max_context, 256);
  EXPECT_DOUBLE_EQ(config.rope.theta, 20000.0);
  EXPECT_FALSE(config.tied_head);
  EXPECT_EQ(config.bos_id, 1);
  EXPECT_EQ(config.eos_ids, std::vector<int32_t>{2});
  EXPECT_EQ(source->SourceBytes(), source->SourceElems() * 2);
  EXPECT_EQ(source->Load(TensorRole::kDown, 1).rows(), 64);
  EXPECT_EQ(source->Load(TensorRole::kDown, 1).cols(), 96);
  const Matrix q = source->Load(TensorRole::kQ, 1);
  EXPECT_EQ(source->LoadRows(TensorRole::kQ, 1, 5, 7), q.middleRows(5, 7));
  EXPECT_ERROR(source->LoadRows(TensorRole::kQ, 1, 60, 5), kBad, "has no rows");
  EXPECT_ERROR(source->Load(TensorRole::kQBias, 0), kBad, "no q_bias in layer 0");
  EXPECT_ERROR(source->Load(TensorRole::kQ, 2), kBad, "no q in layer 2");
}

// The GGUF file holds the same weights rounded to Q8_0, q and k rows in rotary pairs.
TEST(SourceModel, GgufEqualsFolderUpToRounding) {
  const auto folder = OpenSourceModel(test::DataPath("small_llama"));
  const auto gguf = OpenSourceModel(test::DataPath("small_llama.gguf"));
  EXPECT_EQ(gguf->format(), SourceFormat::kGguf);
  EXPECT_NE(gguf->tokenizer().gguf, nullptr);
  EXPECT_EQ(gguf->config().vocab, 128);
  EXPECT_EQ(gguf->config().max_context, 256);
  EXPECT_DOUBLE_EQ(gguf->config().rope.theta, 20000.0);
  EXPECT_NEAR(gguf->config().rms_eps, 1e-5, 1e-12);
  for (int role = 0; role < kTensorRoles; ++role) {
    if (!HasRole(gguf->config(), static_cast<TensorRole>(role))) continue;
    const Matrix want = folder->Load(static_cast<TensorRole>(role), 1);
    const Matrix got = gguf->Load(static_cast<TensorRole>(role), 1);
    // The block with the largest value: half a step of rounding, and its scale is rounded to 11 bits.
    const float step = want.cwiseAbs().maxCoeff() / 127.0f;
    EXPECT_LE((want - got).cwiseAbs().maxCoeff(), (0.501f + 127.0f / 2048.0f) * step)
        << TensorRoleName(static_cast<TensorRole>(role));
  }
}

// What the two formats call differently or store differently comes out the same.
TEST(SourceModel, GgufEqualsFolderInEveryFamily) {
  for (const char *family : {"gemma", "phi3", "stablelm"}) {
    SCOPED_TRACE(family);
    const std::string path = test::DataPath(std::string("small_") + family);
    const auto folder = OpenSourceModel(path), file = OpenSourceModel(path + ".gguf");
    const ModelConfig &want = folder->config(), &got = file->config();
    EXPECT_EQ(want.family, family);
    EXPECT_EQ(got.family, want.family);
    EXPECT_EQ(got.head_dim, want.head_dim);
    EXPECT_EQ(got.rotary_dims, want.rotary_dims);
    EXPECT_EQ(got.max_context, want.max_context);
    EXPECT_EQ(got.norm, want.norm);
    EXPECT_NEAR(got.rms_eps, want.rms_eps, 1e-12);
    EXPECT_EQ(got.activation, want.activation);
    EXPECT_EQ(got.tied_head, want.tied_head);
    EXPECT_EQ(got.embedding_scale, want.embedding_scale);
    EXPECT_EQ(got.q_bias, want.q_bias);
    EXPECT_EQ(got.sliding_window, want.sliding_window);
    EXPECT_EQ(got.rope.kind, want.rope.kind);
    EXPECT_NEAR(got.rope.attention_factor, want.rope.attention_factor, 1e-7);
    for (int role = 0; role < kTensorRoles; ++role) {
      const auto kind = static_cast<TensorRole>(role);
      ASSERT_EQ(HasRole(got, kind), HasRole(want, kind)) << TensorRoleName(kind);
      if (HasRole(want, kind)) {
        EXPECT_EQ(file->Load(kind, 1), folder->Load(kind, 1)) << TensorRoleName(kind);
      }
    }
  }
}

TEST(SourceModel, FamiliesDifferWhereTheyShould) {
  const auto config = [](const char *family) {
    return OpenSourceModel(test::DataPath(std::string("small_") + family))->config();
  };
  const ModelConfig gemma = config("gemma");
  EXPECT_EQ(gemma.activation, ActivationKind::kGeluTanh);  // whatever hidden_act says
  EXPECT_TRUE(gemma.tied_head);
  EXPECT_DOUBLE_EQ(gemma.embedding_scale, std::sqrt(32.0));
  EXPECT_EQ(gemma.head_dim, 16);
  const ModelConfig phi3 = config("phi3");
  EXPECT_EQ(phi3.rotary_dims, 12);
  EXPECT_EQ(phi3.max_context, 32);
  EXPECT_EQ(phi3.sliding_window, 24);
  EXPECT_GT(phi3.rope.attention_factor, 1);
  const ModelConfig stablelm = config("stablelm");
  EXPECT_EQ(stablelm.norm, NormKind::kLayer);
  EXPECT_EQ(stablelm.rotary_dims, 4);
  EXPECT_TRUE(stablelm.q_bias && stablelm.k_bias && stablelm.v_bias && !stablelm.o_bias);
}

TEST(SourceModel, FusedTensorsOfAnotherShapeAreRefused) {
  const test::TempFolder copy;
  const std::string folder = test::DataPath("small_phi3");
  std::filesystem::copy(folder + "/model.safetensors", copy.File("model.safetensors"));
  json config = json::parse(test::ReadFile(folder + "/config.json"));
  config["num_key_value_heads"] = 2;
  copy.Write("config.json", config.dump());
  EXPECT_ERROR(OpenSourceModel(copy.path()), kBad, "qkv_proj.weight at offset");
  EXPECT_ERROR(OpenSourceModel(copy.path()), kBad, "is [64, 32], the configuration wants [96, 32]");
}

TEST(SourceModel, Llama2cEqualsFolder) {
  const auto folder = OpenSourceModel(test::DataPath("small_llama"));
  const auto file = OpenSourceModel(test::DataPath("small_llama.bin"), {test::DataPath("small_llama/config.json")});
  EXPECT_EQ(file->format(), SourceFormat::kLlama2c);
  EXPECT_EQ(file->tokenizer().llama2c_bin, test::DataPath("small_llama/config.json"));
  EXPECT_TRUE(file->config().tied_head);
  EXPECT_EQ(file->config().ffn, 32);
  for (const TensorRole role : {TensorRole::kEmbedding, TensorRole::kQ, TensorRole::kK, TensorRole::kV, TensorRole::kO,
                                TensorRole::kAttnNorm, TensorRole::kFfnNorm, TensorRole::kFinalNorm}) {
    EXPECT_EQ(file->Load(role), folder->Load(role)) << TensorRoleName(role);
  }
  EXPECT_EQ(file->Load(TensorRole::kGate), folder->LoadRows(TensorRole::kGate, 0, 0, 32));
  EXPECT_EQ(file->Load(TensorRole::kUp), folder->LoadRows(TensorRole::kUp, 0, 0, 32));
  EXPECT_EQ(file->Load(TensorRole::kDown), folder->Load(TensorRole::kDown).leftCols(32));
  EXPECT_EQ(file->Load(TensorRole::kHead), file->Load(TensorRole::kEmbedding));
}

TEST(SourceModel, RefusesDamagedLlama2c) {
  const std::string whole = test::ReadFile(test::DataPath("small_llama.bin"));
  const test::TempFolder folder;
  const auto open = [&](const std::string &bytes) { OpenSourceModel(folder.Write("m.bin", bytes)); };
  EXPECT_ERROR(open("short"), kBad, "neither a GGUF file nor a llama2.c checkpoint");
  EXPECT_ERROR(open(whole.substr(0, 60000)), kBad, "llama2.c checkpoint: ");
  EXPECT_ERROR(open(whole + "x"), kBad, "its header asks for");
  EXPECT_ERROR(open("24ka" + whole.substr(4)), kBad, "later version");
  EXPECT_ERROR(open(std::string(64, '\x7f')), kBad, "llama2.c checkpoint");
  std::string nan = whole;
  std::memset(nan.data() + 28, 0xff, 4);
  EXPECT_ERROR(OpenSourceModel(folder.Write("n.bin", nan))->Load(TensorRole::kEmbedding), kBad, "not finite");
}

TEST(SourceModel, RefusesWhatIsNotThere) {
  const test::TempFolder folder;
  EXPECT_ERROR(OpenSourceModel(folder.File("absent")), ExitCode::kIo, "there is no such file");
  EXPECT_ERROR(OpenSourceModel(folder.path()), ExitCode::kIo, "config.json");
  EXPECT_ERROR(OpenSourceModel(test::DataPath("small_llama.bin"), {folder.File("absent")}), ExitCode::kIo, "no such tokenizer");
}

TEST_F(Folder, ReadsBothSpellings) {
  json config = SmallConfig();
  config["rope_scaling"] = {{"type", "linear"}, {"factor", 4.0}};
  EXPECT_EQ(Open(config)->config().rope.kind, RopeKind::kLinear);
  EXPECT_DOUBLE_EQ(Open(config)->config().rope.factor, 4.0);
  EXPECT_DOUBLE_EQ(Open(config)->config().rope.theta, 20000.0);

  const json llama3 = {{"rope_type", "llama3"},
                       {"factor", 8.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 64}};
  config["rope_scaling"] = llama3;
  EXPECT_EQ(Open(config)->config().rope.kind, RopeKind::kLlama3);
  EXPECT_DOUBLE_EQ(Open(config)->config().rope.theta, 20000.0);

  config.erase("rope_scaling");
  config.erase("rope_theta");
  config["rope_parameters"] = llama3;
  config["rope_parameters"]["rope_theta"] = 500000.0;
  const ModelConfig newer = Open(config)->config();
  EXPECT_EQ(newer.rope.kind, RopeKind::kLlama3);
  EXPECT_DOUBLE_EQ(newer.rope.theta, 500000.0);
  EXPECT_EQ(newer.rope.original_context, 64);

  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 1e6}, {"partial_rotary_factor", 0.5}};
  EXPECT_EQ(Open(config)->config().rotary_dims, 8);
  config["rope_parameters"] = {{"rope_type", "yarn"}, {"factor", 4.0}};
  EXPECT_ERROR(Open(config), kBad, "rope type 'yarn' is not supported");
}

TEST_F(Folder, LongRopeHoldsWithinTheOriginalContext) {
  json config = SmallConfig();
  config["rope_scaling"] = {{"type", "longrope"}, {"short_factor", {1, 1, 2, 2, 3, 3, 4, 4.5}}, {"long_factor", {8}}};
  config["original_max_position_embeddings"] = 64;
  const ModelConfig read = Open(config)->config();
  EXPECT_EQ(read.rope.kind, RopeKind::kDivisors);
  EXPECT_EQ(read.rope.divisors, (std::vector<double>{1, 1, 2, 2, 3, 3, 4, 4.5}));
  EXPECT_EQ(read.max_context, 64);  // of 256
  EXPECT_DOUBLE_EQ(read.rope.attention_factor, std::sqrt(1 + std::log(4.0) / std::log(64.0)));

  config["rope_scaling"]["type"] = "su";
  config["rope_scaling"]["original_max_position_embeddings"] = 128;
  config["rope_scaling"]["attention_factor"] = 1.25;
  EXPECT_EQ(Open(config)->config().max_context, 128);
  EXPECT_DOUBLE_EQ(Open(config)->config().rope.attention_factor, 1.25);

  // The factor is part of the layer's weights, where they are rotated.
  config["rope_scaling"]["partial_rotary_factor"] = 0.5;
  config["rope_scaling"]["short_factor"] = {1, 1, 1, 1};
  const auto source = Open(config);
  Matrix want = source->Load(TensorRole::kK, 1);
  for (int64_t row = 0; row < want.rows(); ++row) {
    if (row % 16 < 8) want.row(row) *= 1.25f;
  }
  EXPECT_EQ(LoadLayer(*source, 1).k, want);

  config["rope_scaling"]["short_factor"] = {1, 1, 1};
  EXPECT_ERROR(Open(config), kBad, "short_factor is no array of 4 numbers");
  config["rope_scaling"]["short_factor"] = {1, 1, 1, "1"};
  EXPECT_ERROR(Open(config), kBad, "short_factor holds something that is no number");
  config["rope_scaling"]["short_factor"] = {1, 1, 1, 0};
  EXPECT_ERROR(Open(config), kBad, "rope divisor");
  config["rope_scaling"].erase("original_max_position_embeddings");
  config.erase("original_max_position_embeddings");
  EXPECT_ERROR(Open(config), kBad, "original_max_position_embeddings is missing");
}

TEST_F(Folder, ReadsDefaultsAndTokens) {
  json config = SmallConfig();
  config["head_dim"] = nullptr;
  EXPECT_EQ(Open(config)->config().head_dim, 16);
  config["eos_token_id"] = {2, 5};
  folder_.Write("generation_config.json", R"({"eos_token_id":[5,9]})");
  EXPECT_EQ(Open(config)->config().eos_ids, (std::vector<int32_t>{2, 5, 9}));
  config["bos_token_id"] = nullptr;
  EXPECT_EQ(Open(config)->config().bos_id, -1);
  config["sliding_window"] = 32;
  config["model_type"] = "mistral";
  EXPECT_EQ(Open(config)->config().sliding_window, 32);
  config["hidden_act"] = "gelu_pytorch_tanh";
  EXPECT_EQ(Open(config)->config().activation, ActivationKind::kGeluTanh);
}

TEST_F(Folder, RefusesConfigs) {
  const auto refuse = [&](const char *key, const json &value, const char *message) {
    json config = SmallConfig();
    config[key] = value;
    EXPECT_ERROR(Open(config), kBad, message);
  };
  refuse("model_type", "falcon", "model family 'falcon' is not supported; known are: llama (");
  refuse("hidden_size", "64", "hidden_size is no integer");
  refuse("hidden_size", nullptr, "hidden_size is missing");
  refuse("hidden_size", -64, "hidden size -64 is out of range");
  refuse("num_hidden_layers", 1e9, "no integer");
  refuse("num_hidden_layers", 1000000000, "number of layers 1000000000 is out of range");
  refuse("num_attention_heads", 0, "num_attention_heads is out of range");
  refuse("num_key_value_heads", 3, "no multiple of 3 KV heads");
  refuse("head_dim", 15, "rotary dims");
  refuse("rms_norm_eps", 0, "RMSNorm epsilon");
  refuse("hidden_act", "relu", "hidden_act 'relu' is not supported");
  refuse("use_parallel_residual", true, "use_parallel_residual is not supported");
  refuse("qk_layernorm", true, "qk_layernorm is not supported");
  refuse("use_bidirectional_attention", true, "use_bidirectional_attention is not supported");
  refuse("quantization_config", {{"bits", 4}}, "quantised already");
  refuse("intermediate_size", 128, "the configuration wants [128, 64]");
  refuse("num_hidden_layers", 3, "tensor model.layers.2.");
  refuse("attention_bias", true, "q_proj.bias is missing");
  refuse("eos_token_id", 128, "end token 128 is outside the vocabulary");
  refuse("eos_token_id", "x", "eos_token_id is no token id");
}

TEST_F(Folder, RefusesBrokenShards) {
  const std::string shard = "model-00002-of-00002.safetensors";
  const std::string bytes = test::ReadFile(folder_.File(shard));
  folder_.Write(shard, bytes.substr(0, bytes.size() - 1));
  EXPECT_ERROR(OpenSourceModel(folder_.path()), kBad, shard);
  std::filesystem::remove(folder_.File(shard));
  EXPECT_ERROR(OpenSourceModel(folder_.path()), ExitCode::kIo, shard);
  folder_.Write("model.safetensors.index.json", R"({"weight_map":{"a":"../secret.safetensors"}})");
  EXPECT_ERROR(OpenSourceModel(folder_.path()), kBad, "no name of a file in the folder");
  folder_.Write("model.safetensors.index.json", R"({"weight_map":{"a":"model-00001-of-00002.safetensors"}})");
  EXPECT_ERROR(OpenSourceModel(folder_.path()), kBad, "is missing");
}

}  // namespace
}  // namespace acorn::compiler
