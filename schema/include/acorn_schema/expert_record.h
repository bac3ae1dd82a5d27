// Where the parts of an expert's record lie: three matrices, gate and up [ffn, hidden], down [hidden, ffn], each with its biases
// and multipliers. FORMAT.md "Expert records" is its prose. For the writer, the reader, the operator and the tests alike.
#pragma once

#include <cstddef>
#include <cstdint>

#include "acorn_schema/layout.h"
#include "acorn_schema/layout_xnnpack.h"

namespace acorn::expert {

constexpr uint64_t kPartAlignment = 64;
constexpr size_t kParts = 3;
enum Part : size_t { kGate, kUp, kDown };

/// Depth of a panel of a format without groups: 127 * 127 * 1024 is below 2^24, so that any weights may stand in it.
constexpr uint32_t kPanelDepth = 1024;

struct Shape {
  uint32_t hidden, ffn;
  WeightFormat format, down_format;  // of gate and up; of down
  Layout layout;                     // of formats without groups
};

/// Byte offsets from the start of a record.
struct Place {
  uint64_t weights, weight_bytes;
  uint64_t bias;         // s32 [n]
  uint64_t multipliers;  // s32 [n]
  uint64_t end;
};

struct Matrix {
  WeightFormat format;
  Layout layout;
  uint32_t n, k, k_panel;
};

static constexpr Matrix MatrixOf(const Shape &shape, size_t part) {
  const WeightFormat format = part == kDown ? shape.down_format : shape.format;
  const uint32_t n = part == kDown ? shape.hidden : shape.ffn, k = part == kDown ? shape.ffn : shape.hidden;
  const bool grouped = GroupSize(format) != 0;
  return {format, grouped ? Layout::kC4 : shape.layout, n, k, grouped || k < kPanelDepth ? k : kPanelDepth};
}

/// The format fits the layout and the depth.
static constexpr bool IsLegal(const Matrix &matrix) {
  if (!LayoutHolds(matrix.layout, matrix.format)) return false;
  return GroupSize(matrix.format) == 0 || matrix.k % GroupSize(matrix.format) == 0;
}

static constexpr uint64_t PackedBytes(const Matrix &matrix) {
  if (matrix.layout == Layout::kC4) return c4::PackedBytes(matrix.format, matrix.n, matrix.k);
  return XnnPackedBytes({matrix.format, matrix.layout, matrix.n, matrix.k, matrix.k_panel});
}

static constexpr uint64_t Align(uint64_t value) { return (value + kPartAlignment - 1) / kPartAlignment * kPartAlignment; }

/// One part after the other, each array on a multiple of 64.
static constexpr Place PlaceOf(const Shape &shape, size_t part) {
  Place place = {};
  for (size_t i = 0; i <= part; ++i) {
    const Matrix matrix = MatrixOf(shape, i);
    place.weights = place.end;
    place.weight_bytes = PackedBytes(matrix);
    place.bias = Align(place.weights + place.weight_bytes);
    place.multipliers = Align(place.bias + uint64_t{matrix.n} * sizeof(int32_t));
    place.end = Align(place.multipliers + uint64_t{matrix.n} * sizeof(int32_t));
  }
  return place;
}

/// Bytes of a record that count: a multiple of 64.
static constexpr uint64_t RecordBytes(const Shape &shape) { return PlaceOf(shape, kDown).end; }

}  // namespace acorn::expert
