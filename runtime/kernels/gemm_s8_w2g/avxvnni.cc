#include "kernels/grouped/engine_avxvnni.h"

namespace acorn::gemm_s8_w2g {
namespace {

using Driver = grouped::Driver<grouped::Engine256<grouped::AvxVnniOps, grouped::Crumbs256>>;

}  // namespace

size_t ScratchBytesAvxVnni(size_t m, size_t k);
void RunAvxVnni(const GemmArgs &args);

size_t ScratchBytesAvxVnni(size_t m, size_t k) { return Driver::ScratchBytes(m, k); }
void RunAvxVnni(const GemmArgs &args) { Driver::Run(args); }

}  // namespace acorn::gemm_s8_w2g
