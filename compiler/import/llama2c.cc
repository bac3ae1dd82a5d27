// llama2.c checkpoints, version 0: seven int32, then float32 tensors in a fixed order, each kind for all layers.
#include "base/error.h"
#include "import/source_parts.h"

namespace acorn::compiler {
namespace {

constexpr uint64_t kHeaderBytes = 28;
constexpr uint32_t kLaterMagic = 0x616b3432;  // "ak42": versions 1 and 2
constexpr int32_t kBos = 1;
constexpr int32_t kEos = 2;

[[noreturn]] void Bad(const std::string &path, const std::string &what) {
  throw Error(ExitCode::kBadModel, path + ": " + what);
}

int32_t ReadI32(const MappedFile &file, uint64_t index) {
  uint32_t bits = 0;
  for (uint64_t i = 0; i < 4; ++i) bits |= static_cast<uint32_t>(file.data()[index * 4 + i]) << (8 * i);
  return static_cast<int32_t>(bits);
}

// Tensors in file order; between kFinalNorm and kHead stand two rotary tables that nobody needs.
constexpr TensorRole kOrder[] = {
    TensorRole::kEmbedding, TensorRole::kAttnNorm, TensorRole::kQ,         TensorRole::kK,
    TensorRole::kV,         TensorRole::kO,        TensorRole::kFfnNorm,   TensorRole::kGate,
    TensorRole::kDown,      TensorRole::kUp,       TensorRole::kFinalNorm, TensorRole::kHead,
};

}  // namespace

std::unique_ptr<SourceParts> ImportLlama2c(const std::string &path) {
  auto parts = std::make_unique<SourceParts>();
  parts->format = SourceFormat::kLlama2c;
  parts->path = path;
  parts->files.push_back(std::make_unique<MappedFile>(path));
  const MappedFile &file = *parts->files.back();
  if (file.size() < kHeaderBytes) Bad(path, "neither a GGUF file nor a llama2.c checkpoint");
  if (static_cast<uint32_t>(ReadI32(file, 0)) == kLaterMagic) {
    Bad(path, "llama2.c checkpoint of a later version; version 0 is supported (export.py --version 0)");
  }
  ModelConfig &config = parts->config;
  config.family = "llama";
  config.architecture = "llama2.c";
  config.hidden = ReadI32(file, 0);
  config.ffn = ReadI32(file, 1);
  config.layers = ReadI32(file, 2);
  config.heads = ReadI32(file, 3);
  config.kv_heads = ReadI32(file, 4);
  const int64_t vocab = ReadI32(file, 5);
  config.vocab = vocab < 0 ? -vocab : vocab;  // a negative size says that the head is not the embedding
  config.tied_head = vocab > 0;
  config.max_context = ReadI32(file, 6);
  if (config.heads <= 0 || config.hidden <= 0 || config.hidden % config.heads != 0) {
    Bad(path, "neither a GGUF file nor a llama2.c checkpoint");
  }
  config.head_dim = config.hidden / config.heads;
  config.rotary_dims = config.head_dim;
  config.rms_eps = 1e-5;
  config.bos_id = kBos;
  config.eos_ids = {kEos};
  try {
    CheckConfig(config, path);
  } catch (const Error &fault) {  // without a magic number, absurd sizes say that it is something else
    throw Error(ExitCode::kBadModel, std::string(fault.what()) + "; neither a GGUF file nor a llama2.c checkpoint?");
  }

  uint64_t offset = kHeaderBytes;
  for (const TensorRole role : kOrder) {
    if (role == TensorRole::kHead) {
      // [max_context, head_dim / 2] of cos, then of sin
      offset += 2 * 4 * static_cast<uint64_t>(config.max_context) * static_cast<uint64_t>(config.head_dim / 2);
      if (config.tied_head) break;
    }
    const TensorShape shape = RoleShape(config, role);
    const int64_t count = IsLayerRole(role) ? config.layers : 1;
    // CheckConfig bounds every size far below the point where these products could wrap.
    const uint64_t bytes = 4 * static_cast<uint64_t>(shape.n) * static_cast<uint64_t>(shape.k);
    for (int64_t layer = 0; layer < count; ++layer) {
      if (offset > file.size() || bytes > file.size() - offset) {
        Bad(path, std::string("llama2.c checkpoint: ") + TensorRoleName(role) + " of layer " + std::to_string(layer) +
                      " at offset " + std::to_string(offset) + " needs " + std::to_string(bytes) + " bytes, the file has " +
                      std::to_string(file.size()));
      }
      TensorView view;
      view.file = &file;
      view.offset_bytes = offset;
      view.type = ElementType::kF32;
      view.interleaved = role == TensorRole::kQ || role == TensorRole::kK;
      AddTensor(parts.get(), {role, 1, layer, -1, TensorRoleName(role)}, {shape.n, shape.k}, std::move(view));
      offset += bytes;
    }
  }
  if (offset != file.size()) {
    Bad(path, "llama2.c checkpoint: its header asks for " + std::to_string(offset) + " bytes, the file has " +
                  std::to_string(file.size()));
  }
  return parts;
}

}  // namespace acorn::compiler
