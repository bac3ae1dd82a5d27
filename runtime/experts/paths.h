// Which experts tend to follow which: the statistics of paths that EdgeMoE predicts by (Yi et al. 2023, arXiv 2308.14352, section
// III-C). The key is the best expert of each of the two layers that ran last, the value how often each expert was used in the layer
// after them. Counted on the device, from the text that it decodes.
//
// A table of all pairs is layers * experts^3 counts; 128 experts would take 100 MB. Most tokens walk few paths, so each layer has
// kMostPaths rows at most, and a pair that comes often takes the row of one that does not come any more.
#pragma once

#include <cstdint>

#include "base/arena.h"
#include "base/span.h"

namespace acorn {

class ExpertPaths {
 public:
  static constexpr uint32_t kMostPaths = 1024;  // rows of a layer; all pairs of 32 experts

  /// Takes the tables out of the arena, which may only count, and forgets everything.  layers, experts: at least 1
  void Open(Arena *arena, uint32_t layers, uint32_t experts);

  /// A token has used these experts of a layer, the router's best first. Layers come in order, token after token.
  void Saw(uint32_t layer, Span<const uint32_t> experts);

  /// Experts that have followed on the last two layers' best ones, the most frequent first, the lower number of equals.
  ///   layer     the one that comes next
  ///   experts   takes as many as there are places, or fewer
  ///   returns   how many
  uint32_t Likely(uint32_t layer, Span<uint32_t> experts) const;

 private:
  struct Path {
    uint16_t before_last, last;
    uint16_t hold;  // how much the row is worth to its pair; 0: to be had
  };

  uint32_t RowOf(uint32_t layer) const;

  uint32_t experts_ = 0, rows_ = 0;
  bool all_ = false;  // pairs have a row of their own
  uint32_t before_last_ = 0, last_ = 0;
  Span<Path> paths_;      // [layers, rows]
  Span<uint8_t> counts_;  // [layers, rows, experts]
};

}  // namespace acorn
