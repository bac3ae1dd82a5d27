#include "import/source_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "graph/float_model.h"
#include "import/hugging_face_config.h"
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
  for (const char *family : {"gemma", "phi3", "stablelm", "mixtral", "qwen2_moe", "qwen3_moe", "olmoe"}) {
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
    EXPECT_EQ(got.qk_norm_rows, want.qk_norm_rows);
    EXPECT_EQ(got.qkv_limit, want.qkv_limit);
    EXPECT_EQ(got.experts, want.experts);
    EXPECT_EQ(got.experts_per_token, want.experts_per_token);
    EXPECT_EQ(got.expert_ffn, want.expert_ffn);
    EXPECT_EQ(got.shared_ffn, want.shared_ffn);
    EXPECT_EQ(got.shared_gate, want.shared_gate);
    EXPECT_EQ(got.router_score, want.router_score);
    EXPECT_EQ(got.normalised_experts, want.normalised_experts);
    EXPECT_EQ(got.sparse_layers, want.sparse_layers);
    for (int i = 0; i < 2 * kTensorRoles; ++i) {
      const auto role = static_cast<TensorRole>(i / 2);
      const int64_t layer = i % 2;
      ASSERT_EQ(HasRole(got, role, layer), HasRole(want, role, layer)) << TensorRoleName(role) << " of layer " << layer;
      if (HasRole(want, role, layer)) {
        EXPECT_EQ(file->Load(role, layer), folder->Load(role, layer)) << TensorRoleName(role) << " of layer " << layer;
      }
    }
  }
}

// State-space models and hybrids: the same from both formats, whatever each calls it (in GGUF, Bamba is a Granite).
TEST(SourceModel, GgufEqualsFolderInEveryHybrid) {
  for (const char *family : {"mamba2", "bamba", "granite_h", "granite_h_dense"}) {
    SCOPED_TRACE(family);
    const std::string path = test::DataPath(std::string("small_") + family);
    const auto folder = OpenSourceModel(path), file = OpenSourceModel(path + ".gguf");
    const ModelConfig &want = folder->config(), &got = file->config();
    EXPECT_EQ(got.ssm_layers, want.ssm_layers);
    EXPECT_TRUE(got.HasStateSpace());
    EXPECT_EQ(got.ssm.heads, want.ssm.heads);
    EXPECT_EQ(got.ssm.head_dim, want.ssm.head_dim);
    EXPECT_EQ(got.ssm.state, want.ssm.state);
    EXPECT_EQ(got.ssm.groups, want.ssm.groups);
    EXPECT_EQ(got.ssm.conv_width, want.ssm.conv_width);
    EXPECT_EQ(got.ssm.conv_bias, want.ssm.conv_bias);
    EXPECT_EQ(got.ssm.max_step, want.ssm.max_step);
    EXPECT_EQ(got.ffn, want.ffn);
    EXPECT_EQ(got.heads, want.heads);
    EXPECT_EQ(got.kv_heads, want.kv_heads);
    EXPECT_EQ(got.head_dim, want.head_dim);
    EXPECT_EQ(got.rotary_dims, want.rotary_dims);
    EXPECT_EQ(got.max_context, want.max_context);
    EXPECT_NEAR(got.rms_eps, want.rms_eps, 1e-12);
    EXPECT_EQ(got.tied_head, want.tied_head);
    EXPECT_EQ(got.embedding_scale, want.embedding_scale);
    EXPECT_EQ(got.residual_scale, want.residual_scale);
    EXPECT_EQ(got.attention_scale, want.attention_scale);
    EXPECT_EQ(got.logit_scale, want.logit_scale);
    EXPECT_EQ(got.experts, want.experts);
    EXPECT_EQ(got.expert_ffn, want.expert_ffn);
    EXPECT_EQ(got.shared_ffn, want.shared_ffn);
    EXPECT_EQ(got.shared_gate, want.shared_gate);
    EXPECT_EQ(got.normalised_experts, want.normalised_experts);
    for (int64_t layer = 0; layer < want.layers; ++layer) {
      for (int i = 0; i < kTensorRoles; ++i) {
        const auto role = static_cast<TensorRole>(i);
        ASSERT_EQ(HasRole(got, role, layer), HasRole(want, role, layer)) << TensorRoleName(role) << " of layer " << layer;
        if (!HasRole(want, role, layer)) continue;
        const Matrix a = file->Load(role, layer), b = folder->Load(role, layer);
        ASSERT_EQ(a.rows(), b.rows()) << TensorRoleName(role);
        // exp() of one library may differ from another's in the last bit.
        EXPECT_LE((a - b).cwiseAbs().maxCoeff(), role == TensorRole::kSsmDecay ? 1e-6f : 0.0f) << TensorRoleName(role);
      }
    }
  }
}

TEST(SourceModel, HybridsDifferWhereTheyShould) {
  const auto config = [](const char *family) {
    return OpenSourceModel(test::DataPath(std::string("small_") + family))->config();
  };
  const ModelConfig mamba2 = config("mamba2");
  EXPECT_FALSE(mamba2.HasAttention());
  EXPECT_FALSE(mamba2.HasFfn(0));
  EXPECT_FALSE(HasRole(mamba2, TensorRole::kFfnNorm, 1));
  EXPECT_EQ(mamba2.heads, 0);
  EXPECT_EQ(mamba2.ssm.conv_channels(), 64 + 2 * 2 * 16);
  const ModelConfig bamba = config("bamba");
  EXPECT_EQ(bamba.family, "bamba");
  EXPECT_EQ(bamba.ssm_layers, (std::vector<bool>{true, false, true}));
  EXPECT_EQ(bamba.rotary_dims, 4);
  EXPECT_EQ(bamba.attention_scale, 0);
  const ModelConfig granite = config("granite_h");
  EXPECT_EQ(granite.rotary_dims, 0);
  EXPECT_EQ(granite.shared_ffn, 40);
  EXPECT_EQ(granite.expert_ffn, 24);
  EXPECT_FALSE(granite.shared_gate);
  EXPECT_DOUBLE_EQ(granite.logit_scale, 0.5);
  EXPECT_DOUBLE_EQ(granite.attention_scale, 0.25);
  const ModelConfig dense = config("granite_h_dense");
  EXPECT_EQ(dense.experts, 0);
  EXPECT_EQ(dense.ffn, 40);
  EXPECT_EQ(dense.rotary_dims, 8);
}

TEST(SourceModel, ChecksTheHeadsOfAHybridWithoutAttention) {
  json config = json::parse(test::ReadFile(test::DataPath("small_bamba/config.json")));
  config.erase("attn_layer_indices");
  EXPECT_FALSE(ParseHuggingFaceConfig(config.dump(), "c").HasAttention());
  config["num_key_value_heads"] = INT64_MAX / 2;
  EXPECT_ERROR(ParseHuggingFaceConfig(config.dump(), "c"), kBad, "number of KV heads");
}

TEST(SourceModel, RefusesHybridsByWhatIsWrong) {
  const test::TempFolder copy;
  const auto refuse = [&](const char *family, const char *key, const json &value, const char *message) {
    const std::string folder = test::DataPath(std::string("small_") + family);
    std::string text = test::ReadFile(folder + "/config.json");
    const size_t infinity = text.find("Infinity");
    if (infinity != std::string::npos) text.replace(infinity, 8, "9.5");
    json config = json::parse(text);
    config[key] = value;
    copy.Write("config.json", config.dump());
    copy.Write("model.safetensors", test::ReadFile(folder + "/model.safetensors"));
    EXPECT_ERROR(OpenSourceModel(copy.path()), kBad, message);
  };
  refuse("mamba2", "num_heads", 0, "number of state-space heads 0 is out of range");
  refuse("mamba2", "head_dim", 16, "8 state-space heads of 16 are not 2.0");
  refuse("mamba2", "n_groups", 3, "8 state-space heads are no multiple of 3 groups");
  refuse("mamba2", "n_groups", 9, "number of state-space groups 9 is out of range (1 to 8)");
  refuse("mamba2", "state_size", 0, "state size 0 is out of range");
  refuse("mamba2", "state_size", 8, "in_proj.weight at offset");
  refuse("mamba2", "conv_kernel", 3, "is [128, 4], the configuration wants [128, 3]");
  refuse("mamba2", "conv_kernel", 1000, "width of the convolution 1000 is out of range");
  refuse("mamba2", "use_bias", true, "use_bias, mamba_proj_bias) are not supported");
  refuse("mamba2", "time_step_limit", {0.1}, "time_step_limit is no array of 2 numbers");
  refuse("mamba2", "time_step_limit", {0.1, "x"}, "time_step_limit holds something that is no number");
  refuse("mamba2", "time_step_limit", {2.0, 1.0}, "limits of the time step");
  refuse("mamba2", "num_hidden_layers", 1000000000, "number of layers 1000000000 is out of range");
  refuse("bamba", "mamba_expand", 1e300, "times hidden_size is out of range");
  refuse("bamba", "mamba_expand", -2, "times hidden_size is out of range");
  refuse("bamba", "hidden_size", INT64_MAX, "times hidden_size is out of range");
  refuse("bamba", "head_dim", INT64_MAX, "is out of range");
  refuse("bamba", "num_hidden_layers", -1, "number of layers -1 is out of range");
  refuse("bamba", "attn_layer_indices", {3}, "attn_layer_indices holds something that is no layer of 3");
  refuse("bamba", "attn_layer_indices", {0}, "model.layers.0.self_attn.q_proj.weight is missing");
  refuse("granite_h", "layer_types", {"mamba"}, "layer_types is no array of a name for each of 3 layers");
  refuse("granite_h", "layer_types", {"mamba", "mlp", "mamba"}, "layer_types of layer 1 is not supported");
  refuse("granite_h", "logits_scaling", 0, "logits_scaling");
  refuse("granite_h", "attention_multiplier", -1, "attention_multiplier");
  refuse("granite_h", "residual_multiplier", 0, "residual scale");
  refuse("granite_h", "head_dim", 1, "head size 1 is odd");
  refuse("granite_h", "model_type", "nemotron_h", "Nemotron-H (nemotron_h) is not supported: its FFNs are layers of their own");
}

// Numbers of a GGUF file's metadata (4 bytes behind key and type) and of its tensors.
TEST(SourceModel, RefusesHybridGgufByWhatIsWrong) {
  const test::TempFolder folder;
  const auto refuse = [&](const char *name, const std::string &key, uint32_t value, const char *message) {
    std::string bytes = test::ReadFile(test::DataPath(name));
    const size_t at = bytes.find(key);
    ASSERT_NE(at, std::string::npos) << key;
    std::memcpy(bytes.data() + at + key.size() + 4, &value, sizeof value);
    EXPECT_ERROR(OpenSourceModel(folder.Write("m.gguf", bytes)), kBad, message);
  };
  refuse("small_mamba2.gguf", "mamba2.ssm.time_step_rank", 7, "ssm.inner_size 64 is no multiple of ssm.time_step_rank 7");
  refuse("small_mamba2.gguf", "mamba2.ssm.time_step_rank", 0, "ssm.inner_size 64 is no multiple of ssm.time_step_rank 0");
  refuse("small_mamba2.gguf", "mamba2.ssm.group_count", 5, "no multiple of 5 groups");
  refuse("small_mamba2.gguf", "mamba2.block_count", 1u << 30, "number of layers 1073741824 is out of range");
  refuse("small_bamba.gguf", "granitehybrid.block_count", 2, "head_count_kv is no array of a number for each of 2 layers");
  refuse("small_bamba.gguf", "granitehybrid.ssm.state_size", 8, "ssm_conv1d.weight at offset");

  std::string bytes = test::ReadFile(test::DataPath("small_mamba2.gguf"));
  const uint64_t offset = GgufFile(test::DataPath("small_mamba2.gguf")).FindTensor("blk.1.ssm_a")->offset_bytes;
  const float growing = 0.25f;
  std::memcpy(bytes.data() + offset, &growing, sizeof growing);
  const auto source = OpenSourceModel(folder.Write("m.gguf", bytes));
  EXPECT_NO_THROW(LoadLayer(*source, 0));
  EXPECT_ERROR(LoadLayer(*source, 1), kBad, "ssm_decay of layer 1 holds a value that is not negative");
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
  const ModelConfig mixtral = config("mixtral");
  EXPECT_EQ(mixtral.experts, 4);
  EXPECT_EQ(mixtral.experts_per_token, 2);
  EXPECT_EQ(mixtral.expert_ffn, 24);
  EXPECT_EQ(mixtral.shared_ffn, 0);
  EXPECT_TRUE(mixtral.normalised_experts);
  EXPECT_TRUE(mixtral.IsSparse(0) && mixtral.IsSparse(1));
  const ModelConfig qwen2 = config("qwen2_moe");
  EXPECT_TRUE(!qwen2.IsSparse(0) && qwen2.IsSparse(1));
  EXPECT_EQ(qwen2.expert_ffn, 16);
  EXPECT_EQ(qwen2.shared_ffn, 24);
  EXPECT_TRUE(qwen2.shared_gate && qwen2.q_bias && !qwen2.normalised_experts);
  EXPECT_EQ(qwen2.sliding_window, 0);
  const ModelConfig qwen3 = config("qwen3_moe");
  EXPECT_TRUE(qwen3.normalised_experts && qwen3.qk_norm && !qwen3.qk_norm_rows && !qwen3.q_bias);
  const ModelConfig olmoe = config("olmoe");
  EXPECT_TRUE(olmoe.qk_norm && olmoe.qk_norm_rows && !olmoe.normalised_experts);
  EXPECT_DOUBLE_EQ(olmoe.qkv_limit, 1.5);
}

// Whether a source keeps experts apart or in one tensor, gate and up apart or together: the same rows.
TEST(SourceModel, ExpertsAreRowsOfOneTensor) {
  for (const char *family : {"mixtral", "qwen3_moe"}) {
    SCOPED_TRACE(family);
    const auto source = OpenSourceModel(test::DataPath(std::string("small_") + family));
    const ModelConfig &config = source->config();
    for (const TensorRole role : {TensorRole::kExpertGate, TensorRole::kExpertUp, TensorRole::kExpertDown}) {
      const Matrix all = source->Load(role, 1);
      const int64_t rows = all.rows() / config.experts;
      EXPECT_EQ(rows, role == TensorRole::kExpertDown ? config.hidden : config.expert_ffn);
      EXPECT_EQ(all.cols(), role == TensorRole::kExpertDown ? config.expert_ffn : config.hidden);
      for (int64_t expert = 0; expert < config.experts; ++expert) {
        EXPECT_EQ(source->LoadExpert(role, 1, expert), all.middleRows(expert * rows, rows));
      }
      EXPECT_EQ(source->LoadRows(role, 1, rows - 3, rows + 5), all.middleRows(rows - 3, rows + 5));
      EXPECT_ERROR(source->LoadExpert(role, 1, config.experts), kBad, "has no rows");
    }
    EXPECT_ERROR(source->Load(TensorRole::kGate, 1), kBad, "there is no gate in layer 1");
  }
}

TEST(SourceModel, RefusesMixturesThatMakeNoSense) {
  const test::TempFolder copy;
  const auto refuse = [&](const char *family, const char *key, const json &value, const char *message) {
    const std::string folder = test::DataPath(std::string("small_") + family);
    copy.Write("model.safetensors", test::ReadFile(folder + "/model.safetensors"));
    json config = json::parse(test::ReadFile(folder + "/config.json"));
    config[key] = value;
    copy.Write("config.json", config.dump());
    EXPECT_ERROR(OpenSourceModel(copy.path()), kBad, message);
  };
  refuse("mixtral", "num_local_experts", 0, "num_local_experts 0 is out of range");
  refuse("mixtral", "num_local_experts", 5, "is [4, 32], the configuration wants [5, 32]");
  refuse("mixtral", "num_local_experts", 3, "is [4, 32], the configuration wants [3, 32]");
  refuse("mixtral", "num_experts_per_tok", 5, "number of experts of a token 5 is out of range (1 to 4)");
  refuse("mixtral", "num_experts_per_tok", nullptr, "num_experts_per_tok is missing");
  refuse("qwen2_moe", "num_experts", -1, "num_experts -1 is out of range");
  refuse("qwen2_moe", "moe_intermediate_size", 0, "FFN size of an expert 0 is out of range");
  refuse("qwen2_moe", "shared_expert_intermediate_size", 0, "FFN size of the shared expert 0 is out of range");
  refuse("qwen2_moe", "decoder_sparse_step", 0, "decoder_sparse_step 0 is out of range");
  refuse("qwen2_moe", "mlp_only_layers", 0, "mlp_only_layers is no array");
  refuse("qwen2_moe", "mlp_only_layers", {"0"}, "mlp_only_layers holds something that is no layer");
  refuse("qwen2_moe", "mlp_only_layers", json::array(), "layers.0.mlp.shared_expert.gate_proj.weight is missing");
  refuse("qwen3_moe", "num_local_experts", 5, "is [6, 32], the configuration wants [5, 32]");
  refuse("qwen3_moe", "moe_intermediate_size", 8, "is [6, 32, 32], the configuration wants [6, 16, 32]");
  refuse("olmoe", "clip_qkv", -1, "limit of q, k and v");
}

TEST(SourceModel, RefusesGgufMixturesThatMakeNoSense) {
  const test::TempFolder folder;
  // The first place of `from` becomes `to`, of the same length.
  const auto refuse = [&](const char *family, const std::string &from, const std::string &to, const char *message) {
    std::string bytes = test::ReadFile(test::DataPath(std::string("small_") + family + ".gguf"));
    const size_t at = bytes.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    ASSERT_EQ(from.size(), to.size());
    bytes.replace(at, from.size(), to);
    EXPECT_ERROR(OpenSourceModel(folder.Write("m.gguf", bytes)), kBad, message);
  };
  const std::string used("expert_used_count\x04\0\0\0\x02", 22), too_many("expert_used_count\x04\0\0\0\x09", 22);
  const std::string count("expert_count\x04\0\0\0\x04", 17), none("expert_count\x04\0\0\0\0", 17);
  refuse("mixtral", used, too_many, "number of experts of a token 9 is out of range (1 to 4)");
  refuse("mixtral", "expert_used_count", "expert_user_count", "llama.expert_used_count is missing");
  refuse("olmoe", count, none, "olmoe.expert_count is 0 or missing");
  refuse("mixtral", "blk.0.ffn_gate_exps.weight", "blk.0.ffn_gate_expx.weight", "blk.0.ffn_gate_exps.weight is missing");
  refuse("mixtral", "blk.1.ffn_gate_inp.weight", "blk.1.ffn_gate_ixp.weight", "blk.1.ffn_gate_inp.weight is missing");
  refuse("qwen2_moe", "blk.1.ffn_up_shexp.weight", "blk.1.ffn_up_shxxp.weight", "blk.1.ffn_up_shexp.weight is missing");
  const std::string width("expert_feed_forward_length\x04\0\0\0\x10", 31), half("expert_feed_forward_length\x04\0\0\0\x08", 31);
  refuse("qwen2_moe", width, half, "is [5, 16, 32], the configuration wants [5, 8, 32]");
}

// Before experts were stacked, each had tensors of its own. The other name keeps the file's length.
TEST(SourceModel, RefusesTheEarlyFormOfGgufMixtures) {
  std::string bytes = test::ReadFile(test::DataPath("small_mixtral.gguf"));
  const auto rename = [&](const std::string &from, const std::string &to) {
    const size_t at = bytes.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    bytes[at - 8] = static_cast<char>(to.size());
    bytes.replace(at, from.size(), to);
  };
  rename("blk.0.ffn_gate_exps.weight", "blk.0.ffn_gate.0.weight");
  rename("blk.0.attn_norm.weight", "blk.0.attn_norm.weight.of");
  const test::TempFolder folder;
  EXPECT_ERROR(OpenSourceModel(folder.Write("m.gguf", bytes)), kBad, "blk.0.ffn_gate.0.weight), an early form of GGUF");
}

// Qwen's switches: which layers are sparse, and that none may be.
TEST(SourceModel, SparseLayersByStepAndByNumber) {
  const test::TempFolder copy;
  const std::string folder = test::DataPath("small_qwen2_moe");
  copy.Write("model.safetensors", test::ReadFile(folder + "/model.safetensors"));
  json config = json::parse(test::ReadFile(folder + "/config.json"));
  config["mlp_only_layers"] = nullptr;
  config["decoder_sparse_step"] = 2;
  copy.Write("config.json", config.dump());
  EXPECT_EQ(OpenSourceModel(copy.path())->config().sparse_layers, (std::vector<bool>{false, true}));
  config["num_hidden_layers"] = 1;
  copy.Write("config.json", config.dump());
  const auto dense = OpenSourceModel(copy.path());
  EXPECT_EQ(dense->config().experts, 0);
  EXPECT_FALSE(dense->config().IsSparse(0));
  EXPECT_EQ(dense->Load(TensorRole::kGate, 0).rows(), 40);
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

TEST_F(Folder, ReadsWindowsOfSomeLayers) {
  json config = SmallConfig();
  const auto windows = [&] {
    const auto source = Open(config);
    std::vector<int64_t> all;
    for (int64_t layer = 0; layer < source->config().layers; ++layer) all.push_back(source->config().WindowOf(layer));
    return all;
  };
  const int64_t layers = static_cast<int64_t>(windows().size());
  ASSERT_EQ(layers, 2);
  config["model_type"] = "mistral";
  config["sliding_window"] = 32;
  EXPECT_EQ(windows(), (std::vector<int64_t>{32, 32}));
  config["layer_types"] = {"full_attention", "sliding_attention"};
  EXPECT_EQ(windows(), (std::vector<int64_t>{0, 32}));
  config["layer_types"] = {"full_attention", "full_attention"};
  EXPECT_EQ(windows(), (std::vector<int64_t>{0, 0}));
  config["layer_types"] = {"full_attention", "chunked_attention"};
  EXPECT_ERROR(Open(config), kBad, "layer_types");
  config["layer_types"] = json::array({"full_attention"});
  EXPECT_ERROR(Open(config), kBad, "layer_types");
  json endless = config;  // nothing is as long as it says before it is looked at
  endless["num_hidden_layers"] = int64_t{1} << 60;
  EXPECT_ERROR(Open(endless), kBad, "number of layers");
  // By the user, whatever the source says.
  config["layer_types"] = {"full_attention", "sliding_attention"};
  Open(config);
  SourceOptions options;
  options.window = 9;
  const auto chosen = OpenSourceModel(folder_.path(), options);
  EXPECT_EQ(chosen->config().WindowOf(0), 9);
  EXPECT_EQ(chosen->config().WindowOf(1), 9);
  EXPECT_TRUE(chosen->config().chosen_window);
  options.window = chosen->config().max_context - 1;
  EXPECT_ERROR(OpenSourceModel(folder_.path(), options), ExitCode::kUsage, "trained for");
}

TEST(SourceModel, QwenHasWindowsFromALayerOn) {
  const ModelConfig qwen2 = OpenSourceModel(test::DataPath("small_qwen2"))->config();
  EXPECT_EQ(qwen2.WindowOf(0), 0);
  EXPECT_EQ(qwen2.WindowOf(1), 6);
  EXPECT_EQ(qwen2.WindowOf(2), 6);
  SourceOptions options;
  options.window = 9;
  EXPECT_ERROR(OpenSourceModel(test::DataPath("small_mamba2"), options), ExitCode::kUsage, "attention");
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
  const auto refuse_text = [&](const std::string &value, const char *message) {
    folder_.Write("config.json", R"({"model_type":"llama","eos_token_id":)" + value + "}");
    EXPECT_ERROR(OpenSourceModel(folder_.path()), kBad, message);
  };
  refuse_text("1e427", "a number that is out of range");
  refuse_text(std::string(1000000, '[') + std::string(1000000, ']'), "more than 64 objects and arrays in one another");
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
