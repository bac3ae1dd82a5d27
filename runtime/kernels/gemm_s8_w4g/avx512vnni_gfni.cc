#include "kernels/gemm_s8_w4g/engine512.h"

namespace acorn::gemm_s8_w4g {
namespace {

struct Nibbles {
  static ACORN_INLINE __m512i Low(__m512i packed) { return _mm512_and_si512(packed, _mm512_set1_epi8(15)); }
  static ACORN_INLINE __m512i High(__m512i packed) {
    // A bit matrix that moves bits 7..4 to 3..0: one instruction where shift and mask are two.
    return _mm512_gf2p8affine_epi64_epi8(packed, _mm512_set1_epi64(0x1020408000000000), 0);
  }
};

}  // namespace

size_t ScratchBytesAvx512VnniGfni(size_t m, size_t k);
void RunAvx512VnniGfni(const GemmArgs &args);

size_t ScratchBytesAvx512VnniGfni(size_t m, size_t k) { return Driver<Engine512<Nibbles>>::ScratchBytes(m, k); }
void RunAvx512VnniGfni(const GemmArgs &args) { Driver<Engine512<Nibbles>>::Run(args); }

}  // namespace acorn::gemm_s8_w4g
