// Uniformly random token ids: the same for one seed on every machine, in `bench` and in `trace`.
#pragma once

#include <cstdint>
#include <vector>

namespace acorn::program {

std::vector<int32_t> RandomIds(uint64_t seed, uint64_t count, uint32_t vocab_size);

}  // namespace acorn::program
