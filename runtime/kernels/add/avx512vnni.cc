#include "kernels/add/kernel.h"
#include "kernels/simd_avx512.h"

namespace acorn::add {
namespace {

template <Range kRange>
void Rows(const Args &args) {
  const Rounder round(args.shift);
  const __m512i a_factor = _mm512_set1_epi64(args.a_multiplier), b_factor = _mm512_set1_epi64(args.b_multiplier);
  for (size_t row = 0; row < args.m; ++row) {
    const int16_t *a = args.a + row * args.a_stride;
    const int16_t *b = args.b + row * args.b_stride;
    int16_t *y = args.y + row * args.y_stride;
    for (size_t i = 0; i < args.n; i += 16) {
      const __mmask16 mask = Mask16(args.n - i);
      const Wide sum = Add(MultiplyAll(LoadS16(a + i, mask), a_factor), MultiplyAll(LoadS16(b + i, mask), b_factor));
      Finish<StoreS16, kRange>(y + i, mask, round(sum), 0);
    }
  }
}

}  // namespace

void RunAvx512Vnni(const Args &args) { args.shift >= kShiftTo31Bits ? Rows<Range::k31Bits>(args) : Rows<Range::k64Bits>(args); }

}  // namespace acorn::add
