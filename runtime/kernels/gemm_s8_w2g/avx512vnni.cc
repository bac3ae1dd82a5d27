#include "kernels/grouped/engine512.h"

namespace acorn::gemm_s8_w2g {
namespace {

struct Crumbs : grouped::CrumbCodes512 {
  static ACORN_INLINE void Split(__m512i (&w)[kParts], __m512i packed) {
    const __m512i mask = _mm512_set1_epi8(6);
    w[0] = _mm512_and_si512(_mm512_slli_epi16(packed, 1), mask);
    w[1] = _mm512_and_si512(_mm512_srli_epi16(packed, 1), mask);
    w[2] = _mm512_and_si512(_mm512_srli_epi16(packed, 3), mask);
    w[3] = _mm512_and_si512(_mm512_srli_epi16(packed, 5), mask);
  }
};

using Driver = grouped::Driver<grouped::Engine512<Crumbs>>;

}  // namespace

size_t ScratchBytesAvx512Vnni(size_t m, size_t k);
void RunAvx512Vnni(const GemmArgs &args);

size_t ScratchBytesAvx512Vnni(size_t m, size_t k) { return Driver::ScratchBytes(m, k); }
void RunAvx512Vnni(const GemmArgs &args) { Driver::Run(args); }

}  // namespace acorn::gemm_s8_w2g
