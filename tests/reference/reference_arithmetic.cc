#include "tests/reference/reference_arithmetic.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace acorn::reference {
namespace {

constexpr Wide Power(int exponent) { return Wide{1} << exponent; }

void RequireInside(Wide value, Wide limit, const char *what) { Require(-limit < value && value < limit, what); }

// floor(2^30 * sqrt(16 / (i + 16.5)) + 0.5): the largest r with (2r - 1)^2 * (2i + 33) <= 2^67, at most 2^30.
uint64_t RsqrtSeed(uint64_t i) {
  uint64_t low = 0, high = uint64_t{1} << 30;
  while (low < high) {
    const uint64_t middle = (low + high + 1) / 2;
    const Wide odd = 2 * Wide{middle} - 1;
    if (odd * odd * (2 * i + 33) <= Power(67)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

uint64_t Rsqrt(uint64_t v) {
  Require(v >= (uint64_t{1} << 28) && v < (uint64_t{1} << 30), "rsqrt: v out of range");
  uint64_t r = RsqrtSeed((v >> 24) - 16);
  for (int step = 0; step < 2; ++step) {
    const uint64_t a = (r * r) >> 30;
    const uint64_t b = (a * v) >> 28;
    const uint64_t three = uint64_t{3} << 30;
    Require(b <= three, "rsqrt: step out of range");
    r = (r * (three - b)) >> 31;
  }
  return std::min(r, uint64_t{1} << 30);
}

std::array<int64_t, 258> SineTable() {
  std::array<int64_t, 258> table{};
  for (int j = 0; j <= 256; ++j) {
    const long double exact = std::ldexp(std::sin(std::acos(-1.0L) / 2 * j / 256), 22) + 0.5L;
    const long double whole = std::floor(exact);
    // Far from a tie, so that any libm gives the same integer; the ends are exact.
    Require(j == 0 || j == 256 || (exact - whole > 1e-6L && exact - whole < 1 - 1e-6L), "sine table: a tie");
    table[static_cast<size_t>(j)] = j == 256 ? int64_t{1} << 22 : static_cast<int64_t>(whole);
  }
  table[257] = table[256];
  return table;
}

int64_t Dot(const Matrix &weight, uint32_t row, const std::vector<int32_t> &x) {
  const int8_t *w = weight.w.data() + size_t{row} * weight.k;
  const uint32_t group = weight.group == 0 ? weight.k : weight.group;
  int64_t acc = 0;
  for (uint32_t begin = 0; begin < weight.k; begin += group) {
    int64_t sum = 0;
    for (uint32_t k = begin; k < std::min(weight.k, begin + group); ++k) sum += int64_t{x[k]} * w[k];
    if (weight.group == 32) RequireInside(sum, Power(15), "linear: group sum past s16");
    acc += weight.group == 0 ? sum : sum * weight.multipliers[size_t{row} * (weight.k / group) + begin / group];
  }
  RequireInside(acc, Power(31), "linear: |acc| >= 2^31");
  return acc;
}

}  // namespace

void Require(bool holds, const char *what) {
  if (holds) return;
  std::fprintf(stderr, "reference: %s\n", what);
  std::abort();
}

int64_t RoundShift(Wide value, int shift) {
  Require(shift >= 1 && shift <= 62, "shift out of [1, 62]");
  RequireInside(value, Power(63) - Power(shift - 1), "rounding shift past 63 bits");
  return static_cast<int64_t>((value + Power(shift - 1)) >> shift);
}

int64_t Apply(Factor factor, int64_t value) {
  const Wide product = Wide{value} * factor.multiplier;
  RequireInside(product, Power(62), "|v * M| >= 2^62");
  return RoundShift(product, factor.shift);
}

int32_t Saturate(int64_t value, Range range) {
  switch (range) {
    case Range::kS8:
      return static_cast<int32_t>(std::clamp<int64_t>(value, -127, 127));
    case Range::kS15:
      return static_cast<int32_t>(std::clamp<int64_t>(value, -16320, 16319));
    case Range::kS16:
      return static_cast<int32_t>(std::clamp<int64_t>(value, -32767, 32767));
    case Range::kS32:
      return static_cast<int32_t>(std::clamp<int64_t>(value, -2147483647, 2147483647));
  }
  Require(false, "unknown range");
  return 0;
}

int Bits(uint64_t value) {
  int bits = 0;
  for (; value != 0; value >>= 1) ++bits;
  return bits;
}

void Embed(const Matrix &weight, uint32_t token, Factor factor, int32_t *out) {
  for (uint32_t k = 0; k < weight.k; ++k) {
    int64_t q = weight.w[size_t{token} * weight.k + k];
    if (weight.group != 0) q *= weight.multipliers[size_t{token} * (weight.k / weight.group) + k / weight.group];
    out[k] = Saturate(Apply(factor, q), Range::kS16);
  }
}

void Linear(const LinearSpec &spec, const int32_t *x, int32_t *y) {
  const Matrix &weight = *spec.weight;
  std::vector<int32_t> high(x, x + weight.k), low;
  if (spec.input == Range::kS15) {
    low.resize(weight.k);
    for (uint32_t k = 0; k < weight.k; ++k) {
      high[k] = (x[k] + 64) >> 7;
      low[k] = x[k] - 128 * high[k];
      Require(low[k] >= -64 && low[k] <= 63, "linear: low part out of range");
    }
  }
  for (const int32_t value : high) Require(value >= -127 && value <= 127, "linear: input past s8");
  for (uint32_t n = 0; n < weight.n; ++n) {
    Wide acc = Dot(weight, n, high);
    if (low.empty()) {
      RequireInside(acc + spec.bias[n], Power(31), "linear: |acc + bias| >= 2^31");
    } else {
      acc = 128 * acc + Dot(weight, n, low);
    }
    const Wide product = (acc + spec.bias[n]) * spec.multipliers[n];
    RequireInside(product, Power(62), "linear: |acc + bias| * M >= 2^62");
    y[n] = Saturate(RoundShift(product, spec.shift) + spec.zero_point, spec.output);
  }
}

void RmsNorm(const RmsNormSpec &spec, const int32_t *x, int32_t *y) {
  const size_t width = spec.gamma.size();
  Wide sum = spec.eps_term;
  for (size_t i = 0; i < width; ++i) sum += Wide{x[i]} * x[i];
  Require(sum < Power(64), "norm: sum past u64");
  Require(spec.factor.multiplier >= (int64_t{1} << 30) && spec.factor.multiplier < (int64_t{1} << 31) &&
              spec.factor.shift >= 2 && spec.factor.shift <= 49,
          "norm: factor out of range");
  const auto n = static_cast<uint64_t>(sum);
  if (n == 0) {
    std::fill(y, y + width, Saturate(spec.zero_point, spec.output));
    return;
  }
  const int e = (Bits(n) - 29) >> 1;
  const uint64_t v = e >= 0 ? n >> (2 * e) : n << (-2 * e);
  const int64_t scale = RoundShift(Wide{static_cast<int64_t>(Rsqrt(v))} * spec.factor.multiplier, 31);
  const int shift = spec.factor.shift + 13 + e;
  for (size_t i = 0; i < width; ++i) {
    const int64_t value = shift > 62 ? 0 : RoundShift(Wide{x[i]} * spec.gamma[i] * scale, shift);
    y[i] = Saturate(value + spec.zero_point, spec.output);
  }
}

void LayerNorm(const LayerNormSpec &spec, const int32_t *x, int32_t *y) {
  const auto width = static_cast<int64_t>(spec.gamma.size());
  Require(width >= 1 && width <= 8192, "layer norm: width out of range");
  Require(spec.eps_term < Power(60), "layer norm: eps_term out of range");
  Wide sum = 0, squares = 0;
  for (int64_t i = 0; i < width; ++i) {
    sum += x[i];
    squares += Wide{x[i]} * x[i];
  }
  const Wide wide_n = width * squares - sum * sum + spec.eps_term;
  Require(wide_n >= 0 && wide_n < Power(61), "layer norm: n out of range");
  const auto n = static_cast<uint64_t>(wide_n);
  const int e = n == 0 ? 0 : (Bits(n) - 29) >> 1;
  const int64_t r = n == 0 ? 0 : static_cast<int64_t>(Rsqrt(e >= 0 ? n >> (2 * e) : n << (-2 * e)));
  for (int64_t i = 0; i < width; ++i) {
    const Wide d = width * Wide{x[i]} - sum;
    RequireInside(d, Power(29), "layer norm: |d| >= 2^29");
    const int64_t z = RoundShift(d * r, 24 + e);
    RequireInside(z, Power(27), "layer norm: |z| >= 2^27");
    const auto column = static_cast<size_t>(i);
    const Wide sloped = Wide{z} * spec.gamma[column] + Wide{spec.bias[column]} * 32768;
    y[i] = Saturate(RoundShift(sloped, spec.shift) + spec.zero_point, spec.output);
  }
}

int32_t Sine(uint32_t phase) {
  static const std::array<int64_t, 258> table = SineTable();
  const uint32_t quadrant = phase >> 30;
  uint32_t a = phase & ((uint32_t{1} << 30) - 1);
  if (quadrant % 2 == 1) a = (uint32_t{1} << 30) - a;
  const uint32_t j = a >> 22;
  const int64_t f = a & ((uint32_t{1} << 22) - 1);
  const int64_t s = RoundShift(table[j] + RoundShift(Wide{table[j + 1] - table[j]} * f, 22), 8);
  Require(s >= 0 && s <= 16384, "sine out of range");
  return static_cast<int32_t>(quadrant >= 2 ? -s : s);
}

void RotatePair(const uint64_t *frequency, uint64_t position, Factor factor, Range range, int32_t a, int32_t b, int32_t *ya,
                int32_t *yb) {
  int64_t sine = 0, cosine = 16384;
  if (frequency != nullptr) {
    const auto phase = static_cast<uint32_t>((position * *frequency) >> 32);
    sine = Sine(phase);
    cosine = Sine(phase + (uint32_t{1} << 30));
  }
  *ya = Saturate(Apply(factor, a * cosine - b * sine), range);
  *yb = Saturate(Apply(factor, b * cosine + a * sine), range);
}

void Rotate(const std::vector<uint64_t> &frequencies, uint64_t position, uint32_t head_dim, Factor factor, Range range,
            const int32_t *x, int32_t *y) {
  const size_t half = frequencies.size();
  for (size_t i = 0; i < half; ++i) RotatePair(&frequencies[i], position, factor, range, x[i], x[i + half], y + i, y + i + half);
  for (size_t j = 2 * half; j < head_dim; ++j) y[j] = Saturate(Apply(factor, int64_t{x[j]} * 16384), range);
}

uint32_t Exp2(int64_t t) {
  Require(t >= 0, "exp2: negative");
  const int64_t i = t >> 15, f = t & 32767;
  if (i > 16) return 0;
  const int64_t p = 65535 - ((f * (45332 - ((f * (15162 - ((f * 2598) >> 15))) >> 15))) >> 15);
  Require(p >= 0 && p <= 65535, "exp2: out of range");
  return static_cast<uint32_t>(i == 0 ? p : RoundShift(p, static_cast<int>(i)));
}

void Attend(const AttentionHead &head, const std::vector<SeenKeys> &seen, const int8_t *k, const int8_t *v, int32_t *y) {
  std::vector<uint64_t> rows;
  std::vector<int64_t> scores;
  for (const SeenKeys &keys : seen) {
    for (uint64_t j = keys.begin; j < keys.end; ++j) {
      int64_t score = 0;
      for (uint32_t d = 0; d < head.k_dim; ++d) score += int64_t{keys.q[d]} * k[j * head.stride + d];
      RequireInside(score, Power(31), "attention: score past s32");
      rows.push_back(j);
      scores.push_back(score);
    }
  }
  const size_t keys = rows.size();
  Require(keys >= 1 && keys <= 65536, "attention: rows out of range");
  const int64_t largest = *std::max_element(scores.begin(), scores.end());
  uint64_t den = 0;
  std::vector<int64_t> num(head.v_dim, 0);
  for (size_t j = 0; j < keys; ++j) {
    const uint32_t e = Exp2(Apply(head.exponent, largest - scores[j]));
    den += e;
    for (uint32_t d = 0; d < head.v_dim; ++d) num[d] += int64_t{e} * v[rows[j] * head.stride + d];
  }
  const int b = Bits(den);
  Require(b >= 8, "attention: denominator too small");
  const auto reciprocal = static_cast<int64_t>((static_cast<uint64_t>(head.result.multiplier) << (b - 8)) / den);
  for (uint32_t d = 0; d < head.v_dim; ++d) {
    const int64_t value = RoundShift(Wide{num[d]} * reciprocal, head.result.shift + b - 8);
    y[d] = Saturate(value + head.zero_point, Range::kS8);
  }
}

int32_t Gate(const std::vector<int16_t> &table, Factor index, int shift, int32_t gate, int32_t up) {
  const int64_t w = std::clamp<int64_t>(Apply(index, gate), -32768, 32767);
  const auto j = static_cast<size_t>((w + 32768) >> 7);
  const int64_t f = (w + 32768) & 127;
  const int64_t t = table[j] + RoundShift(Wide{table[j + 1] - table[j]} * f, 7);
  return Saturate(RoundShift(Wide{RoundShift(Wide{gate} * t, 8)} * up, shift), Range::kS16);
}

void Hadamard(uint32_t block, Factor factor, int zero_point, Range output, const int32_t *x, int32_t *y) {
  for (uint32_t i = 0; i < block; ++i) {
    int64_t sum = 0;
    for (uint32_t j = 0; j < block; ++j) sum += __builtin_parity(i & j) ? -int64_t{x[j]} : x[j];
    RequireInside(sum, Power(31), "hadamard: past s32");
    y[i] = Saturate(Apply(factor, sum) + zero_point, output);
  }
}

int32_t Add(int32_t a, int64_t a_multiplier, int32_t b, int64_t b_multiplier, int shift) {
  return Saturate(RoundShift(Wide{a} * a_multiplier + Wide{b} * b_multiplier, shift), Range::kS16);
}

uint64_t PowerOfTwo(uint64_t t) {
  const uint64_t n = t / (1u << 26);
  if (n >= 32) return 0;
  const uint64_t f = t % (1u << 26), j = f / (1u << 20), r = f % (1u << 20);
  const Wide base = static_cast<int64_t>(std::floor(std::ldexp(1.0L, 31) * std::exp2(-static_cast<long double>(j) / 64) + 0.5L));
  const Wide y = (Wide{static_cast<int64_t>(r)} * 0x58B90BFC + (1 << 24)) / (1 << 25);
  const Wide one = Wide{1} << 32;
  const Wide y2 = y * y / one, y3 = y2 * y / one;
  const Wide q = one - y + y2 / 2 - y3 / 6;
  return static_cast<uint64_t>((base * q + (Wide{1} << static_cast<int>(31 + n))) / (Wide{1} << static_cast<int>(32 + n)));
}

namespace {

uint64_t OfDistance(int64_t distance, Factor octaves) {
  Require(octaves.multiplier >= 0 && octaves.multiplier <= 1 << 30, "octaves of a router");
  return PowerOfTwo(static_cast<uint64_t>(Apply(octaves, distance)));
}

uint64_t Sigmoid(int32_t logit, Factor octaves) {
  const uint64_t z = OfDistance(logit < 0 ? -int64_t{logit} : int64_t{logit}, octaves), one = uint64_t{1} << 31, w = one + z;
  return ((logit < 0 ? z : one) * one + w / 2) / w;
}

}  // namespace

std::vector<Chosen> Route(const std::vector<int32_t> &logits, uint32_t top_k, uint32_t scoring, Factor octaves) {
  std::vector<uint32_t> order(logits.size());
  for (uint32_t e = 0; e < order.size(); ++e) order[e] = e;
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return logits[a] > logits[b]; });
  const auto score = [&](uint32_t e) {
    return scoring <= 2 ? OfDistance(int64_t{logits[order[0]]} - logits[e], octaves) : Sigmoid(logits[e], octaves);
  };
  uint64_t whole = scoring == 3 ? uint64_t{1} << 31 : 0;
  const uint32_t summed = scoring == 2 ? static_cast<uint32_t>(order.size()) : scoring == 3 ? 0 : top_k;
  for (uint32_t i = 0; i < summed; ++i) whole += score(order[i]);
  std::vector<Chosen> chosen;
  for (uint32_t i = 0; i < top_k; ++i) {
    const uint64_t weight = whole == 0 ? 0 : (score(order[i]) * 32768 + whole / 2) / whole;
    Require(weight <= 32768, "weight of an expert");
    chosen.push_back({order[i], static_cast<uint32_t>(weight)});
  }
  return chosen;
}

uint32_t SharedWeight(int32_t logit, Factor octaves) {
  return static_cast<uint32_t>((Sigmoid(logit, octaves) * 32768 + (uint64_t{1} << 30)) >> 31);
}

namespace {

int64_t Saturate31(int64_t value) {
  const int64_t limit = (int64_t{1} << 30) - 1;
  return std::clamp(value, -limit, limit);
}

}  // namespace

int32_t Convolve(const ConvColumn &column, const std::vector<int16_t> &table, const std::vector<int32_t> &rows) {
  Wide acc = column.bias;
  for (size_t j = 0; j < rows.size(); ++j) acc = acc + Wide{column.weights[j]} * rows[j];
  RequireInside(acc, Power(31), "convolution: sum past s32");
  const int32_t v = Saturate(RoundShift(acc * column.factor.multiplier, column.factor.shift), Range::kS16);
  const int64_t place = std::clamp<int64_t>(Apply(column.index, v), -32768, 32767) + 32768;
  const auto j = static_cast<size_t>(place / 128);
  const int64_t a = table[j] + RoundShift(Wide{table[j + 1] - table[j]} * (place % 128), 7);
  const int64_t y = RoundShift(Wide{v} * a, 15);
  Require(y >= -32767 && y <= 32767, "convolution: output past s16");
  return static_cast<int32_t>(y);
}

int64_t StepSize(const ScanHead &head, int32_t raw) {
  const int64_t v = Apply(head.dt, raw) + head.dt_bias, magnitude = v < 0 ? -v : v;
  int64_t rest = 0;
  if (magnitude < int64_t{1} << 20) {
    const auto i = static_cast<size_t>(magnitude / 1024);
    rest = head.softplus[i] + RoundShift((Wide{head.softplus[i + 1]} - head.softplus[i]) * (magnitude % 1024), 10);
  }
  return std::clamp((v > 0 ? v : 0) * 256 + rest, head.dt_least, head.dt_most);
}

int32_t Advance(const ScanHead &head, int32_t raw, int32_t x, const int32_t *b, const int32_t *c, size_t n, int32_t *state) {
  const int64_t dt = StepSize(head, raw);
  const auto octaves = static_cast<uint64_t>(Apply(head.decay, dt));
  const int64_t decay = std::min<int64_t>(RoundShift(Wide{static_cast<int64_t>(PowerOfTwo(octaves))}, 1), (1 << 30) - 1);
  const int64_t input = std::min(Apply(head.input, dt), (int64_t{1} << 46) - 1);
  const int64_t w = Saturate31(RoundShift(Wide{x} * input, 15));
  Wide sum = Wide{head.skip} * x;
  for (size_t i = 0; i < n; ++i) {
    state[i] = static_cast<int32_t>(Saturate31(RoundShift(Wide{state[i]} * decay, 30) + RoundShift(Wide{b[i]} * w, 15)));
    sum = sum + Wide{c[i]} * state[i];
  }
  RequireInside(sum, Power(62), "recurrence: sum past 62 bits");
  return Saturate(RoundShift(sum, head.out_shift), Range::kS16);
}

}  // namespace acorn::reference
