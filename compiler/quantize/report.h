// The error report of a conversion: a line for each weight, as CSV and as pictures.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace acorn::compiler {

struct WeightReport {
  int64_t layer = 0;
  std::string weight;  // "qkv", "o", "gate_up", "down"; "head"
  std::string format;
  double weight_error = 0;  // relative squared error of the output from rounding the weight
  double input_error = 0;   // the same from rounding the input, over a sample
  double input_step = 0;    // real size of one unit of the input
  double input_clip = 0;    // share of the largest magnitude that the range covers
  double scaling = 0;       // exponent of the equivalent scaling of the weight's columns, 0: none
};

struct LayerReport {
  std::vector<WeightReport> weights;
};

/// Writes layers.csv, weight_error.svg and input_error.svg into `folder`, which is created. Throws Error(kIo).
void WriteReport(const std::string &folder, const LayerReport &report);

}  // namespace acorn::compiler
