// A small random model that can read and write, with the tokenizer of tests/data/text. Needs acorn_compiler.
#pragma once

#include <string>
#include <vector>

#include "tests/support/model_builder.h"
#include "tests/support/shared_data.h"
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

}  // namespace acorn::test
