#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <system_error>
#include <vector>

#include "acorn_port.h"
#include "acorn_posix.h"
#include "train/mobilequant.h"

namespace acorn::compiler {
namespace {

constexpr char kReadyMark[] = "ACORNC_TRAINING_READY";

/// The words that this program was called with.
std::vector<std::string> CommandLine() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  std::vector<std::string> words;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\0', begin), text.size());
    words.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

}  // namespace

void PrepareTraining(const char *) {
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
  // Its threads would go on asking for work between products, a quarter of the time of two cores (perf, SmolLM2-135M), so products
  // are shared out here (train/product.h).
  setenv("OPENBLAS_NUM_THREADS", "1", 1);
  // A step has thousands of short parallel loops. Spinning for long between them starves whoever shares the machine, this
  // program's other threads among them.
  setenv("GOMP_SPINCOUNT", "20000", 0);
  std::vector<std::string> words = CommandLine();
  std::vector<char *> argv;
  argv.reserve(words.size() + 1);
  for (std::string &word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  // By its own name, which tools show. Where this is not to be had, training is slower.
  std::error_code none;
  const std::string program = std::filesystem::read_symlink("/proc/self/exe", none).string();
  if (!words.empty() && !program.empty()) execv(program.c_str(), argv.data());
}

}  // namespace acorn::compiler
