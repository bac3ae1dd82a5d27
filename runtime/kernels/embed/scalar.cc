#include "acorn_schema/layout_xnnpack.h"
#include "base/fixed_point.h"
#include "kernels/embed/kernel.h"

namespace acorn::embed {
namespace {

/// One token's factor.
struct Output {
  int16_t *y;  // [k]
  int64_t multiplier;
  int shift;
  void Store(size_t i, int64_t q) const { y[i] = SaturateS16(RoundShift(q * multiplier, shift)); }
};

void GroupedRow(const Output &out, const Args &args, uint64_t n) {
  const uint32_t group = GroupSize(args.format);
  for (size_t i = 0; i < args.k; i += 4) {  // bytes of four consecutive k lie side by side
    const uint8_t *byte = args.w + c4::WeightOffset(args.format, n, i, args.k);
    const uint32_t shift = c4::Shift(args.format, i);
    const int64_t multiplier = args.w[c4::MultiplierOffset(args.format, n, i / group, args.k)];
    for (size_t j = 0; j < 4; ++j) {
      out.Store(i + j, c4::Decode(args.format, byte[j] >> shift & c4::Mask(args.format)) * multiplier);
    }
  }
}

void ChannelRow(const Output &out, const Args &args, uint64_t n) {
  const XnnMatrix matrix = {args.format, args.layout, args.n, args.k, args.k_panel == 0 ? args.k : args.k_panel};
  const uint32_t mask = args.format == WeightFormat::kW8 ? 255 : 15;
  const uint32_t kr = XnnKr(args.layout), channel_of_tile = static_cast<uint32_t>(n % XnnNr(args.layout));
  for (uint64_t panel = 0, i = 0; i < args.k; ++panel) {
    const uint8_t *const channel = args.w + XnnChannelOffset(matrix, n, panel);
    const uint64_t depth = XnnPanelDepth(args.k, matrix.k_panel, panel), end = i + depth;
    const auto place_of = [&](uint32_t block) { return XnnNeighboursPlace(args.format, args.layout, channel_of_tile, block); };
    // Each place is a line of its own, far from the others and from what was read last: all are asked for before any is waited for.
    for (uint32_t block = 0; block * kr < depth; ++block) __builtin_prefetch(channel + place_of(block).offset);
    for (uint32_t block = 0; i < end; ++block) {  // kr weights are neighbours
      const XnnWeightPlace place = place_of(block);
      const uint8_t *bytes = channel + place.offset;
      const uint64_t next = end - i < kr ? end : i + kr;
      for (; i < next; ++i) out.Store(i, XnnDecode(args.format, args.layout, (*bytes++ >> place.shift) & mask));
    }
  }
}

}  // namespace

void Run(const Args &args) {
  for (size_t row = 0; row < args.m; ++row) {
    const auto n = static_cast<uint64_t>(args.tokens[row]);
    const Output out = {args.y + row * args.y_stride, args.multiplier[n], args.shift};
    if (args.layout == Layout::kC4) {
      GroupedRow(out, args, n);
    } else {
      ChannelRow(out, args, n);
    }
  }
}

}  // namespace acorn::embed
