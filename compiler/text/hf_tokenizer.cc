// tokenizer.json (the file of Hugging Face's tokenizers library) with tokenizer_config.json and chat_template.jinja.
#include <map>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "base/error.h"
#include "base/mapped_file.h"
#include "import/json_reader.h"
#include "text/tokenizer_model.h"

namespace acorn::compiler {
namespace {

namespace layout = tokenizer_layout;
using layout::PreTokenizer;
using nlohmann::json;

constexpr const char *kMetaspace = "\xE2\x96\x81";

// The expressions that the runtime has as loops; tokenizer_layout.h repeats them.
struct KnownPattern {
  PreTokenizer kind;
  const char *expression;
};
constexpr KnownPattern kKnownPatterns[] = {
    {PreTokenizer::kGpt2, R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"},
    {PreTokenizer::kGpt2, R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"},
    {PreTokenizer::kLlama3,
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {PreTokenizer::kQwen2,
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
};

// Steps of a normalizer or pre-tokenizer, sequences flattened.
std::vector<json> Steps(const JsonReader &file, const char *key, const char *list_key) {
  std::vector<json> result;
  const auto add = [&](const auto &self, const json &step) -> void {
    if (!step.is_object()) file.Bad(std::string(key) + " is no object");
    const JsonReader reader(step, file.what() + ": " + key);
    const json *list = reader.Find(list_key);
    if (reader.String("type") == "Sequence" && list != nullptr && list->is_array()) {
      for (const json &inner : *list) self(self, inner);
    } else {
      result.push_back(step);
    }
  };
  const json *root = file.Find(key);
  if (root != nullptr) add(add, *root);
  return result;
}

class Importer {
 public:
  Importer(const json &root, const std::string &path) : file_(root, path) {}

  TokenizerModel Run() {
    const std::optional<JsonReader> bpe = file_.FindObject("model");
    if (!bpe || bpe->FindString("type").value_or("BPE") != "BPE") {
      file_.Bad("model.type " + (bpe ? bpe->FindString("type").value_or("") : "") + " is not known (only BPE is)");
    }
    characters_ = bpe->FindBool("byte_fallback").value_or(false);
    if (bpe->FindBool("ignore_merges").value_or(false)) model_.flags |= layout::kFlagWholePiece;
    for (const char *key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (!bpe->FindString(key).value_or("").empty()) bpe->Bad(std::string(key) + " is not supported");
    }
    ReadTokens(*bpe);
    ReadMerges(*bpe);
    ReadNormalizer();
    ReadPreTokenizer();
    ReadPostProcessor();
    const std::optional<std::string> unk = bpe->FindString("unk_token");
    if (unk) model_.unk_id = Find(*unk);
    return std::move(model_);
  }

 private:
  int32_t Find(const std::string &text) const {
    const auto at = ids_.find(text);
    return at == ids_.end() ? -1 : static_cast<int32_t>(at->second);
  }

  void SetToken(uint64_t id, SourceToken token) {
    if (id >= layout::kMaxVocabulary) file_.Bad("token id " + std::to_string(id) + " is too large");
    SourceToken filler;
    filler.findable = false;
    if (id >= model_.tokens.size()) model_.tokens.resize(id + 1, filler);
    model_.tokens[id] = std::move(token);
  }

  void ReadTokens(const JsonReader &bpe) {
    const json *added = file_.Find("added_tokens");
    std::map<uint64_t, SourceToken> specials;
    if (added != nullptr && added->is_array()) {
      for (const json &entry : *added) {
        const JsonReader reader(entry, file_.what() + ": added_tokens");
        SourceToken token;
        token.text = reader.String("content");
        token.findable = false;
        token.special_flags = layout::kSpecialMarkup;
        if (reader.FindBool("special").value_or(false)) token.special_flags |= layout::kSpecialHidden;
        if (token.text.empty()) reader.Bad("an empty token");
        const int64_t id = reader.Integer("id");
        ids_[token.text] = static_cast<uint32_t>(id);
        specials.emplace(static_cast<uint64_t>(id), std::move(token));
      }
    }
    const json *vocab = bpe.Find("vocab");
    if (vocab == nullptr || !vocab->is_object()) bpe.Bad("vocab is missing");
    for (const auto &[text, value] : vocab->items()) {
      if (!value.is_number_unsigned()) bpe.Bad("vocab: the id of \"" + text + "\" is no number");
      const uint64_t id = value.get<uint64_t>();
      ids_[text] = static_cast<uint32_t>(id);
      if (specials.count(id) != 0) continue;
      SetToken(id, OrdinaryToken(text, static_cast<int32_t>(id)));
    }
    for (auto &[id, token] : specials) SetToken(id, std::move(token));
  }

  SourceToken OrdinaryToken(const std::string &text, int32_t id) {
    SourceToken token;
    if (characters_) {
      const int byte = ParseByteToken(text);
      if (byte >= 0) {
        model_.byte_ids[static_cast<size_t>(byte)] = id;
        token.text = std::string(1, static_cast<char>(byte));
        token.findable = false;
      } else {
        token.text = ReplaceMetaspace(text);
      }
      return token;
    }
    if (!DecodeByteAlphabet(text, &token.text)) {  // not of the alphabet: no text can become it
      token.text = text;
      token.findable = false;
    } else if (token.text.size() == 1) {
      model_.byte_ids[static_cast<unsigned char>(token.text[0])] = id;
    }
    return token;
  }

  void ReadMerges(const JsonReader &bpe) {
    const json *merges = bpe.Find("merges");
    if (merges == nullptr || !merges->is_array()) bpe.Bad("merges are missing");
    size_t index = 0;
    for (const json &merge : *merges) {
      std::string left, right;
      if (merge.is_string()) {
        const std::string text = merge.get<std::string>();
        const size_t space = text.find(' ');
        left = text.substr(0, space);
        right = space == std::string::npos ? "" : text.substr(space + 1);
      } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
        left = merge[0].get<std::string>();
        right = merge[1].get<std::string>();
      }
      const int32_t a = Find(left), b = Find(right), result = Find(left + right);
      if (left.empty() || right.empty() || a < 0 || b < 0 || result < 0) {
        bpe.Bad("merge " + std::to_string(index) + " (\"" + left + "\" \"" + right + "\") names no tokens");
      }
      model_.merges.push_back({static_cast<uint32_t>(a), static_cast<uint32_t>(b), static_cast<uint32_t>(result)});
      ++index;
    }
    model_.symbols = characters_ ? layout::Symbols::kCharacters : layout::Symbols::kBytes;
  }

  void ReadNormalizer() {
    if (characters_) model_.normalizer = layout::Normalizer::kMetaspace;
    for (const json &step : Steps(file_, "normalizer", "normalizers")) {
      const JsonReader reader(step, file_.what() + ": normalizer");
      const std::string type = reader.String("type");
      if (type == "NFC" && !characters_) {
        model_.normalizer = layout::Normalizer::kNfc;
      } else if (type == "Prepend" && characters_ && reader.FindString("prepend") == kMetaspace) {
        model_.dummy_prefix = layout::DummyPrefix::kEvery;
      } else if (type == "Replace" && characters_ && reader.FindString("content") == kMetaspace) {
        continue;  // a space becomes U+2581: both are a space here
      } else {
        reader.Bad("type " + type + " is not supported");
      }
    }
  }

  void ReadPreTokenizer() {
    const std::vector<json> steps = Steps(file_, "pre_tokenizer", "pretokenizers");
    if (characters_) {
      model_.pre_tokenizer = SpaceRunsWhereExact(model_.tokens);
      for (const json &step : steps) {
        const JsonReader reader(step, file_.what() + ": pre_tokenizer");
        if (!SplitsAtSpaces(reader)) ReadMetaspace(reader);
      }
      return;
    }
    bool byte_level = false, known = false, digits = false;
    for (const json &step : steps) {
      const JsonReader reader(step, file_.what() + ": pre_tokenizer");
      const std::string type = reader.String("type");
      if (type == "ByteLevel") {
        if (reader.FindBool("add_prefix_space").value_or(false)) reader.Bad("add_prefix_space is not supported");
        byte_level = true;
        if (reader.FindBool("use_regex").value_or(true)) {
          if (known) reader.Bad("ByteLevel with use_regex after another split is not supported");
          model_.pre_tokenizer = digits ? PreTokenizer::kDigitGpt2 : PreTokenizer::kGpt2;
          known = true;
        }
      } else if (type == "Digits" && reader.FindBool("individual_digits").value_or(false) && !known && !digits) {
        digits = true;
      } else if (type == "Split" && !known && !digits) {
        model_.pre_tokenizer = ReadSplit(reader);
        known = true;
      } else {
        reader.Bad("type " + type + " is not supported here");
      }
    }
    if (!byte_level) file_.Bad("pre_tokenizer: neither byte-level nor SentencePiece-like with byte_fallback");
    if (!known) {
      if (digits) file_.Bad("pre_tokenizer: Digits without an expression is not supported");
      model_.pre_tokenizer = PreTokenizer::kNone;
    }
  }

  PreTokenizer ReadSplit(const JsonReader &reader) {
    const std::optional<JsonReader> pattern = reader.FindObject("pattern");
    const std::string expression = pattern ? pattern->FindString("Regex").value_or("") : "";
    const bool isolated = reader.FindString("behavior") == "Isolated" ||
                          (reader.FindString("behavior") == "Removed" && reader.FindBool("invert").value_or(false));
    for (const KnownPattern &known : kKnownPatterns) {
      if (isolated && expression == known.expression) return known.kind;
    }
    reader.Bad("the expression " + expression + " is not known (those of GPT-2, SmolLM2, Llama-3 and Qwen2 are)");
  }

  // Gemma's: the normalizer has left no space to split at.
  static bool SplitsAtSpaces(const JsonReader &reader) {
    const std::optional<JsonReader> pattern = reader.FindObject("pattern");
    return reader.String("type") == "Split" && pattern && pattern->FindString("String") == " ";
  }

  void ReadMetaspace(const JsonReader &reader) {
    const std::string type = reader.String("type");
    if (type != "Metaspace") reader.Bad("type " + type + " is not supported with byte_fallback");
    const std::string scheme =
        reader.FindString("prepend_scheme").value_or(reader.FindBool("add_prefix_space").value_or(true) ? "always" : "never");
    model_.dummy_prefix = scheme == "always"  ? layout::DummyPrefix::kEvery
                          : scheme == "first" ? layout::DummyPrefix::kFirst
                                              : layout::DummyPrefix::kNone;
  }

  // A template that starts with a special token adds it to every text.
  void ReadPostProcessor() {
    for (const json &step : Steps(file_, "post_processor", "processors")) {
      const JsonReader reader(step, file_.what() + ": post_processor");
      const json *single = reader.Find("single");
      if (reader.String("type") != "TemplateProcessing" || single == nullptr || !single->is_array() || single->empty()) continue;
      if (single->front().contains("SpecialToken")) model_.flags |= layout::kFlagAddBos;
      if (single->back().contains("SpecialToken")) model_.flags |= layout::kFlagAddEos;
      const JsonReader first(single->front(), reader.what());
      const std::optional<JsonReader> special = first.FindObject("SpecialToken");
      if (special) model_.bos_id = Find(special->FindString("id").value_or(""));
    }
  }

  JsonReader file_;
  TokenizerModel model_;
  bool characters_ = false;
  std::unordered_map<std::string, uint32_t> ids_;
};

int32_t FindSpecial(const TokenizerModel &model, const std::string &text) {
  for (size_t id = 0; id < model.tokens.size(); ++id) {
    if (model.tokens[id].text == text && model.tokens[id].special_flags != 0) return static_cast<int32_t>(id);
  }
  return -1;
}

// "bos_token": "<s>" or {"content": "<s>", ...}
std::string TokenText(const JsonReader &config, const char *key) {
  const json *value = config.Find(key);
  if (value == nullptr) return {};
  if (value->is_string()) return value->get<std::string>();
  if (value->is_object()) return JsonReader(*value, config.what()).FindString("content").value_or("");
  return {};
}

std::string ChatTemplateOf(const JsonReader &config) {
  const json *value = config.Find("chat_template");
  if (value == nullptr) return {};
  if (value->is_string()) return value->get<std::string>();
  if (!value->is_array()) return {};
  for (const json &entry : *value) {  // several, by name
    if (!entry.is_object()) continue;
    const JsonReader reader(entry, config.what());
    if (reader.FindString("name") == "default") return reader.FindString("template").value_or("");
  }
  return {};
}

}  // namespace

std::string ReadJinja(const std::string &config_path, const std::string &jinja_path) {
  if (!jinja_path.empty()) return std::string(MappedFile(jinja_path).text());
  if (config_path.empty()) return {};
  const MappedFile file(config_path);
  const json root = ParseJsonObject(file.text(), config_path);
  return ChatTemplateOf(JsonReader(root, config_path));
}

TokenizerModel ReadTokenizerJson(const std::string &json_path, const std::string &config_path, const std::string &jinja_path,
                                 const TokenizerHints &hints) {
  const MappedFile file(json_path);
  TokenizerModel model = Importer(ParseJsonObject(file.text(), json_path), json_path).Run();
  if (!config_path.empty()) {
    const MappedFile config_file(config_path);
    const json root = ParseJsonObject(config_file.text(), config_path);
    const JsonReader config(root, config_path);
    if (model.bos_id < 0) model.bos_id = FindSpecial(model, TokenText(config, "bos_token"));
    model.eos_id = FindSpecial(model, TokenText(config, "eos_token"));
    model.pad_id = FindSpecial(model, TokenText(config, "pad_token"));
    if (config.FindBool("add_bos_token").value_or(false)) model.flags |= layout::kFlagAddBos;
  }
  model.jinja = ReadJinja(config_path, jinja_path);
  FinishTokenizer(&model, hints, json_path);
  return model;
}

}  // namespace acorn::compiler
