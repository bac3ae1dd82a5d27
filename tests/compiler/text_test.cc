// Tokenizers of published models against ids from their own libraries. All of it needs the shared data.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "import/gguf.h"
#include "import/source_model.h"
#include "tests/support/opened_tokenizer.h"
#include "tests/support/shared_data.h"
#include "tests/support/temp_folder.h"
#include "text/source_tokenizer.h"
#include "text/tokenizer_model.h"

namespace acorn::test {
namespace {

using compiler::TokenizerModel;
using nlohmann::json;

// Inputs stand between separator lines; the newline before a separator is not part of the input.
std::vector<std::string> VectorInputs(const std::string &path) {
  const std::string text = ReadFile(path), separator = "\n__ggml_vocab_test__\n";
  std::vector<std::string> inputs;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find(separator, at);
    inputs.push_back(text.substr(at, end == std::string::npos ? std::string::npos : end - at));
    if (end == std::string::npos) break;
    at = end + separator.size();
  }
  return inputs;
}

std::vector<Ids> VectorOutputs(const std::string &path) {
  std::istringstream file(ReadFile(path));
  std::vector<Ids> outputs;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    Ids ids;
    for (int32_t id; words >> id;) ids.push_back(id);
    outputs.push_back(ids);
  }
  return outputs;
}

void CheckVectors(const std::string &folder, const TokenizerModel &model) {
  const OpenedTokenizer tokenizer(model);
  const std::vector<std::string> inputs = VectorInputs(folder + "/vectors.inp");
  const std::vector<Ids> outputs = VectorOutputs(folder + "/vectors.out");
  ASSERT_EQ(inputs.size(), outputs.size());
  ASSERT_GT(inputs.size(), 40u);
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_EQ(tokenizer.Encode(inputs[i]), outputs[i]) << "vector " << i << ": \"" << inputs[i] << '"';
    EXPECT_EQ(tokenizer.DecodeWhole(outputs[i]), inputs[i]) << "vector " << i;
  }
}

#define NEED_VECTORS(name)                    \
  ACORN_NEED_SHARED("data/tokenizers/" name); \
  const std::string folder = SharedPath("data/tokenizers/" name)

TEST(Vectors, Gpt2FromGguf) {
  NEED_VECTORS("gpt2");
  CheckVectors(folder, compiler::ReadGgufTokenizer(compiler::GgufFile(folder + "/ggml-vocab-gpt-2.gguf"), {}));
}

TEST(Vectors, Llama2FromGguf) {
  NEED_VECTORS("llama2");
  CheckVectors(folder, compiler::ReadGgufTokenizer(compiler::GgufFile(folder + "/ggml-vocab-llama-spm.gguf"), {}));
}

TEST(Vectors, Llama2FromSentencePiece) {
  NEED_VECTORS("llama2");
  CheckVectors(folder, compiler::ReadSentencePieceModel(folder + "/tokenizer.model", "", {}));
}

TEST(Vectors, Llama2FromLlama2c) {
  NEED_VECTORS("llama2");
  CheckVectors(folder, compiler::ReadLlama2cTokenizer(folder + "/tokenizer.bin", {}));
}

TEST(Vectors, Llama3) {
  NEED_VECTORS("llama3");
  CheckVectors(folder, compiler::ReadTokenizerJson(folder + "/tokenizer.json", folder + "/tokenizer_config.json", "", {}));
}

TEST(Vectors, Qwen3) {
  NEED_VECTORS("qwen3");
  CheckVectors(folder, compiler::ReadTokenizerJson(folder + "/tokenizer.json", folder + "/tokenizer_config.json", "", {}));
}

TEST(Chats, Qwen3AndLlama3) {
  ACORN_NEED_SHARED("data/tokenizers");
  const auto open = [](const std::string &folder) {
    return compiler::ReadTokenizerJson(folder + "/tokenizer.json", folder + "/tokenizer_config.json", "", {});
  };
  const OpenedTokenizer qwen(open(SharedPath("data/tokenizers/qwen3")));
  EXPECT_EQ(qwen.Chat({{ChatRole::kUser, "hi"}}), qwen.EncodeMarkup("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"));
  EXPECT_EQ(qwen.Chat({{ChatRole::kSystem, "Be brief."}, {ChatRole::kUser, "hi"}}),
            qwen.EncodeMarkup("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
                              "<|im_start|>assistant\n"));
  const OpenedTokenizer llama(open(SharedPath("data/tokenizers/llama3")));
  EXPECT_EQ(llama.Chat({{ChatRole::kUser, " hi "}}),
            llama.EncodeMarkup("<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
                               "<|start_header_id|>assistant<|end_header_id|>\n\n"));
}

TEST(Texts, GoWithoutWhatEndsThem) {
  ACORN_NEED_SHARED("data/tokenizers/qwen3");
  const std::string folder = SharedPath("data/tokenizers/qwen3");
  const compiler::SourceTokenizer qwen(
      compiler::ReadTokenizerJson(folder + "/tokenizer.json", folder + "/tokenizer_config.json", "", {}));
  const Ids end = qwen.EncodeMarkup("<|endoftext|>"), turn_end = qwen.EncodeMarkup("<|im_end|>");
  ASSERT_EQ(end.size(), 1u);
  const std::string text = "<|im_start|>user\nhi<|im_end|>\nOne.<|endoftext|>Two.";
  Ids expected = qwen.EncodeMarkup(text);
  ASSERT_EQ(std::count(expected.begin(), expected.end(), end[0]), 1);
  ASSERT_EQ(std::count(expected.begin(), expected.end(), turn_end[0]), 1);  // chats go on behind it
  expected.erase(std::find(expected.begin(), expected.end(), end[0]));
  EXPECT_EQ(qwen.EncodeTexts(text), expected);
}

// The four trained models share one tokenizer.
TEST(Vectors, ReferenceModels) {
  for (const char *name : {"dense", "moe", "mamba2", "hybrid"}) {
    ACORN_NEED_SHARED(std::string("models/") + name);
    const std::string folder = SharedPath(std::string("models/") + name);
    const OpenedTokenizer tokenizer(
        compiler::ReadTokenizerJson(folder + "/tokenizer.json", folder + "/tokenizer_config.json", "", {}));
    const json golden = json::parse(ReadFile(folder + "/golden.json"));
    for (const json &prompt : golden["prompts"]) {
      Ids expected = prompt["ids"];
      ASSERT_EQ(expected.front(), BosId(tokenizer.get()));  // the golden's own start token
      expected.erase(expected.begin());
      EXPECT_EQ(tokenizer.EncodeMarkup(prompt["prompt"]), expected) << prompt["prompt"];
      if (prompt.contains("greedy_text")) {
        EXPECT_EQ(tokenizer.Decode(prompt["greedy_ids"]), prompt["greedy_text"]);
      }
    }
  }
}

TEST(Vectors, Stories260K) {
  ACORN_NEED_SHARED("data/models/stories260K");
  const std::string folder = SharedPath("data/models/stories260K");
  const OpenedTokenizer tokenizer(compiler::ReadLlama2cTokenizer(folder + "/tok512.bin", {}));
  const json golden = json::parse(ReadFile(folder + "/golden_numpy_f64.json"));
  const Ids ids = golden["greedy_from_BOS_200_ids"];
  const std::string text = golden["greedy_text"];
  EXPECT_EQ(tokenizer.Decode(ids), text);
  EncodeOptions options;
  options.bos = true;
  EXPECT_EQ(tokenizer.Encode(text.substr(1), options), ids);  // the dummy prefix is the first space
}

TEST(SourceTokenizer, IsTheModelsOwn) {
  ACORN_NEED_SHARED("models/dense");
  const auto source = compiler::OpenSourceModel(SharedPath("models/dense"));
  const auto tokenizer = compiler::OpenTokenizer(*source);
  EXPECT_EQ(VocabSize(tokenizer->get()), source->config().vocab);
  EXPECT_EQ(tokenizer->chat_warning(), "");
  EXPECT_TRUE(IsStopToken(tokenizer->get(), 0));
  EXPECT_EQ(tokenizer->EncodeMarkup("<|user|>hi").front(), 1);
  EXPECT_NE(tokenizer->Encode("<|user|>hi").front(), 1);
}

class SmolLm2 : public testing::Test {
 protected:
  void SetUp() override {
    if (!PathExists(SmolLm2Path())) GTEST_SKIP() << "needs SmolLM2's GGUF file: " << SmolLm2Path() << " is absent";
    ACORN_NEED_SHARED("data/smollm2/golden.json");
    golden_ = json::parse(ReadFile(SharedPath("data/smollm2/golden.json")));
    tokenizer_ = std::make_unique<OpenedTokenizer>(compiler::ReadGgufTokenizer(compiler::GgufFile(SmolLm2Path()), {}));
  }
  json golden_;
  std::unique_ptr<OpenedTokenizer> tokenizer_;
};

TEST_F(SmolLm2, Vectors) {
  ASSERT_EQ(golden_["tokenizer"].size(), 66u);
  for (const json &vector : golden_["tokenizer"]) {
    const std::string text = vector["text"];
    EXPECT_EQ(tokenizer_->EncodeMarkup(text), vector["ids"].get<Ids>()) << text;
    EXPECT_EQ(tokenizer_->Encode(text), vector["ids_plain"].get<Ids>()) << text;
    Detokenizer state;
    state.show_specials = 1;
    if (vector["decoded_ok"]) {
      EXPECT_EQ(tokenizer_->Decode(vector["ids"], state), text);
    }
  }
}

TEST_F(SmolLm2, Prompts) {
  for (const json &entry : golden_["golden"]) {
    const std::string prompt = entry["prompt"];
    EXPECT_EQ(tokenizer_->EncodeMarkup(prompt), entry["ids"].get<Ids>()) << prompt;
    const std::string text = entry["text"];
    Detokenizer state;
    state.show_specials = 1;
    EXPECT_EQ(tokenizer_->Decode(entry["greedy64"], state).substr(0, text.size()), text);
    if (!entry["chat"]) continue;
    const std::string head = "<|im_start|>user\n";
    const size_t start = prompt.find(head) + head.size();
    const std::string user = prompt.substr(start, prompt.find("<|im_end|>", start) - start);
    EXPECT_EQ(tokenizer_->Chat({{ChatRole::kUser, user}}), entry["ids"].get<Ids>()) << user;
  }
}

TEST_F(SmolLm2, SegmentIsSmall) { EXPECT_LE(tokenizer_->segment().size(), 1600u * 1024); }

}  // namespace
}  // namespace acorn::test
