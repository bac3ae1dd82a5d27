// What an importer hands to SourceModel: the configuration and where each tensor lies. For importers only.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "base/mapped_file.h"
#include "base/span.h"
#include "import/dequantize.h"
#include "import/source_model.h"

namespace acorn::compiler {

/// One tensor in a mapped file: row-major, the bytes checked to lie inside the file.
struct TensorView {
  const MappedFile *file = nullptr;
  std::string name;  // as the source calls it; AddTensor() sets it
  uint64_t offset_bytes = 0;
  ElementType type = ElementType::kF32;
  int64_t n = 0;  // rows; 1 for vectors
  int64_t k = 0;
  float offset = 0;     // added to every value
  bool is_log = false;  // the value x stands for -exp(x)
  /// Heads stand as rotary pairs (2i, 2i + 1) and are read as halves (i, i + head_dim / 2).
  bool interleaved = false;
};

enum class Projections : uint8_t {
  kApart,
  kFused,  // q, k and v in one tensor, gate and up in another, one below the other
};

/// A tensor of the model or of each layer, and the roles that it holds: `roles` of them, from `first` on, one below the other.
struct TensorName {  // NOLINT(clang-analyzer-optin.performance.Padding): rows of tables read in this order
  TensorRole first;
  const char *name;  // what a layer's number and the dot behind it precede, for roles of a layer; '*' is an expert's number
  int roles = 1;
};

/// One tensor that a source must have.
struct WantedTensor {
  TensorRole first;
  int roles = 1;
  int64_t layer = 0;     // 0 outside the layers
  int64_t expert = -1;   // -1: of no single expert
  std::string name;      // with the numbers of layer and expert
};

/// Calls add(tensor) for every tensor of `names` that a source with this configuration must have. `layer_prefix` precedes the
/// number of a layer.
void ForEachTensor(const ModelConfig &config, Projections projections, Span<const TensorName> names, const char *layer_prefix,
                   const std::function<void(const WantedTensor &tensor)> &add);

using TensorKey = std::tuple<TensorRole, int64_t, int64_t>;  // role, layer (0 outside the layers), expert (0 for other roles)

struct SourceParts {
  SourceFormat format = SourceFormat::kHuggingFace;
  std::string path;
  ModelConfig config;
  TokenizerSource tokenizer;
  std::vector<std::unique_ptr<MappedFile>> files;
  std::unique_ptr<GgufFile> gguf;
  std::map<TensorKey, TensorView> tensors;
};

std::unique_ptr<SourceParts> ImportHuggingFace(const std::string &folder);
std::unique_ptr<SourceParts> ImportGguf(const std::string &path);
std::unique_ptr<SourceParts> ImportLlama2c(const std::string &path);

/// Throws Error(kBadModel) naming `path` and the value when a size or constant makes no sense.
void CheckConfig(const ModelConfig &config, const std::string &path);
/// The same for the number of layers alone, before there is a list of them.
void CheckLayerCount(int64_t layers, const std::string &path);
/// The same for what makes a mixture of experts.
void CheckExperts(const ModelConfig &config, const std::string &path);

/// Adds one tensor after checking that its shape is that of its roles, one below the other. A vector may come as [n], [1, n] or
/// [n, 1]; an expert role for all experts as [experts, n, k].
void AddTensor(SourceParts *parts, const WantedTensor &tensor, const std::vector<int64_t> &shape, TensorView view);

}  // namespace acorn::compiler
