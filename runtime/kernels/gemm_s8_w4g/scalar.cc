#include "kernels/grouped/scalar.h"

namespace acorn::gemm_s8_w4g {
namespace {

struct Nibbles {
  static constexpr uint32_t kBits = 4;
  static int32_t Dot(const uint8_t *bytes, const int8_t *x) {
    int32_t dot = 0;
    for (size_t i = 0; i < 4; ++i) dot += ((bytes[i] & 15) - 8) * x[i] + ((bytes[i] >> 4) - 8) * x[4 + i];
    return dot;
  }
};

}  // namespace

size_t ScratchBytesScalar(size_t m, size_t k);
void RunScalar(const GemmArgs &args);

size_t ScratchBytesScalar(size_t, size_t) { return 0; }

void RunScalar(const GemmArgs &args) { grouped::RunScalar<Nibbles>(args); }

}  // namespace acorn::gemm_s8_w4g
