#include "kernels/grouped/engine512.h"

namespace acorn::gemm_s8_w4g {
namespace {

struct Nibbles : grouped::NibbleCodes512 {
  static ACORN_INLINE void Split(__m512i (&w)[kParts], __m512i packed) {
    const __m512i mask = _mm512_set1_epi8(15);
    w[0] = _mm512_and_si512(packed, mask);
    w[1] = _mm512_and_si512(_mm512_srli_epi16(packed, 4), mask);
  }
};

using Driver = grouped::Driver<grouped::Engine512<Nibbles>>;

}  // namespace

size_t ScratchBytesAvx512Vnni(size_t m, size_t k);
void RunAvx512Vnni(const GemmArgs &args);

size_t ScratchBytesAvx512Vnni(size_t m, size_t k) { return Driver::ScratchBytes(m, k); }
void RunAvx512Vnni(const GemmArgs &args) { Driver::Run(args); }

}  // namespace acorn::gemm_s8_w4g
