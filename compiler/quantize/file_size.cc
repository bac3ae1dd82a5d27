#include "quantize/file_size.h"

#include <algorithm>

#include "acorn_schema/file.h"
#include "acorn_schema/layout_xnnpack.h"
#include "quantize/layer_quantizer.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kPanelDepth = 1024;  // a panel of w8 is never cut below it (ChoosePanelDepth)
// Of the graph: steps, weights and digests of a layer take 1.8 KiB (SmolLM2) and two requantisations 0.3 more, the rest a few
// hundred bytes and the provenance.
constexpr uint64_t kGraphBytesOfLayer = 2304;
constexpr uint64_t kTransformBytes = 384;  // of a layer, for what stands before a cache of 4 bits
constexpr uint64_t kGraphBytes = 8192;
constexpr uint64_t kPrefixRows = 2;
constexpr uint64_t kGluTable = 514;

uint64_t AlignUp(uint64_t value, uint64_t alignment) { return (value + alignment - 1) / alignment * alignment; }

/// Constants that a layer's operators refer to, each aligned (write/file_graph.cc).
uint64_t LayerConstants(const ModelConfig &config, uint64_t ffn) {
  const auto hidden = static_cast<uint64_t>(config.hidden), dim = static_cast<uint64_t>(config.head_dim);
  const auto heads = static_cast<uint64_t>(config.heads), kv_heads = static_cast<uint64_t>(config.kv_heads);
  // Gains, s16; a LayerNorm has biases of s32 too.
  const uint64_t norms = 2 * (config.norm == NormKind::kLayer ? 6 : 2) * hidden + (config.qk_norm ? 2 * 2 * dim : 0);
  const uint64_t channels = (heads + 2 * kv_heads) * dim + 2 * hidden + 2 * ffn;  // each with a bias and a multiplier
  const uint64_t factors = 4 * (3 * heads + 2 * kv_heads);
  const uint64_t prefix = 2 * kPrefixRows * kv_heads * dim;
  constexpr uint64_t kRefs = 24;  // arrays of a layer, at most
  return norms + 8 * channels + factors + prefix + 2 * kGluTable + kRefs * kRefAlignment;
}

}  // namespace

uint64_t WeightBytes(WeightFormat format, const ChannelLayouts &layouts, int64_t n, int64_t k) {
  const auto rows = static_cast<uint64_t>(n), depth = static_cast<uint64_t>(k);
  if (GroupSize(format) != 0) return AlignUp(c4::PackedBytes(format, rows, depth), kRefAlignment);
  const Layout layout = format == WeightFormat::kW8 ? layouts.w8 : layouts.w4;
  const bool cut = format == WeightFormat::kW8 && k > kPanelDepth;
  return AlignUp(XnnPackedBytes({format, layout, rows, depth, cut ? uint64_t{kPanelDepth} : depth}), kRefAlignment);
}

uint64_t FileBytes(const ModelConfig &config, const FfnShape &ffn, const RecipeOptions &options, uint64_t tokenizer_bytes) {
  const int64_t q_width = config.heads * config.head_dim, kv_width = config.kv_heads * config.head_dim;
  const auto bytes = [&](WeightFormat format, int64_t n, int64_t k) {
    return WeightBytes(format, options.channel_layouts, n, k);
  };
  const auto vocab = static_cast<uint64_t>(config.vocab), layers = static_cast<uint64_t>(config.layers);
  const uint64_t graph = kGraphBytes + layers * (kGraphBytesOfLayer + (options.kv_bits == 4 ? kTransformBytes : 0));
  const uint64_t constants = layers * LayerConstants(config, static_cast<uint64_t>(ffn.padded)) + 12 * vocab +
                             static_cast<uint64_t>(8 * config.hidden) + 16 * kRefAlignment;
  uint64_t end = kHeaderBytes + graph;
  const auto segment = [&](uint64_t size) { end = AlignUp(end, kSegmentAlignment) + size; };
  const uint64_t head = bytes(FormatForDepth(options.head_format, config.hidden), config.vocab, config.hidden);
  segment(constants);
  if (!config.tied_head) segment(head);  // the embedding
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const LayerFormats formats = FormatsOf(options, config, ffn.padded, layer);
    segment(bytes(formats.qkv, q_width + 2 * kv_width, config.hidden) + bytes(formats.o, config.hidden, q_width) +
            bytes(formats.gate_up, 2 * ffn.padded, config.hidden) + bytes(formats.down, config.hidden, ffn.padded));
  }
  segment(head);
  if (tokenizer_bytes != 0) segment(tokenizer_bytes);
  return end;
}

}  // namespace acorn::compiler
