// acorn_reference: logits of a model file by the slow reference, for whoever debugs a kernel or the runtime.
//   acorn_reference FILE ID,ID,... [--trace]
// Prints a digest for each position, and with --trace after each step a digest, the spread and the first values of what it
// wrote for the last position.
#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <sstream>
#include <string>
#include <vector>

#include "tests/reference/reference_model.h"

namespace {

using acorn::reference::Digest;
using acorn::reference::StepTrace;

void PrintStep(const StepTrace &step) {
  const size_t count = step.width;
  const int32_t *last = step.data.data() + step.data.size() - count;
  double squares = 0;
  int32_t largest = 0;
  for (const int32_t value : step.data) {
    squares += static_cast<double>(value) * value;
    largest = std::max(largest, std::abs(value));
  }
  std::printf("%s %3u %-9s value %2u [%u, +%u]  %016" PRIx64 "  rms %.1f max %d  last:", step.list, step.index, step.op,
              step.value, step.offset, step.width, Digest(step.data.data(), step.data.size()),
              std::sqrt(squares / static_cast<double>(step.data.size())), largest);
  for (size_t i = 0; i < std::min<size_t>(8, count); ++i) std::printf(" %d", last[i]);
  std::printf("\n");
}

}  // namespace

int main(int argc, char **argv) {
  const bool trace = argc == 4 && std::strcmp(argv[3], "--trace") == 0;
  if (argc != 3 && !trace) {
    std::fprintf(stderr, "usage: acorn_reference FILE ID,ID,... [--trace]\n");
    return 2;
  }
  std::vector<int32_t> tokens;
  std::stringstream list(argv[2]);
  for (std::string id; std::getline(list, id, ',');)
    tokens.push_back(static_cast<int32_t>(std::strtol(id.c_str(), nullptr, 10)));
  const acorn::reference::ReferenceModel model = acorn::reference::ReferenceModel::Open(argv[1]);
  const std::vector<int32_t> logits = trace ? model.Logits(tokens, PrintStep) : model.Logits(tokens);
  for (size_t row = 0; row < tokens.size(); ++row) {
    const int32_t *begin = logits.data() + row * model.vocab_size();
    const int32_t *best = std::max_element(begin, begin + model.vocab_size());
    std::printf("position %zu  token %d  best %d (%d)  digest so far %016" PRIx64 "\n", row, tokens[row],
                static_cast<int32_t>(best - begin), *best, Digest(logits.data(), (row + 1) * model.vocab_size()));
  }
  return 0;
}
