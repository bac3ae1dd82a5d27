// Chat templates: Jinja sources of known shapes, compiled to the sections of a tokenizer segment.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "acorn_schema/tokenizer_layout.h"

namespace acorn::compiler {

struct SourceToken;

struct CompiledChatOp {
  tokenizer_layout::ChatOpKind kind;
  uint32_t token = 0;  // kToken
  std::string text;    // kText
};

struct CompiledChat {
  std::string shape;  // "chatml", "llama-2", "llama-3", "mistral", "zephyr", "plain"; empty: none
  std::array<std::vector<CompiledChatOp>, tokenizer_layout::kChatSections> sections;
};

/// Recognises the shape of `jinja` and compiles it. The result's shape is empty where it is not known.
/// bos, eos: the texts of these tokens, empty for none.
CompiledChat CompileChat(const std::string &jinja, const std::vector<SourceToken> &tokens, const std::string &bos,
                         const std::string &eos);

/// The names of the known shapes, for messages.
std::string KnownChatShapes();

}  // namespace acorn::compiler
