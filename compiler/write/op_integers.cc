#include "write/op_integers.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/fixed_point.h"

namespace acorn::compiler {
namespace {

constexpr uint64_t kBiasLimit = (uint64_t{1} << 31) - 1;
constexpr double kS15Limit = 16319;
constexpr double kLog2OfE = 1.4426950408889634;

}  // namespace

double EdgeLimit(EdgeType type) {
  switch (type) {
    case EdgeType::kS8:
      return 127;
    case EdgeType::kS15:
      return kS15Limit;
    case EdgeType::kS16:
      return 32767;
    case EdgeType::kS32:
      return 2147483647.0;
  }
  return 0;
}

uint64_t InputLimit(EdgeType type) { return type == EdgeType::kS15 ? 16320 : 127; }

Port Columns(const Port &port, uint32_t offset, uint32_t width, double scale) {
  return {port.value, port.offset + offset, width, port.type, scale};
}

Port Scaled(Port port, double scale, int32_t zero_point) {
  port.scale = scale;
  port.zero_point = zero_point;
  return port;
}

WeightInfo DescribeWeight(uint16_t index, const QuantizedMatrix &matrix) {
  WeightInfo info;
  info.index = index;
  info.n = matrix.n;
  info.k = matrix.k;
  info.scale = matrix.scale;
  for (int64_t channel = 0; channel < matrix.n; ++channel) {
    info.absolute_sums.push_back(matrix.AbsoluteSum(channel));
    info.largest_sum = std::max(info.largest_sum, info.absolute_sums.back());
    info.sums.push_back(matrix.Sum(channel));
  }
  return info;
}

WeightInfo DescribePart(const WeightInfo &whole, const QuantizedMatrix &matrix, std::vector<IndexRun> rows, int64_t k) {
  WeightInfo info;
  info.index = whole.index;
  info.k = k;
  info.largest_sum = whole.largest_sum;
  for (const IndexRun &run : rows) info.n += run.count;
  if (info.n == whole.n && k == whole.k) return whole;
  for (const IndexRun &run : rows) {
    for (int64_t channel = run.first; channel < int64_t{run.first} + run.count; ++channel) {
      int64_t sum = 0, absolute = 0;
      for (int64_t j = 0; j < k; ++j) {
        const int64_t product = int64_t{matrix.multiplier(channel, j)} * matrix.weight(channel, j);
        sum += product;
        absolute += std::abs(product);
      }
      info.scale.push_back(matrix.scale[static_cast<size_t>(channel)]);
      info.sums.push_back(sum);
      info.absolute_sums.push_back(absolute);
    }
  }
  info.rows = std::move(rows);
  return info;
}

IntegerFactors EmbeddingIntegers(const Port &out, const std::vector<double> &scales) {
  std::vector<double> factors;
  factors.reserve(scales.size());
  for (const double scale : scales) factors.push_back(scale / out.scale);
  return MakeFactors(factors, uint64_t{8} * 255);
}

NormIntegers RmsNormIntegers(const Port &in, const Port &out, int64_t groups, const std::vector<double> &gamma, double eps) {
  const double width = static_cast<double>(in.width) / static_cast<double>(groups);
  double largest = 0;
  for (const double g : gamma) largest = std::max(largest, std::abs(g));
  if (largest == 0) largest = 1;
  const double gamma_scale = largest / 32767;
  NormIntegers integers;
  for (const double g : gamma) integers.gamma.push_back(static_cast<int16_t>(std::floor(g / gamma_scale + 0.5)));
  // y = x * gamma / sqrt(sum x^2 + width * eps / scale^2) * sqrt(width), in units of the output.
  integers.factor = MakeNormalizedFactor(gamma_scale * std::sqrt(width) / out.scale);
  if (integers.factor.shift < 2 || integers.factor.shift > 49) {
    throw Error(ExitCode::kBadModel, "a norm's gain has no integer factor");
  }
  const double eps_term = width * eps / (in.scale * in.scale);
  if (eps_term >= std::ldexp(1.0, 60)) throw Error(ExitCode::kBadModel, "a norm's epsilon is too large for its input");
  integers.eps_term = static_cast<uint64_t>(std::floor(eps_term + 0.5));
  return integers;
}

LayerNormIntegers MakeLayerNormIntegers(const Port &in, const Port &out, const std::vector<double> &gain,
                                        const std::vector<double> &bias, double eps) {
  const double width = in.width;
  // y = (z * gamma + beta * 2^15) / 2^shift with z in Q20: the largest shift for which 16 bits hold gamma, and 32 beta.
  const auto gamma_of = [&](double g, int shift) { return std::floor(std::ldexp(g / out.scale, shift - 20) + 0.5); };
  const auto beta_of = [&](double b, int shift) { return std::floor(std::ldexp(b / out.scale, shift - 15) + 0.5); };
  const auto fits = [&](int shift) {
    return std::all_of(gain.begin(), gain.end(), [&](double g) { return std::abs(gamma_of(g, shift)) <= 32767; }) &&
           std::all_of(bias.begin(), bias.end(), [&](double b) { return std::abs(beta_of(b, shift)) <= 2147483647.0; });
  };
  LayerNormIntegers integers;
  integers.shift = 62;
  while (integers.shift > 0 && !fits(integers.shift)) --integers.shift;
  if (integers.shift == 0) throw Error(ExitCode::kBadModel, "a norm's gain or bias is too large for its output");
  // n = width^2 * (variance + eps / scale^2)
  const double eps_term = width * width * eps / (in.scale * in.scale);
  if (eps_term >= std::ldexp(1.0, 60)) throw Error(ExitCode::kBadModel, "a norm's epsilon is too large for its input");
  integers.eps_term = static_cast<uint64_t>(std::floor(eps_term + 0.5));
  for (const double g : gain) integers.gamma.push_back(static_cast<int16_t>(gamma_of(g, integers.shift)));
  for (const double b : bias) integers.beta.push_back(static_cast<int32_t>(beta_of(b, integers.shift)));
  return integers;
}

LinearIntegers MakeLinearIntegers(const Port &in, const WeightInfo &weight, const std::vector<double> &bias,
                                  const std::vector<double> &out_scales) {
  const size_t n = static_cast<size_t>(weight.n);
  // A part of a weight too keeps to the bound that the file has for the whole of it.
  const uint64_t bound = InputLimit(in.type) * static_cast<uint64_t>(weight.largest_sum);
  // The sum of one row of input fits 32 bits together with its bias; that of two rows has 64 and more room.
  const uint64_t room = in.type == EdgeType::kS15 ? kBiasLimit : kBiasLimit - bound;
  LinearIntegers integers;
  integers.bias.assign(n, 0);
  std::vector<double> factors(n);
  for (size_t i = 0; i < n; ++i) {
    const double unit = in.scale * weight.scale[i];
    // The input's zero point is part of the bias: sum (x - z) w = sum x w - z sum w.
    const double value = std::floor((bias.empty() ? 0.0 : bias[i] / unit) + 0.5) -
                         static_cast<double>(in.zero_point) * static_cast<double>(weight.sums[i]);
    if (std::abs(value) > static_cast<double>(room)) {
      throw Error(ExitCode::kBadModel, "a bias is too large for its channel's sums");
    }
    integers.bias[i] = static_cast<int32_t>(value);
    factors[i] = unit / out_scales[i];
  }
  const uint64_t total = in.type == EdgeType::kS15 ? bound + (uint64_t{1} << 31) : kBiasLimit;
  integers.factors = MakeFactors(factors, uint64_t{1} << BitLength(total));
  return integers;
}

std::vector<uint64_t> RopeFrequencyIntegers(const std::vector<double> &turns) {
  std::vector<uint64_t> frequencies;
  for (const double turn : turns) {
    const double fraction = turn - std::floor(turn);
    frequencies.push_back(static_cast<uint64_t>(std::ldexp(fraction, 63)) << 1);
  }
  return frequencies;
}

IntegerFactors RotateIntegers(const Port &in, const std::vector<double> &out_scales) {
  std::vector<double> factors;
  factors.reserve(out_scales.size());
  for (const double scale : out_scales) factors.push_back(in.scale / scale / 16384);
  // |x * cos - x' * sin| <= 2^15 * 2^14 * 2
  return MakeFactors(factors, uint64_t{1} << 30);
}

IntegerFactors AppendIntegers(const Port &v, const std::vector<double> &v_scales) {
  std::vector<double> factors;
  factors.reserve(v_scales.size());
  for (const double scale : v_scales) factors.push_back(v.scale / scale);
  return MakeFactors(factors, 32767);
}

void RaiseToOneBinade(std::vector<double> *v_scales, double out_scale) {
  if (v_scales->empty()) return;  // a layer without attention
  const double top = *std::max_element(v_scales->begin(), v_scales->end()) / out_scale;
  const double low = std::ldexp(1.0, std::ilogb(top)) * out_scale * (1 + 1e-9);
  for (double &scale : *v_scales) scale = std::max(scale, low);
}

double RaiseToBinadeOf(const std::vector<double> &v_scales, double out_scale) {
  const auto [low, top] = std::minmax_element(v_scales.begin(), v_scales.end());
  if (std::ilogb(*low / out_scale) == std::ilogb(*top / out_scale)) return out_scale;
  // The least for which the largest of them comes down to the binade of the smallest.
  return std::ldexp(*top, -std::ilogb(*top / out_scale)) * (1 + 1e-9);
}

AttentionIntegers MakeAttentionIntegers(const Port &q, const Port &out, const std::vector<double> &score_scales,
                                        const std::vector<double> &v_scales) {
  const size_t heads = score_scales.size();
  const uint64_t head_dim = q.width / heads;
  std::vector<double> octaves, outputs;
  for (size_t h = 0; h < heads; ++h) {
    octaves.push_back(score_scales[h] * kLog2OfE * 32768);
    outputs.push_back(v_scales[h] / out.scale);
  }
  AttentionIntegers integers;
  integers.exp = MakeFactors(octaves, 2 * 127 * 127 * head_dim);
  integers.out.shift = MakeNormalizedFactor(*std::max_element(outputs.begin(), outputs.end())).shift;
  for (const double factor : outputs) {
    const double multiplier = std::floor(std::ldexp(factor, integers.out.shift) + 0.5);
    if (multiplier < 1073741824.0) throw Error(ExitCode::kBadModel, "value scales of one layer differ too much");
    integers.out.multipliers.push_back(static_cast<int32_t>(std::min(multiplier, 2147483647.0)));
  }
  if (integers.out.shift < 1 || integers.out.shift > 38) {
    throw Error(ExitCode::kBadModel, "attention's output has no integer factor");
  }
  return integers;
}

std::vector<int16_t> FactorTable(const std::vector<double> &factor) {
  std::vector<int16_t> table;
  table.reserve(factor.size());
  for (const double value : factor) {
    table.push_back(static_cast<int16_t>(std::min(std::max(std::floor(value * 32768 + 0.5), -32768.0), 32767.0)));
  }
  return table;
}

double GluScale(double gate_scale, double up_scale, double largest) {
  // y = rs(g * t / 256 * u, S): one unit is gate * up * 2^S / 128.
  double scale = gate_scale * up_scale * 2 / 128;
  while (largest / scale > EdgeLimit(EdgeType::kS16)) scale *= 2;
  return scale;
}

GluIntegers MakeGluIntegers(const Port &gate, const Port &up, const Port &out, const std::vector<double> &factor) {
  GluIntegers integers;
  integers.table = FactorTable(factor);
  integers.shift = static_cast<int>(std::lround(std::log2(out.scale * 128 / (gate.scale * up.scale))));
  if (integers.table.size() != 514 || integers.shift < 1 || integers.shift > 62) {
    throw Error(ExitCode::kBadModel, "a gated activation has no integer form");
  }
  integers.index = MakeFactor(gate.scale * 2048, 32767);
  return integers;
}

IntegerFactor HadamardIntegers(const Port &in, const Port &out, uint32_t block) {
  return MakeFactor(in.scale / std::sqrt(static_cast<double>(block)) / out.scale, uint64_t{block} * 32767);
}

IntegerFactor OctaveIntegers(const Port &logit) {
  // The distance of two logits has 32 bits.
  return MakeFactor(logit.scale / std::log(2.0) * (1 << 26), uint64_t{1} << 32);
}

IntegerFactors AddIntegers(const Port &a, const Port &b, const Port &out) {
  return MakeFactors({a.scale / out.scale, b.scale / out.scale}, uint64_t{1} << 16);
}

}  // namespace acorn::compiler
