// The operators of docs/ARITHMETIC.md as straight loops, one function a section. Written from that page alone; the
// runtime and its kernels must agree with it bit for bit. Every bound that the page states is checked: a violated one
// ends the process, since then either the file or the page is wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tests/support/wide.h"

namespace acorn::reference {

using test::Wide;

/// Ends the process with a message unless `holds`.
void Require(bool holds, const char *what);

/// §1: a factor M / 2^S and the roundings.
struct Factor {
  int64_t multiplier;
  int shift;
};
int64_t RoundShift(Wide value, int shift);
int64_t Apply(Factor factor, int64_t value);
enum class Range : uint8_t { kS8, kS15, kS16, kS32 };
int32_t Saturate(int64_t value, Range range);
int Bits(uint64_t value);

/// A weight as integers: `value(n, k)` is w, with its group's multiplier kept apart.
struct Matrix {
  uint32_t n = 0, k = 0, group = 0;  // group 0: per channel
  std::vector<int8_t> w;             // [n, k]
  std::vector<uint8_t> multipliers;  // [n, k / group]
};

/// §2: one row.
void Embed(const Matrix &weight, uint32_t token, Factor factor, int32_t *out);

/// §3: one row x [k] to y [n].
struct LinearSpec {
  const Matrix *weight;
  std::vector<int32_t> bias, multipliers;  // [n]
  int shift;
  int zero_point;
  Range input, output;
};
void Linear(const LinearSpec &spec, const int32_t *x, int32_t *y);

/// §4.1: one group x [width].
struct RmsNormSpec {
  std::vector<int16_t> gamma;
  uint64_t eps_term;
  Factor factor;
  int zero_point;
  Range output;
};
void RmsNorm(const RmsNormSpec &spec, const int32_t *x, int32_t *y);

/// §4.2: one part x [width].
struct LayerNormSpec {
  std::vector<int16_t> gamma;
  std::vector<int32_t> bias;
  uint64_t eps_term;
  int shift;
  int zero_point;
  Range output;
};
void LayerNorm(const LayerNormSpec &spec, const int32_t *x, int32_t *y);

/// §5: one head x [head_dim] at `position`.
void Rotate(const std::vector<uint64_t> &frequencies, uint64_t position, uint32_t head_dim, Factor factor, Range range,
            const int32_t *x, int32_t *y);
/// The same for one pair of dimensions; frequency null: it only changes scale.
void RotatePair(const uint64_t *frequency, uint64_t position, Factor factor, Range range, int32_t a, int32_t b, int32_t *ya,
                int32_t *yb);
int32_t Sine(uint32_t phase);

/// §7: one query head to y [v_dim] over rows of a cache that lie `stride` apart.
struct AttentionHead {
  Factor exponent, result;
  int zero_point;
  uint32_t k_dim, v_dim;
  uint64_t stride;
};
uint32_t Exp2(int64_t t);
/// Rows [begin, end), and the query that meets them, [k_dim].
struct SeenKeys {
  const int32_t *q;
  uint64_t begin, end;
};
void Attend(const AttentionHead &head, const std::vector<SeenKeys> &seen, const int8_t *k, const int8_t *v, int32_t *y);

/// §8: one value.
int32_t Gate(const std::vector<int16_t> &table, Factor index, int shift, int32_t gate, int32_t up);

/// §9: one block x [block].
void Hadamard(uint32_t block, Factor factor, int zero_point, Range output, const int32_t *x, int32_t *y);

/// §10: one value.
int32_t Add(int32_t a, int64_t a_multiplier, int32_t b, int64_t b_multiplier, int shift);

/// §12.2: 2^31 * 2^(-t / 2^26).
uint64_t PowerOfTwo(uint64_t t);

/// §15.1: one column of one token. rows: its inputs from the oldest on, [taps].
struct ConvColumn {
  std::vector<int32_t> weights;  // [taps]
  int32_t bias;
  Factor factor, index;
};
int32_t Convolve(const ConvColumn &column, const std::vector<int16_t> &table, const std::vector<int32_t> &rows);

/// §15.2: one head.
struct ScanHead {
  Factor dt;
  int32_t dt_bias;
  std::vector<int32_t> softplus;
  int64_t dt_least, dt_most;
  Factor decay, input;
  int64_t skip;
  int out_shift;
};
/// The size of a step in Q24.
int64_t StepSize(const ScanHead &head, int32_t raw);
/// One token of one channel: state [n] goes on, y comes back.
int32_t Advance(const ScanHead &head, int32_t raw, int32_t x, const int32_t *b, const int32_t *c, size_t n, int32_t *state);

/// §14. scoring: as in the file.
struct Chosen {
  uint32_t expert;
  uint32_t weight;  // Q15
};
std::vector<Chosen> Route(const std::vector<int32_t> &logits, uint32_t top_k, uint32_t scoring, Factor octaves);
/// The weight in Q15 of a shared expert.
uint32_t SharedWeight(int32_t logit, Factor octaves);

}  // namespace acorn::reference
