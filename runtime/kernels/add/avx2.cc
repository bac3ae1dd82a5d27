#include "kernels/add/kernel.h"
#include "kernels/simd_avx2.h"

namespace acorn::add {
namespace {

template <Range kRange>
void Rows(const Args &args) {
  const Rounder round(args.shift);
  const __m256i a_factor = _mm256_set1_epi64x(args.a_multiplier), b_factor = _mm256_set1_epi64x(args.b_multiplier);
  for (size_t row = 0; row < args.m; ++row) {
    const int16_t *a = args.a + row * args.a_stride;
    const int16_t *b = args.b + row * args.b_stride;
    int16_t *y = args.y + row * args.y_stride;
    for (size_t i = 0; i < args.n; i += 8) {
      const size_t left = args.n - i;
      const Wide sum = Add(MultiplyAll(LoadS16(a + i, left), a_factor), MultiplyAll(LoadS16(b + i, left), b_factor));
      Finish<StoreS16, kRange>(y + i, left, round(sum), 0);
    }
  }
}

}  // namespace

void RunAvx2(const Args &args) { args.shift >= kShiftTo31Bits ? Rows<Range::k31Bits>(args) : Rows<Range::k64Bits>(args); }

}  // namespace acorn::add
