#include "random_ids.h"

namespace acorn::program {
namespace {

// SplitMix64.
uint64_t NextRandom(uint64_t *state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

}  // namespace

std::vector<int32_t> RandomIds(uint64_t seed, uint64_t count, uint32_t vocab_size) {
  std::vector<int32_t> ids(count);
  for (int32_t &id : ids) id = static_cast<int32_t>(NextRandom(&seed) % vocab_size);
  return ids;
}

}  // namespace acorn::program
