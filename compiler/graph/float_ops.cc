// The operators of the float reference. Work is cut into tasks whose size depends on the shapes alone, so that results
// do not depend on the number of threads.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/parallel.h"
#include "graph/float_model.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kRowBlock = 256;       // rows of a task of a linear layer or an element-wise operator
constexpr int64_t kColumnBlock = 2048;   // outputs of a task of a linear layer
constexpr int64_t kExpertColumns = 256;  // the same in an expert
constexpr int64_t kAttentionRows = 128;  // queries of one block of scores: at most half of it is masked in vain

int64_t Blocks(int64_t count, int64_t block) { return (count + block - 1) / block; }

template <typename Body>  // body(first_row, rows)
void ForRowBlocks(int64_t rows, const Body &body) {
  ParallelFor(Blocks(rows, kRowBlock), [&](int64_t task) {
    const int64_t first = task * kRowBlock;
    body(first, std::min(kRowBlock, rows - first));
  });
}

// out = x * w^T + bias, in tasks of `column_block` outputs.
void Multiply(MatrixRef out, ConstMatrixRef x, const Matrix &weight, const RowVector &bias, int64_t column_block) {
  const int64_t column_blocks = Blocks(weight.rows(), column_block);
  ParallelFor(Blocks(x.rows(), kRowBlock) * column_blocks, [&](int64_t task) {
    const int64_t row = task / column_blocks * kRowBlock;
    const int64_t column = task % column_blocks * column_block;
    const int64_t rows = std::min(kRowBlock, x.rows() - row);
    const int64_t columns = std::min(column_block, weight.rows() - column);
    auto block = out.block(row, column, rows, columns);
    block.noalias() = x.middleRows(row, rows) * weight.middleRows(column, columns).transpose();
    if (bias.size() > 0) block.rowwise() += bias.segment(column, columns);
  });
}

// Scores of a block of queries against the first k.rows() keys, masked and normalised in place.
// Query row r stands at position first_query + r; the first `prefix` keys are seen by all.
void MaskedSoftmax(Matrix *scores, int64_t first_query, int64_t prefix, int64_t sliding_window) {
  for (int64_t r = 0; r < scores->rows(); ++r) {
    const int64_t position = first_query + r;
    auto row = scores->row(r).array();
    int64_t hidden_end = prefix;  // keys [prefix, hidden_end) are too old
    if (sliding_window > 0) hidden_end = std::max(prefix, position + 1 - sliding_window);
    const int64_t seen_end = position + 1;
    float max = row.segment(hidden_end, seen_end - hidden_end).maxCoeff();
    if (prefix > 0) max = std::max(max, row.head(prefix).maxCoeff());
    row.head(seen_end) = (row.head(seen_end) - max).exp();
    row.segment(prefix, hidden_end - prefix).setZero();
    row.tail(row.size() - seen_end).setZero();
    row.head(seen_end) *= 1.0f / row.head(seen_end).sum();
  }
}

// All query heads that share one KV head, over one window.
void AttendKvHead(MatrixRef out, const ModelConfig &config, ConstMatrixRef q, ConstMatrixRef sink_q, ConstMatrixRef k,
                  ConstMatrixRef v, const LayerPrefix *prefix, int64_t window, int64_t kv_head) {
  const int64_t dim = config.head_dim;
  const int64_t group = config.heads / config.kv_heads;
  const int64_t tokens = q.rows();
  const int64_t prefix_rows = prefix == nullptr ? 0 : prefix->k.rows();
  const double usual_scale = 1.0 / std::sqrt(static_cast<double>(dim));
  const float scale = static_cast<float>(config.attention_scale != 0 ? config.attention_scale : usual_scale);
  Matrix keys(prefix_rows + tokens, dim);
  Matrix values(prefix_rows + tokens, dim);
  if (prefix_rows > 0) {
    keys.topRows(prefix_rows) = prefix->k.middleCols(kv_head * dim, dim);
    values.topRows(prefix_rows) = prefix->v.middleCols(kv_head * dim, dim);
  }
  keys.bottomRows(tokens) = k.middleCols(kv_head * dim, dim);
  values.bottomRows(tokens) = v.middleCols(kv_head * dim, dim);
  Matrix scores;
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    for (int64_t first = 0; first < tokens; first += kAttentionRows) {
      const int64_t rows = std::min(kAttentionRows, tokens - first);
      const int64_t seen = prefix_rows + first + rows;
      scores.resize(rows, seen);
      scores.noalias() = scale * q.block(first, head * dim, rows, dim) * keys.topRows(seen).transpose();
      if (prefix_rows > 0 && sink_q.data() != q.data()) {
        scores.leftCols(prefix_rows).noalias() =
            scale * sink_q.block(first, head * dim, rows, dim) * keys.topRows(prefix_rows).transpose();
      }
      MaskedSoftmax(&scores, prefix_rows + first, prefix_rows, window);
      out.block(first, head * dim, rows, dim).noalias() = scores * values.topRows(seen);
    }
  }
}

}  // namespace

std::vector<double> RopeFrequencies(const ModelConfig &config) {
  const int64_t pairs = config.rotary_dims / 2;
  const RopeConfig &rope = config.rope;
  const double two_pi = 2.0 * std::acos(-1.0);
  std::vector<double> frequencies(static_cast<size_t>(pairs));
  for (int64_t i = 0; i < pairs; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(config.rotary_dims);
    double frequency = std::pow(rope.theta, exponent);
    switch (rope.kind) {
      case RopeKind::kDefault:
        break;
      case RopeKind::kLinear:
        frequency /= rope.factor;
        break;
      case RopeKind::kDivisors:
        frequency /= rope.divisors[static_cast<size_t>(i)];
        break;
      case RopeKind::kLlama3: {
        // Turns over the original context: few are slowed down by the factor, many are kept, a ramp between.
        const double turns = static_cast<double>(rope.original_context) * frequency / two_pi;
        const double ramp = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
        const double kept = std::clamp(ramp, 0.0, 1.0);
        frequency = (1.0 - kept) * frequency / rope.factor + kept * frequency;
        break;
      }
    }
    frequencies[static_cast<size_t>(i)] = frequency;
  }
  return frequencies;
}

RopeTable MakeRopeTable(const ModelConfig &config, int64_t positions) {
  const std::vector<double> frequencies = RopeFrequencies(config);
  RopeTable table;
  table.cos.resize(positions, config.rotary_dims / 2);
  table.sin.resize(positions, config.rotary_dims / 2);
  for (int64_t p = 0; p < positions; ++p) {
    for (int64_t i = 0; i < config.rotary_dims / 2; ++i) {
      const double angle = static_cast<double>(p) * frequencies[static_cast<size_t>(i)];
      table.cos(p, i) = static_cast<float>(std::cos(angle));
      table.sin(p, i) = static_cast<float>(std::sin(angle));
    }
  }
  return table;
}

void RmsNorm(MatrixRef out, ConstMatrixRef x, const RowVector &weight, double eps) {
  const int64_t width = weight.size();
  ForRowBlocks(x.rows(), [&](int64_t first, int64_t rows) {
    for (int64_t t = first; t < first + rows; ++t) {
      for (int64_t column = 0; column < x.cols(); column += width) {
        const auto values = x.row(t).segment(column, width);
        const double mean = values.cast<double>().squaredNorm() / static_cast<double>(width);
        const float inverse = static_cast<float>(1.0 / std::sqrt(mean + eps));
        out.row(t).segment(column, width) = (values.array() * inverse * weight.array()).matrix();
      }
    }
  });
}

void LayerNorm(MatrixRef out, ConstMatrixRef x, const RowVector &weight, const RowVector &bias, double eps) {
  ForRowBlocks(x.rows(), [&](int64_t first, int64_t rows) {
    for (int64_t t = first; t < first + rows; ++t) {
      const auto values = x.row(t).cast<double>().array();
      const double mean = values.mean();
      const double variance = (values - mean).square().mean();
      const auto normed = ((values - mean) / std::sqrt(variance + eps)).cast<float>();
      out.row(t) = (normed * weight.array() + bias.array()).matrix();
    }
  });
}

void NormRows(MatrixRef out, ConstMatrixRef x, const ModelConfig &config, const RowVector &weight, const RowVector &bias) {
  switch (config.norm) {
    case NormKind::kRms:
      return RmsNorm(out, x, weight, config.rms_eps);
    case NormKind::kLayer:
      return LayerNorm(out, x, weight, bias, config.rms_eps);
  }
}

namespace {

// Heads that hold their pairs in blocks, each pair of a frequency of its own.
void ApplySortedRope(MatrixRef x, const ModelConfig &config, const RopeTable &table, int64_t first_position,
                     const std::vector<uint8_t> &pairs, int64_t limit) {
  const int64_t dim = config.head_dim, heads_per_kv = x.cols() / dim / config.kv_heads;
  const int64_t block = LayerOrder::kPairBlock;
  ForRowBlocks(x.rows(), [&](int64_t first, int64_t rows) {
    for (int64_t t = first; t < first + rows; ++t) {
      const int64_t position = std::min(first_position + t, limit);
      for (int64_t column = 0; column < x.cols(); column += dim) {
        const uint8_t *frequencies = pairs.data() + column / dim / heads_per_kv * dim / 2;
        for (int64_t pair = 0; pair < dim / 2; ++pair) {
          if (frequencies[pair] == LayerOrder::kNotRotated) continue;
          const float cos = table.cos(position, frequencies[pair]);
          const float sin = table.sin(position, frequencies[pair]);
          const int64_t member = column + pair / block * 2 * block + pair % block;
          const float a = x(t, member), b = x(t, member + block);
          x(t, member) = a * cos - b * sin;
          x(t, member + block) = b * cos + a * sin;
        }
      }
    }
  });
}

}  // namespace

void ApplyRope(MatrixRef x, const ModelConfig &config, const RopeTable &table, int64_t first_position,
               const std::vector<uint8_t> &order, int64_t limit) {
  if (!order.empty()) return ApplySortedRope(x, config, table, first_position, order, limit);
  const int64_t pairs = config.rotary_dims / 2;
  ForRowBlocks(x.rows(), [&](int64_t first, int64_t rows) {
    Eigen::Array<float, 1, Eigen::Dynamic> low(pairs);
    for (int64_t t = first; t < first + rows; ++t) {
      const int64_t position = std::min(first_position + t, limit);
      const auto cos = table.cos.row(position).array();
      const auto sin = table.sin.row(position).array();
      for (int64_t column = 0; column < x.cols(); column += config.head_dim) {
        auto a = x.row(t).segment(column, pairs).array();
        auto b = x.row(t).segment(column + pairs, pairs).array();
        low = a * cos - b * sin;
        b = b * cos + a * sin;
        a = low;
      }
    }
  });
}

void Attention(MatrixRef out, const ModelConfig &config, ConstMatrixRef q, ConstMatrixRef sink_q, ConstMatrixRef k, ConstMatrixRef v,
               const LayerPrefix *prefix, int64_t window) {
  ParallelFor(config.kv_heads, [&](int64_t kv_head) { AttendKvHead(out, config, q, sink_q, k, v, prefix, window, kv_head); });
}

void ApplyActivation(MatrixRef x, ActivationKind kind) {
  const float root_two_over_pi = static_cast<float>(std::sqrt(2.0 / std::acos(-1.0)));
  const float root_half = static_cast<float>(std::sqrt(0.5));
  ForRowBlocks(x.rows(), [&](int64_t first, int64_t rows) {
    for (int64_t t = first; t < first + rows; ++t) {
      auto row = x.row(t).array();
      switch (kind) {
        case ActivationKind::kSilu:
          row = row / (1.0f + (-row).exp());
          break;
        case ActivationKind::kGeluTanh:
          row = 0.5f * row * (1.0f + (root_two_over_pi * (row + 0.044715f * row.cube())).tanh());
          break;
        case ActivationKind::kGelu:
          for (int64_t i = 0; i < row.size(); ++i) row(i) = 0.5f * row(i) * (1.0f + std::erf(row(i) * root_half));
          break;
      }
    }
  });
}

void Linear(MatrixRef out, ConstMatrixRef x, const Matrix &weight, const RowVector &bias) {
  Multiply(out, x, weight, bias, kColumnBlock);
}

void ExpertLinear(MatrixRef out, ConstMatrixRef x, const Matrix &weight) { Multiply(out, x, weight, {}, kExpertColumns); }

Routing Route(const ModelConfig &config, ConstMatrixRef logits) {
  const auto used = static_cast<size_t>(config.experts_per_token);
  Routing routing;
  routing.experts.reserve(static_cast<size_t>(logits.rows()) * used);
  routing.weights.reserve(static_cast<size_t>(logits.rows()) * used);
  std::vector<int32_t> order(static_cast<size_t>(config.experts));
  for (int64_t t = 0; t < logits.rows(); ++t) {
    const auto row = logits.row(t).cast<double>().eval();
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + config.experts_per_token, order.end(),
                      [&](int32_t a, int32_t b) { return row(a) > row(b) || (row(a) == row(b) && a < b); });
    const bool is_softmax = config.router_score == RouterScore::kSoftmax;
    const double largest = row(order.front());
    const auto score = [&](double logit) { return is_softmax ? std::exp(logit - largest) : 1 / (1 + std::exp(-logit)); };
    double whole = 1;
    if (config.normalised_experts) {
      whole = 0;
      for (size_t i = 0; i < used; ++i) whole += score(row(order[i]));
    } else if (is_softmax) {
      whole = (row.array() - largest).exp().sum();
    }
    for (size_t i = 0; i < used; ++i) {
      routing.experts.push_back(order[i]);
      routing.weights.push_back(static_cast<float>(score(row(order[i])) / whole));
    }
  }
  return routing;
}

}  // namespace acorn::compiler
