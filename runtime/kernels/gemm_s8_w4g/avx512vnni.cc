#include "kernels/gemm_s8_w4g/engine512.h"

namespace acorn::gemm_s8_w4g {
namespace {

struct Nibbles {
  static ACORN_INLINE __m512i Low(__m512i packed) { return _mm512_and_si512(packed, _mm512_set1_epi8(15)); }
  static ACORN_INLINE __m512i High(__m512i packed) {
    return _mm512_and_si512(_mm512_srli_epi16(packed, 4), _mm512_set1_epi8(15));
  }
};

}  // namespace

size_t ScratchBytesAvx512Vnni(size_t m, size_t k);
void RunAvx512Vnni(const GemmArgs &args);

size_t ScratchBytesAvx512Vnni(size_t m, size_t k) { return Driver<Engine512<Nibbles>>::ScratchBytes(m, k); }
void RunAvx512Vnni(const GemmArgs &args) { Driver<Engine512<Nibbles>>::Run(args); }

}  // namespace acorn::gemm_s8_w4g
