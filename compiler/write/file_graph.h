// FileGraph: the GraphBuilder that collects constants, weights and steps of a model file (schema/acorn.fbs) and writes it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "write/graph_builder.h"

namespace acorn::compiler {

struct ModelFacts {
  std::string name;
  std::string family;
  uint32_t vocab_size = 0;
  uint32_t max_context = 0;
  std::vector<int32_t> prefix_tokens;
  std::vector<uint8_t> tokenizer;  // compiled segment, empty when there is none
  std::vector<std::pair<std::string, std::string>> provenance;
};

class FileGraph : public GraphBuilder {
 public:
  /// path: the file that Finish() writes. What is large lies beside it until then. rates: beside 0, in percent, rising.
  explicit FileGraph(const std::string &path, const std::vector<int> &rates = {});
  ~FileGraph() override;
  FileGraph(const FileGraph &) = delete;
  FileGraph &operator=(const FileGraph &) = delete;

  Port NewValue(EdgeType type, int64_t width) override;
  void BeginWeightSegment() override;
  WeightInfo AddWeight(const QuantizedMatrix &matrix, Layout layout, EdgeType input, int64_t k_panel) override;
  uint16_t AddRope(const std::vector<double> &turns, uint32_t limit) override;
  uint16_t AddCache(int64_t kv_heads, int64_t head_dim, int bits, const std::vector<int8_t> &prefix_k,
                    const std::vector<int8_t> &prefix_v, int64_t window) override;
  uint16_t AddState(uint32_t rows, uint32_t columns, const std::vector<int16_t> &prefix) override;
  uint16_t AddState(uint32_t rows, uint32_t columns, const std::vector<int32_t> &prefix) override;
  void BeginHead(const Port &body_out) override;
  void SelectProfile(size_t profile) override;
  void Embedding(const Port &out, const WeightInfo &weight) override;
  void RmsNorm(const Port &in, const Port &out, int64_t groups, const std::vector<double> &gamma, double eps) override;
  void LayerNorm(const Port &in, const Port &out, const std::vector<double> &gain, const std::vector<double> &bias,
                 double eps) override;
  void Linear(const Port &in, const Port &out, const WeightInfo &weight, const std::vector<double> &bias,
              const std::vector<double> &out_scales) override;
  void Rotate(const Port &in, const Port &out, uint16_t rope, const std::vector<double> &out_scales,
              const std::vector<uint8_t> &pairs) override;
  void Append(const Port &k, const Port &v, uint16_t cache, const std::vector<double> &v_scales) override;
  void Attention(const Port &q, const Port *sink_q, const Port &out, uint16_t cache, const std::vector<double> &score_scales,
                 const std::vector<double> &v_scales, const ValueOrder &order) override;
  void Glu(const Port &gate, const Port &up, const Port &out, const std::vector<double> &factor) override;
  void Hadamard(const Port &in, const Port &out, uint32_t block, const std::vector<double> &head_units) override;
  void Add(const Port &a, const Port &b, const Port &out) override;
  void Conv(const Port &in, const Port &out, const ConvSpec &spec) override;
  void Scan(const Port &x, const Port &b, const Port &c, const Port &step, const Port &out, const ScanSpec &spec) override;
  uint16_t BeginExperts(const ExpertSetSpec &spec) override;
  void AddExpert(const ExpertMatrices &expert) override;
  void Experts(const Port &router, const Port &out, uint16_t set, const RoutingSpec &routing, const Port *shared,
               const Port *shared_gate) override;

  /// Writes the file. `logits` is an s32 port. Returns its size in bytes.
  uint64_t Finish(const Port &logits, const ModelFacts &facts);

 private:
  void AddSlice(const ExpertMatrices &matrices);

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace acorn::compiler
