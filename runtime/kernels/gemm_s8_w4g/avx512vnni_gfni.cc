#include "kernels/grouped/engine512.h"

namespace acorn::gemm_s8_w4g {
namespace {

struct Nibbles : grouped::NibbleCodes512 {
  static ACORN_INLINE void Split(__m512i (&w)[kParts], __m512i packed) {
    w[0] = _mm512_and_si512(packed, _mm512_set1_epi8(15));
    // A bit matrix that moves bits 7..4 to 3..0: one instruction where shift and mask are two.
    w[1] = _mm512_gf2p8affine_epi64_epi8(packed, _mm512_set1_epi64(0x1020408000000000), 0);
  }
};

using Driver = grouped::Driver<grouped::Engine512<Nibbles>>;

}  // namespace

size_t ScratchBytesAvx512VnniGfni(size_t m, size_t k);
void RunAvx512VnniGfni(const GemmArgs &args);

size_t ScratchBytesAvx512VnniGfni(size_t m, size_t k) { return Driver::ScratchBytes(m, k); }
void RunAvx512VnniGfni(const GemmArgs &args) { Driver::Run(args); }

}  // namespace acorn::gemm_s8_w4g
