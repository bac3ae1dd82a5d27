// Float operators with gradients that LibTorch lacks, or does on one thread: linear layers with a low-rank addition, rotation,
// causal attention, the scan of a state-space layer. Work is cut by heads or tokens, never by threads, so results do not depend
// on their number. All tensors are float and contiguous unless said otherwise; t is the tokens of one window.
#pragma once

#include <torch/torch.h>

#include <cstdint>

namespace acorn::compiler {

/// x [t, k] times (weight + scale * b a)^T + bias: [t, n].  weight: [n, k], rows may be strided, gets no gradient; bias: [n] or
/// undefined, gets none; a: [rank, k], b: [n, rank], rows may be strided, or both undefined, where x gets no gradient either.
torch::Tensor LowRankLinear(const torch::Tensor &x, const torch::Tensor &weight, const torch::Tensor &bias, const torch::Tensor &a,
                            const torch::Tensor &b, double scale);

/// Cosine and sine of each pair of a KV head at each position: [positions, kv_heads, pairs]. Pairs lie as LayerOrder has them
/// (blocked), or in the two halves of the rotated dims.
struct Rotary {
  torch::Tensor cos, sin;
  bool blocked = false;
};
/// Turns x [t, heads, dim] by its positions 0 to t - 1. Of blocked pairs dim holds a prefix; dims of no pair stay.
torch::Tensor Rotate(const torch::Tensor &x, const Rotary &rotary);

/// Each query sees the keys up to its own position, `window` of them at most unless 0.  q: [t, heads, dim], k: [t, kv_heads, dim],
/// v: [t, kv_heads, value_dim]; result: [t, heads, value_dim].
torch::Tensor CausalAttention(const torch::Tensor &q, const torch::Tensor &k, const torch::Tensor &v, double scale, int64_t window);

/// StateSpaceScan() of graph/float_model.h with gradients by x, dt, b and c.  x: [t, heads, channels], dt: [t, heads], b, c:
/// [t, groups, state], decay, skip: [heads], get none; result: as x. Computed as sums over earlier tokens (Dao and Gu, 2024, arXiv
/// 2405.21060, section 3.2): y_t = skip x_t + sum over s <= t of exp(decay (dt_(s+1) + ... + dt_t)) (c_t b_s) dt_s x_s.
torch::Tensor Scan(const torch::Tensor &x, const torch::Tensor &dt, const torch::Tensor &b, const torch::Tensor &c,
                   const torch::Tensor &decay, const torch::Tensor &skip);

}  // namespace acorn::compiler
