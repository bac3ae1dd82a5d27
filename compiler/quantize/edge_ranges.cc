#include "quantize/edge_ranges.h"

#include <algorithm>
#include <cmath>

#include "quantize/cached.h"
#include "write/op_integers.h"

namespace acorn::compiler {
namespace {

const char *TypeName(EdgeType type) {
  switch (type) {
    case EdgeType::kS8:
      return "s8";
    case EdgeType::kS15:
      return "s15";
    case EdgeType::kS16:
      return "s16";
    case EdgeType::kS32:
      return "s32";
  }
  return "";
}

class Rows {
 public:
  Rows(int64_t layer, const RangeObserver *ranges) : layer_(layer), ranges_(ranges) {}

  void Add(const char *edge, const char *meaning, EdgeType type, double scale, int32_t zero_point, Edge seen) {
    Add(edge, meaning, type, scale, zero_point, ranges_ == nullptr ? NAN : ranges_->Largest(seen));
  }
  void Add(const char *edge, const char *meaning, EdgeType type, double scale, int32_t zero_point, double largest) {
    rows_.push_back(EdgeRange(layer_, edge, meaning, type, scale, zero_point, largest));
  }
  void Add16(const char *edge, const char *meaning, double scale, Edge seen) {
    Add(edge, meaning, EdgeType::kS16, scale, 0, seen);
  }
  void AddHeads(const char *edge, const char *meaning, int bits, const std::vector<double> &scales, Edge seen) {
    for (size_t head = 0; head < scales.size(); ++head) {
      Add(edge, meaning, EdgeType::kS8, scales[head], 0, ranges_ == nullptr ? NAN : ranges_->LargestOfHeads(seen)[head]);
      RangeReport &row = rows_.back();
      row.head = static_cast<int64_t>(head);
      row.type = bits == 4 ? "s4" : "s8";
      row.closed_form = row.in_file = scales[head] * CacheLimit(bits);
    }
  }
  /// Of the recurrence's state, each head: 31 bits of an s32.
  void AddStates(const std::vector<double> &units) {
    constexpr double kLimit = (1 << 30) - 1;
    for (size_t head = 0; head < units.size(); ++head) {
      const auto column = static_cast<int64_t>(head);
      const double largest = ranges_ == nullptr ? NAN : static_cast<double>(ranges_->ColumnLargest(Edge::kSsmState)[column]);
      Add("ssm_state", "state of the recurrence, each head", EdgeType::kS32, units[head], 0, largest);
      RangeReport &row = rows_.back();
      row.head = column;
      row.closed_form = row.in_file = units[head] * kLimit;
    }
  }
  std::vector<RangeReport> Take() { return std::move(rows_); }

 private:
  int64_t layer_;
  const RangeObserver *ranges_;
  std::vector<RangeReport> rows_;
};

}  // namespace

RangeReport EdgeRange(int64_t layer, const char *edge, const char *meaning, EdgeType type, double scale, int32_t zero_point,
                      double largest) {
  RangeReport row;
  row.layer = layer;
  row.edge = edge;
  row.meaning = meaning;
  row.type = TypeName(type);
  row.largest = largest;
  row.closed_form = row.in_file = scale * EdgeLimit(type);
  row.zero_point = zero_point;
  return row;
}

namespace {

void AddAttention(const LayerScales &scales, int kv_bits, bool qk_norm, Rows *rows) {
  rows->Add16("q16", "queries", scales.q16, Edge::kQ);
  rows->Add16("k16", "keys", scales.k16, Edge::kK);
  rows->Add16("v16", "values", scales.v16, Edge::kV);
  if (qk_norm) {
    rows->Add16("q_normed16", "queries after their norm", scales.q_normed16, Edge::kQNormed);
    rows->Add16("k_normed16", "keys after their norm", scales.k_normed16, Edge::kKNormed);
  }
  rows->AddHeads("q8", "rotated queries, each head", 8, scales.q8, Edge::kQRotated);
  rows->AddHeads("k8", "cached keys, each head", kv_bits, scales.k8, Edge::kKRotated);
  rows->AddHeads("v8", "cached values, each head", kv_bits, scales.v8, Edge::kV);
  rows->Add("attn_out", "input of o", EdgeType::kS8, scales.attn_out, scales.attn_out_zero, Edge::kAttnOut);
  rows->Add16("o16", "output of o", scales.o16, Edge::kOOut);
}

/// Of edges whose heads, groups or channels have their own scales the widest.
void AddStateSpace(const LayerScales &edges, const StateSpaceScales &scales, const RangeObserver *ranges, Rows *rows) {
  const auto widest = [](const std::vector<double> &units) { return *std::max_element(units.begin(), units.end()); };
  rows->Add16("ssm_gate16", "gate", scales.gate16, Edge::kSsmGate);
  rows->Add16("ssm_conv_in16", "input of the convolution, widest channel", widest(scales.conv_in16), Edge::kSsmConvIn);
  rows->Add16("ssm_step16", "time step before bias and softplus, widest head", widest(scales.step16), Edge::kSsmStep);
  const double convolved = std::max({widest(scales.x16), widest(scales.b16), widest(scales.c16)});
  rows->Add16("ssm_conv_out16", "x, B and C, widest head or group", convolved, Edge::kSsmConvOut);
  rows->AddStates(scales.state);
  rows->Add16("ssm_scan16", "output of the recurrence", scales.scan16, Edge::kSsmScan);
  rows->Add16("ssm_gated16", "times the activated gate", GluScale(scales.gate16, scales.scan16, scales.gated_largest),
              Edge::kSsmGated);
  rows->Add16("ssm_normed16", "after the norm", scales.normed16, Edge::kSsmNormed);
  rows->Add("ssm_out_in", "input of out", EdgeType::kS8, edges.attn_out, edges.attn_out_zero,
            ranges == nullptr ? NAN : ranges->LargestOutInput());
  rows->Add16("ssm_out16", "output of out", edges.o16, Edge::kOOut);
}

}  // namespace

std::vector<RangeReport> LayerRanges(int64_t layer, const QuantizedLayer &quantized, int kv_bits, const ModelConfig &config,
                                     const RangeObserver *ranges) {
  const LayerScales &scales = quantized.scales;
  const InputTypes &inputs = quantized.inputs;
  Rows rows(layer, ranges);
  const char *readers = quantized.ssm.empty() ? "input of q, k, v" : "input of gate, convolution and time step";
  rows.Add("attn_in", readers, inputs.attn_in, scales.attn_in, scales.attn_in_zero, Edge::kAttnIn);
  if (quantized.ssm.empty()) {
    AddAttention(scales, kv_bits, config.qk_norm, &rows);
  } else {
    AddStateSpace(scales, quantized.ssm.scales, ranges, &rows);
  }
  if (!config.HasFfn(layer)) {
    rows.Add16("mid16", "residual after the layer", scales.mid16, Edge::kResidualMid);
    return rows.Take();
  }
  rows.Add16("mid16", "residual between attention and FFN", scales.mid16, Edge::kResidualMid);
  rows.Add("ffn_in", "input of gate and up", inputs.ffn_in, scales.ffn_in, scales.ffn_in_zero, Edge::kFfnIn);
  rows.Add16("gate16", "gate", scales.gate16, Edge::kGate);
  rows.Add16("up16", "up", scales.up16, Edge::kUp);
  rows.Add16("glu16", "activation(gate) × up", GluScale(scales.gate16, scales.up16, scales.glu_largest), Edge::kGlu);
  rows.Add("down_in", "input of down", inputs.down_in, scales.down_in, scales.down_in_zero,
           ranges == nullptr ? NAN : ranges->LargestDownInput());
  rows.Add16("down16", "output of down", scales.down16, Edge::kDownOut);
  rows.Add16("out16", "residual after the layer", scales.out16, Edge::kResidualOut);
  return rows.Take();
}

}  // namespace acorn::compiler
