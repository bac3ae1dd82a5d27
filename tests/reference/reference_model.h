// Runs a whole model file with the loops of reference_arithmetic.h: slow, straight, independent of the runtime. Trusts the
// file's structure (the reader's tests are elsewhere), checks its numbers.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "acorn_schema/acorn_generated.h"
#include "tests/reference/reference_arithmetic.h"

namespace acorn::reference {

/// What one step has written.
struct StepTrace {
  const char *list;  // "body" or "head"
  uint32_t index;    // of the step in its list
  const char *op;
  uint32_t value, offset, width, rows;
  std::vector<int32_t> data;  // [rows, width]; a row of Append is the keys, then the values, of all KV heads
};
using Trace = std::function<void(const StepTrace &)>;

class ReferenceModel {
 public:
  /// Ends the process with a message where the file cannot be read.
  static ReferenceModel Open(const std::string &path);
  explicit ReferenceModel(std::vector<uint8_t> file);

  /// Logits of every position of a session that starts with these tokens: [tokens, vocab_size].
  std::vector<int32_t> Logits(const std::vector<int32_t> &tokens, const Trace &trace = nullptr) const;

  uint32_t vocab_size() const { return model().vocab_size(); }
  uint32_t max_context() const { return model().max_context(); }

 private:
  struct Run;

  const schema::Model &model() const;
  struct Expert;
  const Expert &UnpackedExpert(uint32_t set, uint32_t index) const;
  void UnpackWeights();
  template <typename T>
  std::vector<T> Array(const schema::Ref *ref, uint64_t count) const;
  Range RangeOf(const schema::Slice *slice) const;

  void Execute(Run *run, const schema::Step &step) const;
  void Execute(Run *run, const schema::Embedding &op) const;
  void Execute(Run *run, const schema::RmsNorm &op) const;
  void Execute(Run *run, const schema::Linear &op) const;
  void Execute(Run *run, const schema::Rotate &op) const;
  void Execute(Run *run, const schema::Append &op) const;
  void Execute(Run *run, const schema::Attention &op) const;
  void Execute(Run *run, const schema::Glu &op) const;
  void Execute(Run *run, const schema::Hadamard &op) const;
  void Execute(Run *run, const schema::Add &op) const;
  void Execute(Run *run, const schema::LayerNorm &op) const;
  void Execute(Run *run, const schema::Experts &op) const;
  void Execute(Run *run, const schema::Conv &op) const;
  void Execute(Run *run, const schema::Scan &op) const;

  std::vector<uint8_t> file_;
  std::vector<Matrix> weights_;
  mutable std::map<std::pair<uint32_t, uint32_t>, std::shared_ptr<Expert>> experts_;  // by set and index; filled as they are used
};

/// FNV-1a-64 over the values as little-endian bytes: `digest` and `ids_digest` of the programs.
uint64_t Digest(const int32_t *values, size_t count);

}  // namespace acorn::reference
