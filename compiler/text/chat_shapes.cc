#include "text/chat_shapes.h"

#include <cctype>

#include "text/tokenizer_model.h"

namespace acorn::compiler {
namespace {

using tokenizer_layout::ChatOpKind;
using tokenizer_layout::ChatSection;

// Contents in the patterns below.
const std::string kContent = "\x01", kTrimmed = "\x02", kSystem = "\x03";

bool Has(const std::string &text, const std::string &part) { return text.find(part) != std::string::npos; }

// Jinja's string escapes that templates use.
std::string Unescape(const std::string &text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size() && text[i + 1] == 'n') {
      result += '\n';
      ++i;
    } else if (text[i] == '\\' && i + 1 < text.size() && (text[i + 1] == '\'' || text[i + 1] == '"')) {
      result += text[++i];
    } else {
      result += text[i];
    }
  }
  return result;
}

// Without blanks and the '-' of {%- -%}, quotes alike: for comparing expressions.
std::string Squeeze(const std::string &text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (std::isspace(static_cast<unsigned char>(c)) != 0) continue;
    if (c == '-' && ((!result.empty() && (result.back() == '%' || result.back() == '{')) ||
                     (i + 1 < text.size() && (text[i + 1] == '%' || text[i + 1] == '}')))) {
      continue;
    }
    result += c == '"' ? '\'' : c;
  }
  return result;
}

class Builder {
 public:
  Builder(const std::vector<SourceToken> &tokens, std::string shape) : tokens_(tokens) {
    chat_.shape = std::move(shape);
    // Looked for at each character of a pattern, which a template's author chooses: a vocabulary would take too long.
    for (size_t id = 0; id < tokens.size(); ++id) {
      if ((tokens[id].special_flags & tokenizer_layout::kSpecialMarkup) != 0) markup_.push_back(static_cast<uint32_t>(id));
    }
  }

  // Adds a pattern: special tokens become ids, the rest text.
  void Set(ChatSection section, const std::string &pattern) {
    std::vector<CompiledChatOp> &ops = chat_.sections[static_cast<size_t>(section)];
    for (size_t i = 0; i < pattern.size();) {
      uint32_t token = 0;
      const size_t length = MatchSpecial(pattern, i, &token);
      if (length > 0) {
        ops.push_back({ChatOpKind::kToken, token, {}});
        i += length;
      } else if (pattern[i] == kContent[0] || pattern[i] == kTrimmed[0] || pattern[i] == kSystem[0]) {
        ops.push_back({pattern[i] == kContent[0]   ? ChatOpKind::kContent
                       : pattern[i] == kTrimmed[0] ? ChatOpKind::kContentTrimmed
                                                   : ChatOpKind::kSystem,
                       0,
                       {}});
        ++i;
      } else {
        if (ops.empty() || ops.back().kind != ChatOpKind::kText) ops.push_back({ChatOpKind::kText, 0, {}});
        ops.back().text += pattern[i++];
      }
    }
  }
  CompiledChat Take() { return std::move(chat_); }

 private:
  size_t MatchSpecial(const std::string &text, size_t offset, uint32_t *token) const {
    size_t best = 0;
    for (const uint32_t id : markup_) {
      const SourceToken &candidate = tokens_[id];
      if (candidate.text.size() > best && text.compare(offset, candidate.text.size(), candidate.text) == 0) {
        best = candidate.text.size();
        *token = id;
      }
    }
    return best;
  }

  const std::vector<SourceToken> &tokens_;
  std::vector<uint32_t> markup_;
  CompiledChat chat_;
};

// The default system message: a string literal "<|im_start|>system\nTEXT<|im_end|>".
std::string ChatMlDefaultSystem(const std::string &text) {
  const std::string head = "<|im_start|>system\n", tail = "<|im_end|>";
  for (size_t at = text.find(head); at != std::string::npos; at = text.find(head, at + 1)) {
    const size_t end = text.find(tail, at);
    if (end == std::string::npos) return {};
    const std::string literal = text.substr(at + head.size(), end - at - head.size());
    const char quote = at > 0 ? text[at - 1] : '\'';
    if (literal.find(quote) == std::string::npos && !Has(literal, "{{") && !Has(literal, "}}")) {
      return head + literal + tail + "\n";
    }
  }
  return {};
}

CompiledChat ChatMl(const std::string &text, const std::string &squeezed, const std::vector<SourceToken> &tokens,
                    const std::string &bos) {
  if (!Has(text, "<|im_end|>\n") && !Has(squeezed, "'<|im_end|>'+'\\n'") && !Has(squeezed, "'<|im_end|>'+''")) return {};
  const bool trims = Has(squeezed, "content']|trim") || Has(squeezed, ".content|trim");
  const std::string content = trims ? kTrimmed : kContent;
  Builder builder(tokens, "chatml");
  if (Has(squeezed, "bos_token")) builder.Set(ChatSection::kStart, bos);
  builder.Set(ChatSection::kDefaultSystem, ChatMlDefaultSystem(text));
  builder.Set(ChatSection::kSystem, "<|im_start|>system\n" + content + "<|im_end|>\n");
  builder.Set(ChatSection::kUser, "<|im_start|>user\n" + content + "<|im_end|>\n");
  builder.Set(ChatSection::kAssistant, "<|im_start|>assistant\n" + content + "<|im_end|>\n");
  builder.Set(ChatSection::kGenerationPrompt, "<|im_start|>assistant\n");
  builder.Set(ChatSection::kReplyEnd, "<|im_end|>\n");
  return builder.Take();
}

CompiledChat Llama3(const std::string &text, const std::vector<SourceToken> &tokens, const std::string &bos) {
  const auto message = [](const std::string &role, const std::string &body) {
    return "<|start_header_id|>" + role + "<|end_header_id|>\n\n" + body + "<|eot_id|>";
  };
  Builder builder(tokens, "llama-3");
  builder.Set(ChatSection::kStart, bos);
  std::string preamble;
  if (Has(text, "Cutting Knowledge Date")) {  // Llama 3.1 and 3.2, with the date that their templates fall back on
    preamble = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";
    builder.Set(ChatSection::kDefaultSystem, message("system", preamble));
  }
  builder.Set(ChatSection::kSystem, message("system", preamble + kTrimmed));
  builder.Set(ChatSection::kUser, message("user", kTrimmed));
  builder.Set(ChatSection::kAssistant, message("assistant", kTrimmed));
  builder.Set(ChatSection::kGenerationPrompt, "<|start_header_id|>assistant<|end_header_id|>\n\n");
  builder.Set(ChatSection::kReplyEnd, "<|eot_id|>");
  return builder.Take();
}

CompiledChat Llama2(const std::vector<SourceToken> &tokens, const std::string &bos, const std::string &eos) {
  Builder builder(tokens, "llama-2");
  builder.Set(ChatSection::kUser, bos + "[INST] " + kTrimmed + " [/INST]");
  builder.Set(ChatSection::kUserWithSystem, bos + "[INST] <<SYS>>\n" + kSystem + "\n<</SYS>>\n\n" + kTrimmed + " [/INST]");
  builder.Set(ChatSection::kAssistant, " " + kTrimmed + " " + eos);
  builder.Set(ChatSection::kReplyEnd, eos);
  return builder.Take();
}

CompiledChat Mistral(const std::string &squeezed, const std::vector<SourceToken> &tokens, const std::string &bos,
                     const std::string &eos) {
  const std::string end = Has(squeezed, "eos_token+''") ? eos + " " : eos;
  Builder builder(tokens, "mistral");
  builder.Set(ChatSection::kStart, bos);
  builder.Set(ChatSection::kUser, "[INST] " + kContent + " [/INST]");
  builder.Set(ChatSection::kAssistant, kContent + end);
  builder.Set(ChatSection::kReplyEnd, end);
  return builder.Take();
}

CompiledChat Zephyr(const std::string &text, const std::vector<SourceToken> &tokens, const std::string &eos) {
  // A line of its own for each message leaves its newline behind.
  const std::string end = Has(text, "eos_token }}\n") || Has(text, "eos_token}}\n") ? eos + "\n" : eos;
  const std::string line = end == eos ? "" : "\n";
  Builder builder(tokens, "zephyr");
  builder.Set(ChatSection::kSystem, "<|system|>\n" + kContent + end);
  builder.Set(ChatSection::kUser, "<|user|>\n" + kContent + end);
  builder.Set(ChatSection::kAssistant, "<|assistant|>\n" + kContent + end);
  builder.Set(ChatSection::kGenerationPrompt, "<|assistant|>" + line);
  builder.Set(ChatSection::kReplyEnd, end);
  return builder.Take();
}

CompiledChat Plain(const std::vector<SourceToken> &tokens, const std::string &bos, const std::string &eos) {
  Builder builder(tokens, "plain");
  builder.Set(ChatSection::kStart, bos);
  builder.Set(ChatSection::kUser, "<|user|>" + kContent);
  builder.Set(ChatSection::kAssistant, "<|assistant|>" + kContent + eos);
  builder.Set(ChatSection::kGenerationPrompt, "<|assistant|>");
  builder.Set(ChatSection::kReplyEnd, eos);
  return builder.Take();
}

CompiledChat Gemma(const std::vector<SourceToken> &tokens, const std::string &bos) {
  Builder builder(tokens, "gemma");
  builder.Set(ChatSection::kStart, bos);
  builder.Set(ChatSection::kUser, "<start_of_turn>user\n" + kTrimmed + "<end_of_turn>\n");
  builder.Set(ChatSection::kAssistant, "<start_of_turn>model\n" + kTrimmed + "<end_of_turn>\n");
  builder.Set(ChatSection::kGenerationPrompt, "<start_of_turn>model\n");
  builder.Set(ChatSection::kReplyEnd, "<end_of_turn>\n");
  return builder.Take();
}

CompiledChat Phi3(const std::string &text, const std::string &squeezed, const std::vector<SourceToken> &tokens,
                  const std::string &bos) {
  // Phi-3 has its marks on lines of their own, Phi-4 mini has not.
  const std::string line = Has(text, "<|end|>\n") || Has(squeezed, "'<|end|>'+'\\n'") ? "\n" : "";
  const std::string end = "<|end|>" + line;
  Builder builder(tokens, "phi-3");
  if (Has(squeezed, "bos_token")) builder.Set(ChatSection::kStart, bos);
  if (Has(text, "<|system|>") || Has(squeezed, "'<|'+message['role']+'|>'")) {
    builder.Set(ChatSection::kSystem, "<|system|>" + line + kContent + end);
  }
  builder.Set(ChatSection::kUser, "<|user|>" + line + kContent + end);
  builder.Set(ChatSection::kAssistant, "<|assistant|>" + line + kContent + end);
  builder.Set(ChatSection::kGenerationPrompt, "<|assistant|>" + line);
  builder.Set(ChatSection::kReplyEnd, end);
  return builder.Take();
}

}  // namespace

CompiledChat CompileChat(const std::string &jinja, const std::vector<SourceToken> &tokens, const std::string &bos,
                         const std::string &eos) {
  const std::string text = Unescape(jinja), squeezed = Squeeze(jinja);
  if (Has(text, "<|im_start|>") && Has(text, "<|im_end|>")) return ChatMl(text, squeezed, tokens, bos);
  if (Has(text, "<|start_header_id|>") && Has(text, "<|eot_id|>")) return Llama3(text, tokens, bos);
  if (Has(text, "[INST] ") && Has(text, "<<SYS>>\n")) return Llama2(tokens, bos, eos);
  if (Has(squeezed, "'[INST]'+message['content']+'[/INST]'")) return Mistral(squeezed, tokens, bos, eos);
  if (Has(text, "<start_of_turn>") && Has(text, "<end_of_turn>\n") && Has(squeezed, "message['content']|trim")) {
    return Gemma(tokens, bos);
  }
  if (Has(squeezed, "message['content']+'<|end|>")) return Phi3(text, squeezed, tokens, bos);
  if (Has(text, "'<|user|>\n' + message['content'] + eos_token")) return Zephyr(text, tokens, eos);
  if (Has(squeezed, "{{bos_token}}{%form") && Has(squeezed, "<|user|>{{m['content']}}") &&
      Has(squeezed, "<|assistant|>{{m['content']}}{{eos_token}}")) {
    return Plain(tokens, bos, eos);
  }
  return {};
}

std::string KnownChatShapes() { return "chatml, llama-2, llama-3, mistral, gemma, phi-3, zephyr, plain"; }

}  // namespace acorn::compiler
