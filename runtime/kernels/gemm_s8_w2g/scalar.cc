#include "kernels/grouped/scalar.h"

namespace acorn::gemm_s8_w2g {
namespace {

struct Crumbs {
  static constexpr uint32_t kBits = 2;
  static int32_t Dot(const uint8_t *bytes, const int8_t *x) {
    int32_t dot = 0;
    for (size_t i = 0; i < 4; ++i) {
      for (size_t part = 0; part < 4; ++part) {
        const int32_t code = bytes[i] >> (2 * part) & 3;
        dot += (2 * code - 3) * x[4 * part + i];
      }
    }
    return dot;
  }
};

}  // namespace

size_t ScratchBytesScalar(size_t m, size_t k);
void RunScalar(const GemmArgs &args);

size_t ScratchBytesScalar(size_t, size_t) { return 0; }

void RunScalar(const GemmArgs &args) { grouped::RunScalar<Crumbs>(args); }

}  // namespace acorn::gemm_s8_w2g
