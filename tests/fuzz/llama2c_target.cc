// A llama2.c checkpoint by anybody: refused, or all that its header names can be read. An input is a file.
#include "tests/fuzz/json_mutator.h"
#include "tests/fuzz/scratch.h"
#include "tests/fuzz/source_checks.h"

namespace {

constexpr size_t kHeaderNumbers = 7;

/// What the header asks for, where that is a small file; 0 where it is not.
size_t WantedBytes(const uint8_t *data) {
  int32_t header[kHeaderNumbers];
  std::memcpy(header, data, sizeof header);
  for (const int32_t number : header) {
    if (number < -64 || number > 64) return 0;
  }
  const int64_t hidden = header[0], ffn = header[1], layers = header[2], heads = header[3], kv_heads = header[4];
  const int64_t vocab = std::abs(int64_t{header[5]}), context = header[6];
  if (hidden < 1 || ffn < 1 || layers < 1 || heads < 1 || kv_heads < 1 || context < 1) return 0;
  const int64_t head_dim = hidden / heads;
  const int64_t layer = 2 * hidden + 2 * hidden * heads * head_dim + 2 * hidden * kv_heads * head_dim + 3 * hidden * ffn;
  const int64_t tables = 2 * context * (head_dim / 2), head = header[5] < 0 ? vocab * hidden : 0;
  return sizeof header + 4 * static_cast<size_t>(vocab * hidden + layers * layer + hidden + tables + head);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  using namespace acorn::compiler;
  using namespace acorn::fuzz;
  if (size == 0) return 0;
  const std::string path = TheScratch().Write("model.bin", {reinterpret_cast<const char *>(data), size});
  EndsWell([&] { ReadEverything(*OpenSourceModel(path)); });
  return 0;
}

/// A number of the header, mostly; then the file is, mostly, as long as the header asks.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed) {
  acorn::fuzz::Chooser chooser(seed);
  if (size < 4 * kHeaderNumbers || chooser.OneIn(4)) return LLVMFuzzerMutate(data, size, max_size);
  for (uint64_t i = 0; i <= chooser.Below(2); ++i) {
    uint8_t *at = data + 4 * chooser.Below(kHeaderNumbers);
    const auto small = static_cast<int32_t>(chooser.Below(33)) - 8;
    if (chooser.OneIn(2)) {
      std::memcpy(at, &small, 4);
    } else {
      chooser.ChangeNumber(at, 4);
    }
  }
  const size_t wanted = WantedBytes(data);
  if (wanted == 0 || wanted > max_size || chooser.OneIn(4)) return size;
  if (wanted > size) std::memset(data + size, 0, wanted - size);
  return wanted;
}
