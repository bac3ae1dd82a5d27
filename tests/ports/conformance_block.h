// A small model and a block, as the conformance program wants them.
#pragma once

#include <vector>

#include "tests/ports/conformance.h"
#include "tests/support/model_builder.h"

namespace acorn::test {

class ConformanceBlock {
 public:
  ConformanceBlock() : file_(BuildModel(VariedSpecs().front())), block_(std::vector<uint8_t>(size_t{4} << 20)) {}
  const AlignedBytes &file() const { return file_; }
  uint32_t Run(const acorn_port &port) {
    const acorn_image image{file_.data(), file_.size()};
    return acorn_port_conformance(&port, &image, block_.data(), block_.size());
  }

 private:
  AlignedBytes file_, block_;
};

}  // namespace acorn::test
