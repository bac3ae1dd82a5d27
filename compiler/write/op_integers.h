// The integer constants of each operator (docs/ARITHMETIC.md) from the real sizes of its edges' units. What is written to a
// file and what the training twin computes with come from here, so that they cannot differ.
#pragma once

#include <cstdint>
#include <vector>

#include "write/factor.h"
#include "write/port.h"

namespace acorn::compiler {

/// §2. scales: [n], of the rows of the table.
IntegerFactors EmbeddingIntegers(const Port &out, const std::vector<double> &scales);

/// §4. gamma: of one group.
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
AttentionIntegers MakeAttentionIntegers(const Port &q, const Port &out, const std::vector<double> &score_scales,
                                        const std::vector<double> &v_scales);

/// §8. Scale that Glu's output has for these inputs: the finest for which a magnitude of `largest` fits.
double GluScale(double gate_scale, double up_scale, double largest);
/// factor: the activation's a(x) / x at (i - 256) / 16, 514 values. out.scale must come from GluScale().
struct GluIntegers {
  std::vector<int16_t> table;
  IntegerFactor index;
  int shift = 1;
};
GluIntegers MakeGluIntegers(const Port &gate, const Port &up, const Port &out, const std::vector<double> &factor);

/// §9.
IntegerFactor HadamardIntegers(const Port &in, const Port &out, uint32_t block);
/// §14. Octaves in Q26 of one unit of a logit.
IntegerFactor OctaveIntegers(const Port &logit);
/// §10. Multipliers of a and b.
IntegerFactors AddIntegers(const Port &a, const Port &b, const Port &out);

}  // namespace acorn::compiler
