// The table's entries come from 16 registers' worth of memory by permutations, 64 entries each: a gather of 16 lanes takes longer
// than all eight of them for 32 (Zen 5: 0.57 against 0.40 ns an element for the whole operator).
#include "kernels/glu/kernel.h"
#include "kernels/inline.h"
#include "kernels/simd_avx512.h"

namespace acorn::glu {
namespace {

constexpr int kEntries = 512;  // that an element's position may choose: positions have 9 bits and a fraction of 7
constexpr int kNear = 128;     // of them, around 0: gates below 4

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

/// entries[j] for 32 positions below 64 * kPieces.
template <int kPieces>
ACORN_INLINE __m512i LookUp(const int16_t *entries, __m512i j) {
  __m512i found[kPieces];
  ACORN_UNROLL
  for (int i = 0; i < kPieces; ++i) {
    found[i] = _mm512_permutex2var_epi16(_mm512_load_si512(entries + 64 * i), j, _mm512_load_si512(entries + 64 * i + 32));
  }
  ACORN_UNROLL
  for (int pieces = kPieces / 2, bit = 64; pieces != 0; pieces /= 2, bit *= 2) {
    const __mmask32 odd = _mm512_test_epi16_mask(j, _mm512_set1_epi16(static_cast<int16_t>(bit)));
    ACORN_UNROLL
    for (int i = 0; i < pieces; ++i) found[i] = _mm512_mask_mov_epi16(found[2 * i], odd, found[2 * i + 1]);
  }
  return found[0];
}

// kIndex: k31Bits where the rounding shift of positions takes at least 17 bits.
template <Range kRange, Range kIndex>
class Glu {
 public:
  explicit Glu(const Args &args)
      : tables_(args.table),
        round_index_(args.index_shift),
        round_(args.shift),
        index_factor_(_mm512_set1_epi64(args.index_multiplier)),
        saturating_(SaturatingGate(args.index_multiplier, args.index_shift)) {
    if constexpr (kIndex == Range::k64Bits) return;
    const auto low = static_cast<int16_t>(args.index_multiplier);
    index_low_ = _mm512_set1_epi16(low);
    index_low_negative_ = _mm512_set1_epi16(low < 0 ? -1 : 0);
    index_high_ = _mm512_set1_epi32((args.index_multiplier >> 16 & 0xffff) | 1 << 16);  // and 1 for `low`
    index_round_ = _mm512_set1_epi32(1 << (args.index_shift - 17));
    index_shift_ = _mm_cvtsi32_si128(args.index_shift - 16);
  }

  __m512i operator()(__m512i gates, __m512i ups) const {
    const Halves gate = Widen(gates), up = Widen(ups);
    const __m512i w = Positions(gates, gate);
    const __m512i j = _mm512_srli_epi16(w, 7), f = _mm512_and_si512(w, _mm512_set1_epi16(127));
    // here * (128 - f) + next * f is 128 t before rounding.
    const Halves entries = Entries(w, j);
    const Halves weights = Unpack(_mm512_sub_epi16(_mm512_set1_epi16(128), f), f);
    return _mm512_max_epi16(_mm512_packs_epi32(Product(gate.low, entries.low, weights.low, up.low),
                                               Product(gate.high, entries.high, weights.high, up.high)),
                            _mm512_set1_epi16(-32767));
  }

 private:
  // An element's entry and the one behind it. Most gates are small: those of the table's middle need a fourth of its pieces.
  Halves Entries(__m512i w, __m512i j) const {
    constexpr int kFirst = kEntries / 2 - kNear / 2;
    const __m512i from_first = _mm512_sub_epi16(w, _mm512_set1_epi16(kFirst << 7));
    if (_mm512_cmplt_epu16_mask(from_first, _mm512_set1_epi16(static_cast<int16_t>(kNear << 7))) == ~__mmask32{0}) {
      const __m512i near = _mm512_srli_epi16(from_first, 7);
      return Unpack(LookUp<kNear / 64>(tables_.here + kFirst, near), LookUp<kNear / 64>(tables_.next + kFirst, near));
    }
    return Unpack(LookUp<kEntries / 64>(tables_.here, j), LookUp<kEntries / 64>(tables_.next, j));
  }

  // Positions of 32 gates, in [0, 65535].
  __m512i Positions(__m512i gates, const Halves &gate) const {
    if constexpr (kIndex == Range::k64Bits) return _mm512_packus_epi32(Position(gate.low), Position(gate.high));
    // gate * multiplier is 2^16 times gate * its upper half plus gate * its lower half, of which what lies below 2^16 does not reach
    // the result.
    __m512i low = _mm512_mulhi_epi16(gates, index_low_);  // of the lower half as a signed number
    low = _mm512_add_epi16(low, _mm512_and_si512(gates, index_low_negative_));
    const Halves pairs = Unpack(gates, low);
    const auto position = [&](__m512i pair) {
      const __m512i sum = _mm512_add_epi32(_mm512_madd_epi16(pair, index_high_), index_round_);
      return _mm512_add_epi32(_mm512_sra_epi32(sum, index_shift_), _mm512_set1_epi32(32768));
    };
    return _mm512_packus_epi32(position(pairs.low), position(pairs.high));  // clamps
  }

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
  __m512i index_factor_, index_low_, index_low_negative_, index_high_, index_round_;
  __m128i index_shift_;
  int32_t saturating_;
};

template <Range kRange, Range kIndex>
void Rows(const Args &args) {
  const Glu<kRange, kIndex> glu(args);
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

void RunAvx512Vnni(const Args &args) {
  if (args.shift < kShiftTo31Bits) return Rows<Range::k64Bits, Range::k64Bits>(args);
  const bool index_in_31_bits = args.index_shift >= 18 && args.index_shift <= 46;
  index_in_31_bits ? Rows<Range::k31Bits, Range::k31Bits>(args) : Rows<Range::k31Bits, Range::k64Bits>(args);
}

}  // namespace acorn::glu
