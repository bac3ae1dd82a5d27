// Where the pairs of a rotation lie in a head whose pairs are sorted by importance (Rotate.pairs): in blocks of 16 dimensions, eight
// first members, then their partners, so that the first blocks are the most important pairs. Values are frozen in the model file.
#pragma once

#include <cstdint>

namespace acorn {

constexpr uint32_t kPairBlock = 16;    // dimensions
constexpr uint8_t kNoFrequency = 255;  // of a pair that only changes scale

/// The dimension of the first member of pair `pair`, and of its partner.
constexpr uint32_t FirstOfPair(uint32_t pair) { return pair / (kPairBlock / 2) * kPairBlock + pair % (kPairBlock / 2); }
constexpr uint32_t SecondOfPair(uint32_t pair) { return FirstOfPair(pair) + kPairBlock / 2; }

}  // namespace acorn
