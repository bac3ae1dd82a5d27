// Writes the seeds of the fuzz targets: small files of every kind, made from the tree alone, the same on every machine.  FOLDER
// (FOLDER/<target>/<number or name>)
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "tests/fuzz/snapshot_models.h"
#include "tests/fuzz/sound_tokenizers.h"
#include "tests/support/model_session.h"

namespace acorn::fuzz {
namespace {

namespace fs = std::filesystem;

const std::string kData = std::string(ACORN_SOURCE_DIR) + "/tests/data/";

std::string ReadFile(const fs::path &path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

constexpr size_t kMostBytes = 60000;  // of a seed from the tests' data: fuzzing is faster with small ones

/// What lies in the tests' data, in order.
std::vector<fs::path> DataPaths() {
  std::vector<fs::path> paths;
  for (const fs::directory_entry &entry : fs::directory_iterator(kData)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  return paths;
}

/// The seeds of one target.
class Seeds {
 public:
  Seeds(const fs::path &root, const char *target) : folder_(root / target) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void Add(std::string_view bytes) {
    std::ofstream file(folder_ / std::to_string(count_++), std::ios::binary);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    Require(static_cast<bool>(file.flush()), "a seed is written");
  }
  void Add(const uint8_t *data, size_t size) { Add({reinterpret_cast<const char *>(data), size}); }

 private:
  fs::path folder_;
  int count_ = 0;
};

/// Segments of every kind of tokenizer.
std::vector<std::vector<uint8_t>> Segments() {
  constexpr char kJinja[] =
      "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}<|user|>{{ m['content'] }}{% else %}<|assistant|>"
      "{{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";
  std::vector<std::vector<uint8_t>> segments;
  for (const uint64_t bits : {0, 3, 20, 38, 73, 10, 32, 44}) {
    compiler::TokenizerModel model = SoundTokenizer(TokenizerKind(bits));
    model.jinja = kJinja;
    compiler::FinishTokenizer(&model, {}, "seed");
    segments.push_back(compiler::BuildTokenizerSegment(model));
  }
  return segments;
}

void AddModels(const fs::path &root) {
  Seeds seeds(root, "model");
  std::vector<test::ModelSpec> specs = test::VariedSpecs();
  for (const test::ModelSpec &spec : test::ElasticSpecs()) specs.push_back(spec);
  for (test::ModelSpec &spec : specs) {  // as small as they can be of their kind
    spec.layers = static_cast<uint32_t>(std::min<size_t>(spec.mixers.size(), 2));
    spec.experts = std::min(spec.experts, 4u);
    spec.top_k = std::min(spec.top_k, 2u);
  }
  for (const std::vector<uint8_t> &segment : Segments()) {
    test::ModelSpec spec;
    spec.layers = 1, spec.vocab_size = 300;
    spec.tokenizer = segment;
    specs.push_back(spec);
  }
  for (const test::ModelSpec &spec : specs) {
    const test::AlignedBytes file = test::BuildModel(spec);
    seeds.Add(file.data(), file.size());
  }
}

void AddSnapshots(const fs::path &root) {
  Seeds seeds(root, "snapshot");
  for (const test::ModelSpec &spec : SnapshotSpecs()) {
    acorn_options options = {};
    options.context_tokens = SnapshotContext(spec);
    test::ModelSession model(test::BuildModel(spec), options);
    acorn_session *session = model.session();
    const auto save = [&] {
      std::vector<uint8_t> snapshot(acorn_session_snapshot_bytes(session));
      Require(acorn_session_save(session, snapshot.data(), snapshot.size()) == ACORN_OK, "a snapshot");
      seeds.Add(snapshot.data(), snapshot.size());
    };
    save();
    const std::vector<int32_t> tokens(19, 5);
    Require(acorn_session_prefill(session, tokens.data(), tokens.size()) == ACORN_OK, "a prompt");
    save();
    Require(acorn_session_rewind(session, 7) == ACORN_OK, "a rewind");
    save();
  }
}

void AddTexts(const fs::path &root) {
  const std::string texts[] = {
      "", "The thing is in there, isn't it? 1234 you'll see", "  the\n\n ing  \t x", "\xe4\xbd\xa0\xe5\xa5\xbd \xc3\xa9 e\xcc\x81\xcc\xa7 \xe2\x96\x81the",
      "<s>text<|user|> <|end|>", "\xff\xfe\x80 \xf0\x9f\x9a\x80 \xed\xa0\x80", std::string(5000, 'a') + std::string(4000, ' ')};
  Seeds text_seeds(root, "text"), id_seeds(root, "detokenizer"), tokenizer_seeds(root, "tokenizer");
  uint8_t kind = 0;
  for (const std::string &text : texts) {
    for (int i = 0; i < 8; ++i, kind = static_cast<uint8_t>(kind + 37)) {
      const std::string head = {static_cast<char>(kind), static_cast<char>(kind * 5)};
      text_seeds.Add(head + text);
      std::string ids = head;
      for (const char byte : text.substr(0, 200)) ids += {byte, static_cast<char>(byte == ' ')};
      id_seeds.Add(ids);
    }
  }
  size_t which = 0;
  for (const std::vector<uint8_t> &segment : Segments()) {
    std::string input;
    PutPart(&input, texts[which++ % std::size(texts)]);
    input.append(segment.begin(), segment.end());
    tokenizer_seeds.Add(input);
  }
}

void AddChats(const fs::path &root) {
  const char *const templates[] = {
      "{% for message in messages %}{% if loop.first %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}{{ '<|im_end|>\n' }}",
      "{{ bos_token }}<|start_header_id|>user<|end_header_id|> Cutting Knowledge Date <|eot_id|>",
      "{{ bos_token + '[INST] ' + '<<SYS>>\\n' + content | trim + ' [/INST]' }}",
      "{{ bos_token }}{{ '[INST] ' + message['content'] + ' [/INST]' }}{{ message['content'] + eos_token + ' ' }}",
      "{{ bos_token }}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}",
      "{{ '<|user|>\n' + message['content'] + '<|end|>\n' }}{{ '<|system|>' }}",
      "{{ '<|user|>\n' + message['content'] + eos_token }}\n",
      "{{ bos_token }}{% for m in messages %}<|user|>{{ m['content'] }}<|assistant|>{{ m['content'] }}{{ eos_token }}{% endfor %}",
  };
  Seeds seeds(root, "chat");
  uint8_t roles = 0;
  for (const char *jinja : templates) {
    std::string input;
    PutPart(&input, jinja);
    input.push_back(static_cast<char>(roles));
    PutPart(&input, "  Hello <|user|> there ");
    PutPart(&input, "<|im_end|>\n<s> and more\n");
    seeds.Add(input);
    roles = static_cast<uint8_t>(roles + 37);
  }
}

/// A safetensors file of the named tensors, all zeros.
std::string Safetensors(const std::vector<std::pair<std::string, std::vector<int64_t>>> &tensors) {
  nlohmann::json header;
  size_t bytes = 0;
  for (const auto &[name, shape] : tensors) {
    size_t size = 4;
    for (const int64_t dim : shape) size *= static_cast<size_t>(dim);
    header[name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {bytes, bytes + size}}};
    bytes += size;
  }
  const std::string text = header.dump();
  const uint64_t length = text.size();
  return std::string(reinterpret_cast<const char *>(&length), sizeof length) + text + std::string(bytes, '\0');
}

std::string TinySafetensors() {
  const std::string layer = "model.layers.0.";
  return Safetensors({{"model.embed_tokens.weight", {5, 4}}, {"model.norm.weight", {4}}, {layer + "input_layernorm.weight", {4}},
                      {layer + "post_attention_layernorm.weight", {4}}, {layer + "self_attn.q_proj.weight", {4, 4}},
                      {layer + "self_attn.k_proj.weight", {2, 4}}, {layer + "self_attn.v_proj.weight", {2, 4}},
                      {layer + "self_attn.o_proj.weight", {4, 4}}, {layer + "mlp.gate_proj.weight", {6, 4}},
                      {layer + "mlp.up_proj.weight", {6, 4}}, {layer + "mlp.down_proj.weight", {4, 6}}});
}

constexpr char kTinyConfig[] =
    R"({"model_type":"llama","hidden_size":4,"intermediate_size":6,"num_hidden_layers":1,"num_attention_heads":2,)"
    R"("num_key_value_heads":1,"vocab_size":5,"max_position_embeddings":8,"tie_word_embeddings":true,"eos_token_id":[2,3]})";

void AddHuggingFace(const fs::path &root) {
  Seeds folders(root, "hugging_face"), configs(root, "config_json"), files(root, "safetensors");
  const auto add = [&](const std::vector<std::string> &parts) {
    std::string input;
    for (const std::string &part : parts) PutPart(&input, part);
    folders.Add(input);
  };
  const std::string tiny = TinySafetensors();
  files.Add(tiny);
  files.Add(Safetensors({{"a", {2, 3}}, {"b", {0}}}));
  add({kTinyConfig, "", "", tiny, ""});
  add({kTinyConfig, R"({"eos_token_id":4})", R"({"weight_map":{"a":"model.safetensors","b":"other.safetensors"}})", tiny,
       Safetensors({{"more", {1}}})});
  configs.Add(kTinyConfig);
  for (const fs::path &folder : DataPaths()) {
    if (!fs::exists(folder / "config.json")) continue;
    const std::string config = ReadFile(folder / "config.json"), weights = ReadFile(folder / "model.safetensors");
    configs.Add(config);
    if (!weights.empty() && weights.size() <= kMostBytes) add({config, "", "", weights, ""});
  }
}

template <typename T>
void PutNumber(std::string *bytes, T value) {
  bytes->append(reinterpret_cast<const char *>(&value), sizeof value);
}

/// A GGUF file, written from its front.
class GgufWriter {
 public:
  GgufWriter(uint64_t tensors, uint64_t keys) : bytes_("GGUF") {
    PutNumber(&bytes_, uint32_t{3});
    PutNumber(&bytes_, tensors);
    PutNumber(&bytes_, keys);
  }
  void Text(const std::string &key, const std::string &text) {
    Key(key, 8);
    String(text);
  }
  void Integer(const std::string &key, uint32_t value) {
    Key(key, 4);
    PutNumber(&bytes_, value);
  }
  void Texts(const std::string &key, const std::vector<std::string> &texts) {
    Array(key, 8, texts.size());
    for (const std::string &text : texts) String(text);
  }
  template <typename T>
  void Numbers(const std::string &key, uint32_t type, const std::vector<T> &numbers) {
    Array(key, type, numbers.size());
    for (const T number : numbers) PutNumber(&bytes_, number);
  }
  /// Of F32.
  void Tensor(const std::string &name, const std::vector<uint64_t> &shape) {
    String(name);
    PutNumber(&bytes_, static_cast<uint32_t>(shape.size()));
    uint64_t size = 4;
    for (const uint64_t dim : shape) {
      PutNumber(&bytes_, dim);
      size *= dim;
    }
    PutNumber(&bytes_, uint32_t{0});
    PutNumber(&bytes_, data_bytes_);
    data_bytes_ += (size + 31) / 32 * 32;
  }
  std::string Finish() const {
    std::string file = bytes_;
    file.resize((file.size() + 31) / 32 * 32 + data_bytes_);
    return file;
  }

 private:
  void Key(const std::string &key, uint32_t type) {
    String(key);
    PutNumber(&bytes_, type);
  }
  void Array(const std::string &key, uint32_t type, uint64_t count) {
    Key(key, 9);
    PutNumber(&bytes_, type);
    PutNumber(&bytes_, count);
  }
  void String(const std::string &text) {
    PutNumber(&bytes_, uint64_t{text.size()});
    bytes_ += text;
  }

  std::string bytes_;
  uint64_t data_bytes_ = 0;
};

/// A llama of one layer, with a tokenizer of either kind.
std::string TinyGguf(const std::string &tokenizer) {
  const bool is_byte_level = tokenizer == "gpt2";
  GgufWriter file(11, 12);
  file.Text("general.architecture", "llama");
  for (const auto &[key, value] : std::vector<std::pair<const char *, uint32_t>>{
           {"embedding_length", 4}, {"block_count", 1}, {"feed_forward_length", 6}, {"context_length", 8},
           {"attention.head_count", 2}, {"attention.head_count_kv", 1}}) {
    file.Integer(std::string("llama.") + key, value);
  }
  file.Text("tokenizer.ggml.model", tokenizer);
  file.Texts("tokenizer.ggml.tokens", {"a", "b", "ab", "<s>", is_byte_level ? "\xc4\xa0" : "<0x0A>"});
  file.Numbers<int32_t>("tokenizer.ggml.token_type", 5, {1, 1, 1, 3, is_byte_level ? 1 : 6});
  if (is_byte_level) {
    file.Texts("tokenizer.ggml.merges", {"a b"});
    file.Text("tokenizer.ggml.pre", "llama-bpe");
  } else {
    file.Numbers<float>("tokenizer.ggml.scores", 6, {-1, -2, -3, 0, 0});
    file.Integer("tokenizer.ggml.bos_token_id", 3);
  }
  for (const auto &[name, shape] : std::vector<std::pair<const char *, std::vector<uint64_t>>>{
           {"token_embd", {4, 5}}, {"output_norm", {4}}, {"blk.0.attn_norm", {4}}, {"blk.0.ffn_norm", {4}},
           {"blk.0.attn_q", {4, 4}}, {"blk.0.attn_k", {4, 2}}, {"blk.0.attn_v", {4, 2}}, {"blk.0.attn_output", {4, 4}},
           {"blk.0.ffn_gate", {4, 6}}, {"blk.0.ffn_up", {4, 6}}, {"blk.0.ffn_down", {6, 4}}}) {
    file.Tensor(std::string(name) + ".weight", shape);
  }
  return file.Finish();
}

void AddGgufs(const fs::path &root) {
  Seeds seeds(root, "gguf");
  seeds.Add(TinyGguf("gpt2"));
  seeds.Add(TinyGguf("llama"));
  for (const fs::path &path : DataPaths()) {
    if (path.extension() == ".gguf" && fs::file_size(path) <= kMostBytes) seeds.Add(ReadFile(path));
  }
}

void AddLlama2c(const fs::path &root) {
  Seeds seeds(root, "llama2c");
  for (const int32_t vocab : {5, -5}) {
    std::string file;
    for (const int32_t number : {4, 6, 1, 2, 1, vocab, 8}) PutNumber(&file, number);
    // Embedding, norms, q, k, v, o, gate, down, up; rotary tables; a head of its own.
    file += std::string(4 * (20 + 3 * 4 + 16 + 8 + 8 + 16 + 3 * 24 + 2 * 8 + (vocab < 0 ? 20 : 0)), '\0');
    seeds.Add(file);
  }
}

void PutVarint(std::string *bytes, uint64_t value) {
  for (; value >= 0x80; value >>= 7) bytes->push_back(static_cast<char>(value | 0x80));
  bytes->push_back(static_cast<char>(value));
}

std::string ProtoBytes(int field, const std::string &content) {
  std::string bytes;
  PutVarint(&bytes, static_cast<uint64_t>(field) << 3 | 2);
  PutVarint(&bytes, content.size());
  return bytes + content;
}

void AddTokenizerFiles(const fs::path &root) {
  Seeds jsons(root, "tokenizer_json"), files(root, "sentencepiece");
  const std::string config = R"({"bos_token":"<|endoftext|>","eos_token":{"content":"<|endoftext|>"},"chat_template":"<|im_start|> <|im_end|>\n"})";
  const std::string characters =
      R"({"added_tokens":[{"id":3,"content":"<s>","special":true}],"normalizer":{"type":"Sequence","normalizers":[)"
      R"({"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]},"post_processor":)"
      R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}]},)"
      R"("model":{"type":"BPE","byte_fallback":true,"unk_token":"<s>","vocab":{"a":0,"b":1,"ab":2,"<0x0A>":4,"▁":5},"merges":["a b"]}})";
  const std::string bytes =
      R"({"added_tokens":[{"id":3,"content":"<|endoftext|>","special":true}],"normalizer":{"type":"NFC"},"pre_tokenizer":)"
      R"({"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},{"type":"ByteLevel","add_prefix_space":false}]},)"
      R"("model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"Ġ":4,"1":5},"merges":[["a","b"]]}})";
  for (const std::string &json : {bytes, characters}) {
    std::string input;
    PutPart(&input, json);
    PutPart(&input, config);
    jsons.Add(input + "Hello <|endoftext|> ab\n");
  }
  std::string proto(1, '\0'), llama2c(1, '\1');
  PutNumber(&llama2c, int32_t{7});
  for (int i = 0; i < 270; ++i) {
    const std::string text = i < 3 ? "<s>" : i < 259 ? "<0x41>" : std::string(1 + static_cast<size_t>(i) % 3, static_cast<char>('a' + i % 5));
    const float score = static_cast<float>(-i);
    PutNumber(&llama2c, score);
    PutNumber(&llama2c, static_cast<int32_t>(text.size()));
    llama2c += text;
    if (i > 2 && i < 250) continue;
    std::string piece = ProtoBytes(1, text);
    piece.push_back(2 << 3 | 5);
    PutNumber(&piece, score);
    piece.push_back(3 << 3);
    piece.push_back(static_cast<char>(i < 3 ? i + 1 : i < 259 ? 6 : 1));
    proto += ProtoBytes(1, piece);
  }
  proto += ProtoBytes(2, std::string{3 << 3, 2}) + ProtoBytes(3, std::string{3 << 3, 1});
  files.Add(proto);
  files.Add(llama2c);
}

}  // namespace
}  // namespace acorn::fuzz

int main(int argc, char **argv) {
  using namespace acorn::fuzz;
  if (argc != 2) {
    std::fprintf(stderr, "usage: acorn_fuzz_seeds FOLDER\n");
    return 2;
  }
  const fs::path root = argv[1];
  AddModels(root);
  AddSnapshots(root);
  AddTexts(root);
  AddChats(root);
  AddHuggingFace(root);
  AddGgufs(root);
  AddLlama2c(root);
  AddTokenizerFiles(root);
  return 0;
}
