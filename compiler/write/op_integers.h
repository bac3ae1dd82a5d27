// The integer constants of each operator (docs/ARITHMETIC.md) from the real sizes of its edges' units. What is written to a
// file and what the training twin computes with come from here, so that they cannot differ.
#pragma once

#include <cstdint>
#include <vector>

#include "base/matrix.h"
#include "write/factor.h"
#include "write/port.h"

namespace acorn::compiler {

/// §2. scales: [n], of the rows of the table.
IntegerFactors EmbeddingIntegers(const Port &out, const std::vector<double> &scales);

/// §4. gamma: of one group, or of each column.
struct NormIntegers {
  std::vector<int16_t> gamma;
  IntegerFactor factor;
  uint64_t eps_term = 0;
};
NormIntegers RmsNormIntegers(const Port &in, const Port &out, int64_t groups, const std::vector<double> &gamma, double eps);

/// §4.2. gain, bias: [width].
struct LayerNormIntegers {
  std::vector<int16_t> gamma;
  std::vector<int32_t> beta;
  int shift = 1;
  uint64_t eps_term = 0;
};
LayerNormIntegers MakeLayerNormIntegers(const Port &in, const Port &out, const std::vector<double> &gain,
                                        const std::vector<double> &bias, double eps);

/// §3. bias: real, [n] or empty. out_scales: [n].
struct LinearIntegers {
  std::vector<int32_t> bias;
  IntegerFactors factors;
};
LinearIntegers MakeLinearIntegers(const Port &in, const WeightInfo &weight, const std::vector<double> &bias,
                                  const std::vector<double> &out_scales);

/// §5. F_i from the turns per position of each pair.
std::vector<uint64_t> RopeFrequencyIntegers(const std::vector<double> &turns);
/// §5. out_scales: [heads].
IntegerFactors RotateIntegers(const Port &in, const std::vector<double> &out_scales);
/// §6. v_scales: [kv_heads], of the cached rows.
IntegerFactors AppendIntegers(const Port &v, const std::vector<double> &v_scales);

/// §7. score_scales: [heads], a score in natural units; v_scales: [heads], of the cached values that a head reads.
struct AttentionIntegers {
  IntegerFactors exp, out;
};
/// The output's multipliers share a shift and lie in [2^30, 2^31): value scales below the lowest that allows it are raised.
void RaiseToOneBinade(std::vector<double> *v_scales, double out_scale);
/// Where the value scales are given, once raised for another output: the finest scale of an output, at least out_scale, that allows it.
double RaiseToBinadeOf(const std::vector<double> &v_scales, double out_scale);
AttentionIntegers MakeAttentionIntegers(const Port &q, const Port &out, const std::vector<double> &score_scales,
                                        const std::vector<double> &v_scales);

/// §8, §15.1. The table of an activation from its a(x) / x at (i - 256) / 16.
std::vector<int16_t> FactorTable(const std::vector<double> &factor);
/// §8. Scale that Glu's output has for these inputs: the finest for which a magnitude of `largest` fits.
double GluScale(double gate_scale, double up_scale, double largest);
/// factor: the activation's a(x) / x at (i - 256) / 16, 514 values. out.scale must come from GluScale().
struct GluIntegers {
  std::vector<int16_t> table;
  IntegerFactor index;
  int shift = 1;
};
GluIntegers MakeGluIntegers(const Port &gate, const Port &up, const Port &out, const std::vector<double> &factor);

/// §15.1. Everything real; the numbers of columns of in_scales, out_scales and bias (or none) are those of taps.
struct ConvSpec {
  uint16_t state_index = 0;  // of the graph: S16 [taps - 1, columns of the widest profile]
  std::vector<IndexRun> columns;  // of the widest profile that these are; empty: all
  Matrix taps;  // [channels, taps], the present token's last
  RowVector bias;
  std::vector<double> in_scales, out_scales;
  std::vector<double> factor;  // of the activation, as for Glu
};
struct ConvIntegers {
  std::vector<int16_t> weights;  // [taps, channels]
  std::vector<int32_t> bias;
  IntegerFactors factors, index;
  std::vector<int16_t> table;
};
/// Scale for a column of the convolution's output that reaches `largest` behind the activation. Far enough below 0 that what
/// saturates before the activation is next to nothing behind it.
double ConvScale(double largest);
ConvIntegers MakeConvIntegers(const ConvSpec &spec);

/// §15.2. Scales are real sizes of a unit, `state` of one of a head's state: from ScanStateScale().
struct ScanSpec {
  uint16_t state_index = 0;  // of the graph: S32 [heads * channels, columns] of the widest profile
  uint32_t run = 0;    // neighbouring channels of a head in x and out, which are [channels / run, heads, run]; 0: [heads, channels]
  int64_t groups = 1;
  std::vector<double> x, step, state;         // [heads]
  std::vector<double> b, c;                   // [groups]
  std::vector<double> step_bias, decay, skip;  // [heads]
  double min_step = 0, max_step = 0;          // may be infinite
  int64_t heads() const { return static_cast<int64_t>(x.size()); }
};
struct ScanIntegers {
  IntegerFactors step, decay, input;
  std::vector<int32_t> step_bias, table;
  uint32_t least = 0, most = 0;
  std::vector<int64_t> skip;
  std::vector<uint8_t> out_shifts;
};
/// What a calibration has seen in a head.
struct ScanReach {
  double state = 0;  // largest magnitude in the state
  double input = 0;  // largest of x * dt
};
/// The finest unit of a head's state that leaves room above what it reaches, given the units of its group's B and C and of the
/// output: the output's over C's and a power of two. The output's must be at least LeastScanScale().
double ScanStateScale(const ScanReach &reach, double b_scale, double c_scale, double out_scale);
double LeastScanScale(const ScanReach &reach, double b_scale, double c_scale);
ScanIntegers MakeScanIntegers(const ScanSpec &spec, const Port &out);

/// §9.
IntegerFactor HadamardIntegers(const Port &in, const Port &out, uint32_t block);
/// §14. Octaves in Q26 of one unit of a logit.
IntegerFactor OctaveIntegers(const Port &logit);
/// §10. Multipliers of a and b.
IntegerFactors AddIntegers(const Port &a, const Port &b, const Port &out);

}  // namespace acorn::compiler
