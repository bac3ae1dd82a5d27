// SentencePiece's tokenizer.model (a protobuf) and llama2.c's tokenizer.bin.
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/mapped_file.h"
#include "text/tokenizer_model.h"

namespace acorn::compiler {
namespace {

namespace layout = tokenizer_layout;

// sentencepiece_model.proto: SentencePiece.Type, TrainerSpec.model_type
enum PieceType : uint64_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };
constexpr uint64_t kModelTypeUnigram = 1, kModelTypeBpe = 2;

// One field of a protobuf message.
struct Field {
  uint32_t number;
  uint32_t wire_type;      // 0 varint, 1 fixed64, 2 bytes, 5 fixed32
  uint64_t integer;        // varint, fixed
  std::string_view bytes;  // wire type 2
};

class ProtoReader {
 public:
  ProtoReader(std::string_view message, const std::string &path) : rest_(message), path_(path) {}

  bool Next(Field *field) {
    if (rest_.empty()) return false;
    const uint64_t key = Varint();
    *field = {static_cast<uint32_t>(key >> 3), static_cast<uint32_t>(key & 7), 0, {}};
    switch (field->wire_type) {
      case 0:
        field->integer = Varint();
        return true;
      case 1:
        field->integer = Fixed(8);
        return true;
      case 2:
        field->bytes = Take(Varint());
        return true;
      case 5:
        field->integer = Fixed(4);
        return true;
      default:
        Bad();
    }
  }

 private:
  [[noreturn]] void Bad() const { throw Error(ExitCode::kBadModel, path_ + ": not a SentencePiece model, or cut short"); }
  std::string_view Take(uint64_t bytes) {
    if (bytes > rest_.size()) Bad();
    const std::string_view result = rest_.substr(0, bytes);
    rest_.remove_prefix(bytes);
    return result;
  }
  uint64_t Fixed(size_t bytes) {
    uint64_t value = 0;
    std::memcpy(&value, Take(bytes).data(), bytes);
    return value;
  }
  uint64_t Varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const uint8_t byte = static_cast<uint8_t>(Take(1)[0]);
      value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
    Bad();
  }

  std::string_view rest_;
  const std::string &path_;
};

float AsFloat(uint64_t bits) {
  const uint32_t low = static_cast<uint32_t>(bits);
  float value;
  std::memcpy(&value, &low, sizeof value);
  return value;
}

void AddPiece(std::string_view message, const std::string &path, TokenizerModel *model, std::vector<float> *scores) {
  std::string text;
  float score = 0;
  uint64_t type = kNormal;
  Field field;
  for (ProtoReader reader(message, path); reader.Next(&field);) {
    if (field.number == 1) text = field.bytes;
    if (field.number == 2) score = AsFloat(field.integer);
    if (field.number == 3) type = field.integer;
  }
  const int32_t id = static_cast<int32_t>(model->tokens.size());
  SourceToken token;
  token.findable = type == kNormal || type == kUnused;
  if (type == kUnknown) model->unk_id = id;
  if (type == kControl || type == kUnknown) token.special_flags = layout::kSpecialHidden | layout::kSpecialMarkup;
  if (type == kUserDefined) token.special_flags = layout::kSpecialMarkup;
  if (type == kControl && text == "<s>") model->bos_id = id;
  if (type == kControl && text == "</s>") model->eos_id = id;
  const int byte = type == kByte ? ParseByteToken(text) : -1;
  if (byte >= 0) {
    model->byte_ids[static_cast<size_t>(byte)] = id;
    token.text = std::string(1, static_cast<char>(byte));
  } else {
    token.text = ReplaceMetaspace(text);
  }
  if (token.text.empty()) token.special_flags = 0;
  if (!std::isfinite(score))
    throw Error(ExitCode::kBadModel, path + ": the score of piece " + std::to_string(id) + " is no number");
  model->tokens.push_back(std::move(token));
  scores->push_back(score);
}

}  // namespace

TokenizerModel ReadSentencePieceModel(const std::string &path, const std::string &jinja, const TokenizerHints &hints) {
  const MappedFile file(path);
  TokenizerModel model;
  std::vector<float> scores;
  bool dummy_prefix = true;
  uint64_t model_type = kModelTypeUnigram;  // the proto's default
  Field field;
  for (ProtoReader reader(file.text(), path); reader.Next(&field);) {
    Field inner;
    if (field.wire_type != 2) continue;
    if (field.number == 1) AddPiece(field.bytes, path, &model, &scores);
    if (field.number == 2) {
      for (ProtoReader trainer(field.bytes, path); trainer.Next(&inner);) {
        if (inner.number == 3) model_type = inner.integer;
      }
    }
    if (field.number == 3) {
      for (ProtoReader normalizer(field.bytes, path); normalizer.Next(&inner);) {
        if (inner.number == 3) dummy_prefix = inner.integer != 0;
      }
    }
  }
  if (model.tokens.empty() || model_type != kModelTypeBpe) {
    throw Error(ExitCode::kBadModel, path + ": not a SentencePiece model of type BPE");
  }
  UseSentencePieceScores(&model, scores);
  model.jinja = jinja;
  if (dummy_prefix) model.dummy_prefix = layout::DummyPrefix::kEvery;
  model.flags |= layout::kFlagAddBos;
  FinishTokenizer(&model, hints, path);
  return model;
}

// int32 longest token, then for each token float32 score, int32 bytes, the bytes. 0 is <unk>, 1 BOS, 2 EOS, then 256 bytes.
TokenizerModel ReadLlama2cTokenizer(const std::string &path, const TokenizerHints &hints) {
  constexpr size_t kFirstByte = 3, kFirstOrdinary = kFirstByte + 256;
  const MappedFile file(path);
  TokenizerModel model;
  std::vector<float> scores;
  size_t offset = 4;
  while (offset + 8 <= file.size()) {
    float score;
    int32_t bytes;
    std::memcpy(&score, file.data() + offset, sizeof score);
    std::memcpy(&bytes, file.data() + offset + 4, sizeof bytes);
    offset += 8;
    if (bytes < 0 || static_cast<size_t>(bytes) > file.size() - offset || !std::isfinite(score)) {
      throw Error(ExitCode::kBadModel,
                  path + ": token " + std::to_string(scores.size()) + " at offset " + std::to_string(offset) + " is damaged");
    }
    const size_t id = model.tokens.size();
    SourceToken token;
    token.text.assign(reinterpret_cast<const char *>(file.data()) + offset, static_cast<size_t>(bytes));
    offset += static_cast<size_t>(bytes);
    if (id < kFirstByte) {
      constexpr const char *kNames[kFirstByte] = {"<unk>", "<s>", "</s>"};
      token.text = kNames[id];
      token.special_flags = layout::kSpecialHidden | layout::kSpecialMarkup;
      token.findable = false;
    } else if (id < kFirstOrdinary) {
      token.text = std::string(1, static_cast<char>(id - kFirstByte));
      token.findable = false;
      model.byte_ids[id - kFirstByte] = static_cast<int32_t>(id);
    }
    model.tokens.push_back(std::move(token));
    scores.push_back(score);
  }
  if (offset != file.size() || model.tokens.size() < kFirstOrdinary) {
    throw Error(ExitCode::kBadModel, path + ": not a llama2.c tokenizer, or cut short");
  }
  model.unk_id = 0;
  model.bos_id = 1;
  model.eos_id = 2;
  model.flags |= layout::kFlagAddBos;
  UseSentencePieceScores(&model, scores);
  model.dummy_prefix = layout::DummyPrefix::kFirst;
  FinishTokenizer(&model, hints, path);
  return model;
}

}  // namespace acorn::compiler
