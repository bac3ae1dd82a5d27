#include "kernels/grouped/engine512.h"

namespace acorn::gemm_s8_w2g {
namespace {

struct Crumbs : grouped::CrumbCodes512 {
  // Bit matrices that move bits 2p and 2p + 1 to 1 and 2: one instruction where shift and mask are two.
  static ACORN_INLINE void Split(__m512i (&w)[kParts], __m512i packed) {
    w[0] = _mm512_gf2p8affine_epi64_epi8(packed, _mm512_set1_epi64(0x0001020000000000), 0);
    w[1] = _mm512_gf2p8affine_epi64_epi8(packed, _mm512_set1_epi64(0x0004080000000000), 0);
    w[2] = _mm512_gf2p8affine_epi64_epi8(packed, _mm512_set1_epi64(0x0010200000000000), 0);
    w[3] = _mm512_gf2p8affine_epi64_epi8(packed, _mm512_set1_epi64(0x0040800000000000), 0);
  }
};

using Driver = grouped::Driver<grouped::Engine512<Crumbs>>;

}  // namespace

size_t ScratchBytesAvx512VnniGfni(size_t m, size_t k);
void RunAvx512VnniGfni(const GemmArgs &args);

size_t ScratchBytesAvx512VnniGfni(size_t m, size_t k) { return Driver::ScratchBytes(m, k); }
void RunAvx512VnniGfni(const GemmArgs &args) { Driver::Run(args); }

}  // namespace acorn::gemm_s8_w2g
