// Packing: from a QuantizedMatrix to the bytes of a kernel-ready layout. Layouts are defined in acorn_schema alone.
#pragma once

#include <cstdint>
#include <vector>

#include "acorn_schema/layout.h"
#include "pack/quantized_matrix.h"

namespace acorn::compiler {

/// Largest magnitude of a value of an s8 row.
inline constexpr int64_t kRowLimit = 127;

struct PackedWeight {
  WeightFormat format = WeightFormat::kW8;
  Layout layout = Layout::kX16C8;
  int64_t n = 0;
  int64_t k = 0;
  int64_t k_panel = 0;     // k when there is one panel
  uint64_t acc_bound = 0;  // largest |sum| over a row of s8 values: 127 * max_n sum |multiplier * weight|
  std::vector<uint8_t> bytes;
};

/// Depth of a panel: k, or the largest multiple of 16 for which every panel of every channel stays below kXnnSumLimit.
int64_t ChoosePanelDepth(const QuantizedMatrix &matrix);

/// Throws Error(kBadModel) when the layout cannot hold the format or a sum may reach 2^31.
/// k_panel: of a format without groups; 0: ChoosePanelDepth.
PackedWeight Pack(const QuantizedMatrix &matrix, Layout layout, int64_t k_panel = 0);

}  // namespace acorn::compiler
