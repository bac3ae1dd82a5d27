// OpenedModel: a model file opened through the library as a device would, on this machine's threads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "acorn.h"
#include "acorn_posix.h"
#include "base/mapped_file.h"

namespace acorn::compiler {

class OpenedModel {
 public:
  /// file: outlives the object. threads: 0 means those of ParallelFor. options.context_tokens is lowered to what the model has.
  /// Throws Error(kBadModel), naming file and fault, and Error(kMemory).
  OpenedModel(const MappedFile &file, acorn_options options, int threads = 0);
  OpenedModel(const OpenedModel &) = delete;
  OpenedModel &operator=(const OpenedModel &) = delete;

  uint32_t context_tokens() const { return context_tokens_; }
  const acorn_model *model() const { return model_; }
  acorn_session *session() { return session_; }
  /// Throws Error(kBadModel), naming the file, unless `status` is ACORN_OK.
  void Check(acorn_status status, const acorn_fault &fault = {}) const;

 private:
  std::string path_;
  std::unique_ptr<acorn_posix, void (*)(acorn_posix *)> posix_;
  std::vector<uint8_t> block_;
  acorn_model *model_ = nullptr;
  acorn_session *session_ = nullptr;
  uint32_t context_tokens_ = 0;
};

}  // namespace acorn::compiler
