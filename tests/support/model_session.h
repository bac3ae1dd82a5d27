// A model file opened through the public API with memory of its own: for tests that want logits.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "acorn.h"
#include "tests/support/model_builder.h"

namespace acorn::test {

/// One model, one session. After any failure status() says which and the object only answers that.
class ModelSession {
 public:
  explicit ModelSession(AlignedBytes file, acorn_options options = {}, const acorn_port *port = nullptr) : file_(std::move(file)) {
    const acorn_image image{file_.data(), file_.size()};
    options.struct_size = sizeof options;
    plan_.struct_size = sizeof plan_;
    fault_.struct_size = sizeof fault_;
    status_ = acorn_plan(&plan_, &fault_, &image, &options, port);
    if (status_ != ACORN_OK) return;
    block_ = AlignedBytes(std::vector<uint8_t>(plan_.block_bytes, 0xa5));
    status_ = acorn_model_open(&model_, &fault_, &image, &options, port, block_.data(), plan_.block_bytes);
    if (status_ == ACORN_OK) status_ = acorn_session_open(&session_, model_);
  }

  /// The logits of every token, appended to the conversation: [tokens, vocab_size].
  std::vector<int32_t> Score(const std::vector<int32_t> &tokens) {
    std::vector<int32_t> logits;
    if (status_ != ACORN_OK) return logits;
    const auto collect = [](void *ctx, size_t, const int32_t *row, size_t count) {
      auto *all = static_cast<std::vector<int32_t> *>(ctx);
      all->insert(all->end(), row, row + count);
      return 0;
    };
    status_ = acorn_session_score(session_, tokens.data(), tokens.size(), collect, &logits);
    return logits;
  }

  acorn_status status() const { return status_; }
  const acorn_fault &fault() const { return fault_; }
  const acorn_memory_plan &plan() const { return plan_; }
  acorn_model *model() { return model_; }
  acorn_session *session() { return session_; }

 private:
  AlignedBytes file_;  // the model reads its weights there
  acorn_status status_ = ACORN_OK;
  acorn_fault fault_ = {};
  acorn_memory_plan plan_ = {};
  AlignedBytes block_;
  acorn_model *model_ = nullptr;
  acorn_session *session_ = nullptr;
};

}  // namespace acorn::test
