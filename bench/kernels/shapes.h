// The shapes of bench/shapes/*.txt, one file for each model. A line is a kind and what that kind takes; # starts a comment:
//   gemm NAME m n k FORMAT [used_n used_k]     rows, channels, depth; FORMAT w8, w4, w4g32, w4g64, w4g128, w2g32; the first rows
//                                              and columns in use, where a pruning rate leaves some out
//   rmsnorm N   layernorm N   glu N   add N   requantise N   lut_u8 N   conv N
//   hadamard N BLOCK   rotate N HEAD_DIM   embed VOCAB N FORMAT   route EXPERTS TOP_K   scan HEAD_DIM COLUMNS
//   append KV_HEADS HEAD_DIM BITS
//   attention M KEYS HEADS HEAD_DIM BITS       query rows, keys that the last of them sees, query heads of one key head
//   attention_window M WINDOW HEADS HEAD_DIM BITS     the same where a window has turned, with four sinks
//   attention_parts KEYS HEADS HEAD_DIM        one row, its keys in two parts, 8 bits
//   experts M EXPERTS TOP_K HIDDEN FFN FORMAT  rows, experts in memory, of which each row visits TOP_K
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "acorn_schema/layout.h"

namespace acorn::bench {

struct Shape {
  std::string model;  // the file's name
  std::string kind;
  std::string name;   // gemm: its own; else the numbers, "576x64"
  std::vector<size_t> numbers;
  WeightFormat format = WeightFormat::kW8;  // gemm, embed, experts
  std::string format_name;                  // "w8"; empty where a kind has none
};

/// All shapes of all files, by file name and line. A line that cannot be read ends the program with file, line and what is wrong.
std::vector<Shape> ReadShapes();

}  // namespace acorn::bench
