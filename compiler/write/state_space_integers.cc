// The integers of a state-space layer's convolution and recurrence (docs/ARITHMETIC.md §15).
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "write/op_integers.h"

namespace acorn::compiler {
namespace {

constexpr double kActivationFloor = 12;         // silu(-12) is -7e-5: a fifth of the unit that reaches so far
constexpr double kLargestDip = 0.28;            // of an activation below 0: its output is so much less than its input at most
constexpr double kInt32 = 2147483647.0;
constexpr double kStateRoom = 4, kInputRoom = 2;  // above what calibration saw
constexpr double kState = 1073741823.0;         // sat31
constexpr int kSoftplusSteps = 64;              // of the table, to 1
constexpr double kMaxSkip = 70368744177664.0;   // 2^46
constexpr double kLog2OfE = 1.4426950408889634;

int32_t Rounded(double value) { return static_cast<int32_t>(std::floor(value + 0.5)); }

/// The least unit that a head's state may have.
double LeastStateScale(const ScanReach &reach, double b_scale) {
  // The input of a step meets the whole range of B.
  const double input = reach.input * EdgeLimit(EdgeType::kS16) * b_scale;
  return std::max({reach.state * kStateRoom, input * kInputRoom, 1e-9}) / kState;
}

}  // namespace

double ConvScale(double largest) { return std::max(largest + kLargestDip, kActivationFloor) / EdgeLimit(EdgeType::kS16); }

ConvIntegers MakeConvIntegers(const ConvSpec &spec) {
  const int64_t channels = spec.taps.rows(), taps = spec.taps.cols();
  ConvIntegers integers;
  integers.weights.resize(static_cast<size_t>(channels * taps));
  std::vector<double> factors, indices;
  for (int64_t c = 0; c < channels; ++c) {
    const auto i = static_cast<size_t>(c);
    const double bias = spec.bias.size() == 0 ? 0.0 : static_cast<double>(spec.bias[c]) / spec.in_scales[i];
    const auto row = spec.taps.row(c).cast<double>();
    // As fine as 16 bits allow, and 32 for the sum of any input with the bias; each tap may be rounded up by a half.
    const double sum = 32768 * row.cwiseAbs().sum() + std::abs(bias);
    const double unit = std::max({row.cwiseAbs().maxCoeff() / 32767, sum / (kInt32 - 32768.0 * static_cast<double>(taps)), 1e-12});
    for (int64_t j = 0; j < taps; ++j) {
      integers.weights[static_cast<size_t>(j * channels + c)] = static_cast<int16_t>(Rounded(row[j] / unit));
    }
    integers.bias.push_back(Rounded(bias / unit));
    factors.push_back(unit * spec.in_scales[i] / spec.out_scales[i]);
    indices.push_back(spec.out_scales[i] * 2048);
  }
  integers.factors = MakeFactors(factors, uint64_t{1} << 31);
  integers.index = MakeFactors(indices, 32767);
  integers.table = FactorTable(spec.factor);
  return integers;
}

double LeastScanScale(const ScanReach &reach, double b_scale, double c_scale) {
  return 2 * c_scale * LeastStateScale(reach, b_scale);
}

double ScanStateScale(const ScanReach &reach, double b_scale, double c_scale, double out_scale) {
  const int shift = std::clamp(std::ilogb(out_scale / c_scale / LeastStateScale(reach, b_scale)), 1, 62);
  return std::ldexp(out_scale / c_scale, -shift);
}

ScanIntegers MakeScanIntegers(const ScanSpec &spec, const Port &out) {
  ScanIntegers integers;
  std::vector<double> steps, decays, inputs;
  for (int64_t head = 0; head < spec.heads(); ++head) {
    const auto h = static_cast<size_t>(head);
    const auto group = static_cast<size_t>(head / (spec.heads() / spec.groups));
    steps.push_back(spec.step[h] * 65536);
    integers.step_bias.push_back(Rounded(std::clamp(spec.step_bias[h] * 65536, -kInt32, kInt32)));
    decays.push_back(-spec.decay[h] * kLog2OfE * 4);
    inputs.push_back(64 * spec.x[h] * spec.b[group] / spec.state[h]);
    const double shift = std::log2(out.scale / (spec.c[group] * spec.state[h]));
    const double skip = std::floor(spec.skip[h] * spec.x[h] / (spec.c[group] * spec.state[h]) + 0.5);
    if (shift < 0.5 || shift > 62 || std::abs(skip) > kMaxSkip) {
      throw Error(ExitCode::kBadModel, "the recurrence of a head has no integer form");
    }
    integers.out_shifts.push_back(static_cast<uint8_t>(std::lround(shift)));
    integers.skip.push_back(static_cast<int64_t>(skip));
  }
  integers.step = MakeFactors(steps, 32767);
  integers.decay = MakeFactors(decays, uint64_t{1} << 31);
  integers.input = MakeFactors(inputs, uint64_t{1} << 31);
  for (int i = 0; i <= 16 * kSoftplusSteps; ++i) {
    integers.table.push_back(Rounded(std::ldexp(std::log1p(std::exp(-static_cast<double>(i) / kSoftplusSteps)), 24)));
  }
  integers.most = static_cast<uint32_t>(std::min(std::ldexp(spec.max_step, 24), kInt32));
  integers.least = static_cast<uint32_t>(std::min(std::ldexp(spec.min_step, 24) + 0.5, static_cast<double>(integers.most)));
  return integers;
}

}  // namespace acorn::compiler
