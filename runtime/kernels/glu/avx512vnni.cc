// The table's entries come from 16 registers' worth of memory by permutations, 64 entries each: a gather of 16 lanes takes longer
// than all eight of them for 32 (Zen 5: 0.57 against 0.40 ns an element for the whole operator).
#include "kernels/glu/kernel.h"
#include "kernels/inline.h"
#include "kernels/simd_avx512.h"

namespace acorn::glu {
namespace {

constexpr size_t kEntries = 512;  // that an element's position may choose: positions have 9 bits and a fraction of 7

/// Lanes of 32 bits for 32 values, in the order of _mm512_unpack: each 128-bit lane's first four and last four.
struct Halves {
  __m512i low, high;
};
Halves Unpack(__m512i a, __m512i b) { return {_mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b)}; }
Halves Widen(__m512i v) {
  const Halves twice = Unpack(v, v);
  return {_mm512_srai_epi32(twice.low, 16), _mm512_srai_epi32(twice.high, 16)};
}

/// An element's entry, and the one behind it.
struct Tables {
  explicit Tables(const int16_t *table) {
    __builtin_memcpy(here, table, sizeof(here));
    __builtin_memcpy(next, table + 1, sizeof(next));
  }
  alignas(64) int16_t here[kEntries];
  alignas(64) int16_t next[kEntries];
};

/// entries[j] for 32 positions.
__m512i LookUp(const int16_t *entries, __m512i j) {
  __m512i found[8];
  ACORN_UNROLL
  for (size_t i = 0; i < 8; ++i) {
    found[i] = _mm512_permutex2var_epi16(_mm512_load_si512(entries + 64 * i), j, _mm512_load_si512(entries + 64 * i + 32));
  }
  const __mmask32 by64 = _mm512_test_epi16_mask(j, _mm512_set1_epi16(64)), by128 = _mm512_test_epi16_mask(j, _mm512_set1_epi16(128)),
                  by256 = _mm512_test_epi16_mask(j, _mm512_set1_epi16(256));
  ACORN_UNROLL
  for (size_t i = 0; i < 4; ++i) found[i] = _mm512_mask_mov_epi16(found[2 * i], by64, found[2 * i + 1]);
  ACORN_UNROLL
  for (size_t i = 0; i < 2; ++i) found[i] = _mm512_mask_mov_epi16(found[2 * i], by128, found[2 * i + 1]);
  found[0] = _mm512_mask_mov_epi16(found[0], by256, found[1]);
  return found[0];
}

template <Range kRange>
class Glu {
 public:
  explicit Glu(const Args &args)
      : tables_(args.table),
        round_index_(args.index_shift),
        round_(args.shift),
        index_factor_(_mm512_set1_epi64(args.index_multiplier)),
        saturating_(SaturatingGate(args.index_multiplier, args.index_shift)) {}

  __m512i operator()(__m512i gates, __m512i ups) const {
    const Halves gate = Widen(gates), up = Widen(ups);
    // Positions in [0, 65535].
    const __m512i w = _mm512_packus_epi32(Position(gate.low), Position(gate.high));
    const __m512i j = _mm512_srli_epi16(w, 7), f = _mm512_and_si512(w, _mm512_set1_epi16(127));
    // here * (128 - f) + next * f is 128 t before rounding.
    const Halves entries = Unpack(LookUp(tables_.here, j), LookUp(tables_.next, j));
    const Halves weights = Unpack(_mm512_sub_epi16(_mm512_set1_epi16(128), f), f);
    return _mm512_max_epi16(_mm512_packs_epi32(Product(gate.low, entries.low, weights.low, up.low),
                                               Product(gate.high, entries.high, weights.high, up.high)),
                            _mm512_set1_epi16(-32767));
  }

 private:
  __m512i Position(__m512i gate) const {
    const __m512i most = _mm512_set1_epi32(saturating_), least = _mm512_set1_epi32(-saturating_);
    const __m512i clamped = _mm512_min_epi32(_mm512_max_epi32(gate, least), most);
    const __m512i w = _mm512_add_epi32(Join(round_index_(MultiplyAll(clamped, index_factor_))), _mm512_set1_epi32(32768));
    return _mm512_max_epi32(w, _mm512_setzero_si512());  // packing clamps above
  }

  __m512i Product(__m512i gate, __m512i entries, __m512i weights, __m512i up) const {
    const __m512i sum = _mm512_madd_epi16(entries, weights);
    const __m512i t = _mm512_srai_epi32(_mm512_add_epi32(sum, _mm512_set1_epi32(64)), 7);
    const __m512i gt = _mm512_madd_epi16(gate, _mm512_and_si512(t, _mm512_set1_epi32(0xffff)));  // t's upper half is 0
    const __m512i activated = _mm512_srai_epi32(_mm512_add_epi32(gt, _mm512_set1_epi32(128)), 8);
    Wide product = round_(Multiply(activated, up));
    if constexpr (kRange == Range::k64Bits) product = {Saturate(product.even), Saturate(product.odd)};
    return Join(product);
  }

  static __m512i Saturate(__m512i v) {
    return _mm512_min_epi64(_mm512_max_epi64(v, _mm512_set1_epi64(-32767)), _mm512_set1_epi64(32767));
  }

  Tables tables_;
  Rounder round_index_, round_;
  __m512i index_factor_;
  int32_t saturating_;
};

template <Range kRange>
void Rows(const Args &args) {
  const Glu<kRange> glu(args);
  for (size_t row = 0; row < args.m; ++row) {
    const int16_t *gate = args.gate + row * args.gate_stride;
    const int16_t *up = args.up + row * args.up_stride;
    int16_t *y = args.y + row * args.y_stride;
    for (size_t i = 0; i < args.n; i += 32) {
      const __mmask32 mask = args.n - i >= 32 ? ~__mmask32{0} : (__mmask32{1} << (args.n - i)) - 1;
      _mm512_mask_storeu_epi16(y + i, mask, glu(_mm512_maskz_loadu_epi16(mask, gate + i), _mm512_maskz_loadu_epi16(mask, up + i)));
    }
  }
}

}  // namespace

void RunAvx512Vnni(const Args &args) { args.shift >= kShiftTo31Bits ? Rows<Range::k31Bits>(args) : Rows<Range::k64Bits>(args); }

}  // namespace acorn::glu
