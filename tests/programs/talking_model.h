// A small random model that can read and write: files for the tests of command lines.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/model_builder.h"
#include "tests/support/shared_data.h"
#include "tests/support/subprocess.h"
#include "tests/support/temp_folder.h"
#include "text/tokenizer_model.h"

namespace acorn::test {

/// The tokenizer of tests/data/text with the chat template <|user|>…<|assistant|>.
inline std::vector<uint8_t> TalkingTokenizer() {
  const TempFolder folder;
  const std::string config = folder.Write("tokenizer_config.json", R"({
    "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|pad|>",
    "chat_template": "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}<|user|>{{ m['content'] }}{% else %}<|assistant|>{{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"})");
  return compiler::BuildTokenizerSegment(compiler::ReadTokenizerJson(DataPath("text/tokenizer.json"), config, "", {}));
}

inline ModelSpec TalkingSpec() {
  ModelSpec spec;
  spec.name = "talking";
  spec.seed = 4;
  spec.vocab_size = 400;
  spec.max_context = 160;
  spec.linear = {WeightFormat::kW4G32, Layout::kC4};
  spec.tokenizer = TalkingTokenizer();
  return spec;
}

/// Model files of one test program: with text, without a tokenizer, and damaged ones on demand.
class ProgramTest : public testing::Test {
 protected:
  ProgramTest() : file_(BuildModel(TalkingSpec())), model_(folder_.File("model.acorn")) {
    EXPECT_TRUE(WriteModel(file_, model_));
  }

  /// Runs `acorn WORDS...`; the word MODEL stands for the model's path.
  Outcome Acorn(std::vector<std::string> words, const std::string &input = "") const {
    for (std::string &word : words) {
      if (word == "MODEL") word = model_;
    }
    words.insert(words.begin(), ACORN_PROGRAM);
    return RunProgram(words, input);
  }
  std::string Mute() const {
    ModelSpec spec = TalkingSpec();
    spec.tokenizer.clear();
    EXPECT_TRUE(WriteModel(BuildModel(spec), folder_.File("mute.acorn")));
    return folder_.File("mute.acorn");
  }

  TempFolder folder_;
  AlignedBytes file_;
  std::string model_;
};

}  // namespace acorn::test
