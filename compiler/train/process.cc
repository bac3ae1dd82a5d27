#include "train/process.h"

#include <malloc.h>
#include <unistd.h>

#include <cstdlib>

#include "acorn_port.h"
#include "acorn_posix.h"

namespace acorn::compiler {
namespace {

constexpr char kReadyMark[] = "ACORNC_TRAINING_READY";

}  // namespace

void PrepareTraining(char **argv) {
#ifdef __GLIBC__
  // A step allocates and frees hundreds of tensors of megabytes. By default each would come from the system and go back to it,
  // its pages zeroed anew: a quarter of the time (perf, SmolLM2-135M).
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, -1);
#endif
  if (std::getenv(kReadyMark) != nullptr) return;
  setenv(kReadyMark, "1", 1);
  // OpenBLAS 0.3.21 takes newer processors with AVX-512 for Haswell, at half the speed.
  if ((acorn_posix_cpu_features() & ACORN_CPU_AVX512VNNI) != 0) setenv("OPENBLAS_CORETYPE", "SkylakeX", 0);
  // A step has thousands of short parallel loops. Waiting for the next one by spinning for long starves whoever shares the
  // machine, this program's other threads among them.
  setenv("GOMP_SPINCOUNT", "20000", 0);
  execv("/proc/self/exe", argv);  // where that is not to be had, training is slower
}

}  // namespace acorn::compiler
