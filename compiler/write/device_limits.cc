#include "write/device_limits.h"

#include <algorithm>

#include "base/error.h"
#include "model/graph.h"

namespace acorn::compiler {

void CheckDeviceLimits(const ModelConfig &config, const std::string &path) {
  const auto check = [&](const char *what, int64_t value, int64_t least, int64_t most) {
    if (value >= least && value <= most) return;
    throw Error(ExitCode::kBadModel, path + ": " + what + " " + std::to_string(value) + " has no place in a model file (" +
                                         std::to_string(least) + " to " + std::to_string(most) + ")");
  };
  check("vocabulary size", config.vocab, 1, kMaxWidth);
  if (config.ffn != 0) check("twice the FFN size,", 2 * config.ffn, 1, kMaxWidth);
  if (config.HasAttention()) {
    check("head size", config.head_dim, 2, kMaxHeadDim);
    check("number of KV heads", config.kv_heads, 1, kMaxWidth / kMaxHeadDim);
    check("width of q, k and v together", (config.heads + 2 * config.kv_heads) * config.head_dim, 1, kMaxWidth);
  }
  if (config.HasStateSpace()) {
    const StateSpaceConfig &ssm = config.ssm;
    check("width of the convolution", ssm.conv_width, kMinTaps, kMaxTaps);
    check("state size", ssm.state, 1, kMaxStateColumns);
    check("size of a layer's state", ssm.inner() * ssm.state, 1, static_cast<int64_t>(kMaxStateElems));
    check("width of a state-space layer's inputs together", ssm.inner() + ssm.conv_channels() + ssm.heads, 1, kMaxWidth);
  }
  if (config.experts != 0) {
    check("number of experts", config.experts, 1, kMaxExperts);
    check("number of experts of a token", config.experts_per_token, 1, kMaxTopK);
    if (config.shared_ffn != 0) check("twice the FFN size of the shared expert,", 2 * config.shared_ffn, 1, kMaxWidth);
  }
}

int64_t LongestContext(const ModelConfig &config) {
  return std::min<int64_t>(config.max_context, (config.HasAttention() ? kMaxRows : kMaxTokensWithoutCache) - kMaxPrefixRows);
}

}  // namespace acorn::compiler
