// GraphBuilder: turns operators with real scales into the integer graph of a model file (schema/acorn.fbs), operator by
// operator as docs/ARITHMETIC.md states them. Collects constants, weights and steps; Finish() writes the file.
// Knows nothing of model families: model_writer.h strings operators together.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "pack/pack.h"
#include "pack/quantized_matrix.h"

namespace acorn::compiler {

/// Data types of activation edges, numbered as in the schema.
enum class EdgeType : uint8_t { kS8 = 1, kS15 = 2, kS16 = 3, kS32 = 4 };
/// Largest magnitude that an edge of a type holds.
double EdgeLimit(EdgeType type);

/// Columns [offset, offset + width) of a value and the real size of one unit there.
struct Port {
  uint16_t value = 0;
  uint32_t offset = 0;
  uint32_t width = 0;
  EdgeType type = EdgeType::kS16;
  double scale = 1.0;
};
Port Columns(const Port &port, uint32_t offset, uint32_t width, double scale);
Port Scaled(Port port, double scale);

/// A weight known to the graph: what the operators that use it need to know about its integers.
struct WeightInfo {
  uint16_t index = 0;
  int64_t n = 0;
  int64_t k = 0;
  std::vector<double> scale;           // [n]
  std::vector<int64_t> absolute_sums;  // [n]
};
WeightInfo DescribeWeight(uint16_t index, const QuantizedMatrix &matrix);

struct ModelFacts {
  std::string name;
  std::string family;
  uint32_t vocab_size = 0;
  uint32_t max_context = 0;
  std::vector<int32_t> prefix_tokens;
  std::vector<uint8_t> tokenizer;  // compiled segment, empty when there is none
  std::vector<std::pair<std::string, std::string>> provenance;
};

class GraphBuilder {
 public:
  GraphBuilder();
  ~GraphBuilder();
  GraphBuilder(const GraphBuilder &) = delete;
  GraphBuilder &operator=(const GraphBuilder &) = delete;

  /// A new value of `width` columns. The runtime takes at most 64 in a graph.
  Port NewValue(EdgeType type, int64_t width);
  /// Index for a weight that SetWeight() fills later.
  uint16_t ReserveWeight();
  /// Weights set from now on go to a new segment.
  void BeginWeightSegment();
  /// input: type of the rows that it multiplies.
  void SetWeight(uint16_t index, PackedWeight packed, EdgeType input);
  /// Frequencies in turns per position.
  uint16_t AddRope(const std::vector<double> &turns);
  /// bits: of an element in the device's memory, 8 or 4.
  /// prefix_k, prefix_v: s8 [rows, kv_heads, head_dim], empty without a prefix.
  uint16_t AddCache(int64_t kv_heads, int64_t head_dim, int bits, const std::vector<int8_t> &prefix_k,
                    const std::vector<int8_t> &prefix_v);

  /// Steps go to the body until BeginHead(), then to the head.
  void BeginHead(const Port &body_out);

  /// Comes before every other step of the body, whenever it is called.
  void Embedding(const Port &out, const WeightInfo &weight);
  /// out = rmsnorm(in) * gamma in each of `groups` equal parts; gamma has width / groups entries.
  void RmsNorm(const Port &in, const Port &out, int64_t groups, const std::vector<double> &gamma, double eps);
  /// bias: real, [n] or empty. out_scales: [n], the real size of one unit of each output column.
  void Linear(const Port &in, const Port &out, const WeightInfo &weight, const std::vector<double> &bias,
              const std::vector<double> &out_scales);
  /// out_scales: [heads].
  void Rotate(const Port &in, const Port &out, uint16_t rope, const std::vector<double> &out_scales);
  /// v_scales: [kv_heads], of the cached rows.
  void Append(const Port &k, const Port &v, uint16_t cache, const std::vector<double> &v_scales);
  /// score_scales: [heads], a score in natural units (query scale * key scale / sqrt(head_dim)); v_scales: [heads].
  void Attention(const Port &q, const Port &out, uint16_t cache, const std::vector<double> &score_scales,
                 const std::vector<double> &v_scales);
  /// Scale that Glu's output has for these inputs: the finest for which a magnitude of `largest` fits.
  static double GluScale(double gate_scale, double up_scale, double largest);
  /// factor: the activation's a(x) / x at (i - 256) / 16. out.scale must come from GluScale().
  void Glu(const Port &gate, const Port &up, const Port &out, const std::vector<double> &factor);
  /// out = orthonormal Hadamard transform of each block of `block` columns.
  void Hadamard(const Port &in, const Port &out, uint32_t block);
  void Add(const Port &a, const Port &b, const Port &out);

  /// Writes the file. `logits` is an s32 port. Returns its size in bytes.
  uint64_t Finish(const std::string &path, const Port &logits, const ModelFacts &facts);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace acorn::compiler
