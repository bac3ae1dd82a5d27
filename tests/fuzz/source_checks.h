// What holds for any source that an importer lets pass: every tensor that its configuration names can be read, has the shape that it
// says, and lies in the file. For fuzz targets.
#pragma once

#include "base/error.h"
#include "import/source_model.h"
#include "tests/fuzz/fuzz.h"

namespace acorn::fuzz {

/// body(), which may end with an Error of the importer's, and with nothing else.
template <typename Body>
bool EndsWell(const Body &body) {
  try {
    body();
    return true;
  } catch (const compiler::Error &error) {
    Require(error.what()[0] != '\0', "an error says what it is");
    return false;
  }
}

inline void ReadTensor(const compiler::SourceModel &model, compiler::TensorRole role, int64_t layer) {
  const compiler::TensorShape shape = compiler::RoleShape(model.config(), role);
  EndsWell([&] {  // a value may not be finite
    const compiler::Matrix whole = model.Load(role, layer);
    Require(whole.rows() == shape.n && whole.cols() == shape.k, "a tensor of the shape that its role has");
  });
  EndsWell([&] { model.LoadRows(role, layer, shape.n - 1, 1); });
  Require(!EndsWell([&] { model.LoadRows(role, layer, shape.n, 1); }), "no row behind the last");
  if (compiler::IsExpertRole(role)) EndsWell([&] { model.LoadExpert(role, layer, model.config().experts - 1); });
}

inline void ReadEverything(const compiler::SourceModel &model) {
  const compiler::ModelConfig &config = model.config();
  Require(model.SourceElems() > 0 && model.SourceBytes() > 0, "a model has tensors");
  for (int i = 0; i < compiler::kTensorRoles; ++i) {
    const auto role = static_cast<compiler::TensorRole>(i);
    const int64_t layers = compiler::IsLayerRole(role) ? config.layers : 1;
    for (int64_t layer = 0; layer < layers; ++layer) {
      if (compiler::HasRole(config, role, layer)) ReadTensor(model, role, layer);
    }
  }
}

}  // namespace acorn::fuzz
