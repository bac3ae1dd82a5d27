#include "passes/profiles.h"

#include <cassert>
#include <cmath>
#include <memory>
#include <tuple>

namespace acorn::compiler {
namespace {

void DropRows(Matrix *m, int64_t first, int64_t count) { m->middleRows(first, count).setZero(); }
void DropColumns(Matrix *m, int64_t first, int64_t count) { m->middleCols(first, count).setZero(); }

void DropSegment(RowVector *v, int64_t first, int64_t count) {
  if (v->size() != 0) v->segment(first, count).setZero();
}

/// Rows of each head behind the first `kept`. bias: may be null.
void DropOfHeads(Matrix *rows, RowVector *bias, int64_t head_dim, int64_t kept) {
  for (int64_t first = kept; first < rows->rows(); first += head_dim) {
    DropRows(rows, first, head_dim - kept);
    if (bias != nullptr) DropSegment(bias, first, head_dim - kept);
  }
}

/// Columns of each head behind the first `kept`.
void DropColumnsOfHeads(Matrix *rows, int64_t head_dim, int64_t kept) {
  for (int64_t first = kept; first < rows->cols(); first += head_dim) DropColumns(rows, first, head_dim - kept);
}

void DropChannels(Matrix *gate, Matrix *up, Matrix *down, int64_t kept) {
  assert(kept <= gate->rows());
  DropRows(gate, kept, gate->rows() - kept);
  DropRows(up, kept, up->rows() - kept);
  DropColumns(down, kept, down->cols() - kept);
}

void DropOfAttention(const ModelConfig &config, const LayerWidths &widths, LayerWeights *weights) {
  LayerWeights &w = *weights;
  assert(widths.qk == config.head_dim || !w.order.pairs.empty());
  assert(widths.v == config.head_dim || w.order.rank_major);
  DropOfHeads(&w.q, &w.q_bias, config.head_dim, widths.qk);
  DropOfHeads(&w.k, &w.k_bias, config.head_dim, widths.qk);
  DropOfHeads(&w.v, &w.v_bias, config.head_dim, widths.v);
  DropColumns(&w.o, widths.v * config.heads, (config.head_dim - widths.v) * config.heads);
}

void DropOfStateSpace(const StateSpaceConfig &config, const LayerWidths &widths, LayerWeights *weights) {
  StateSpaceWeights *w = &weights->ssm;
  const auto drop_inputs = [&](int64_t first, int64_t count) {
    DropRows(&w->conv_in, first, count);
    DropRows(&w->conv, first, count);
    DropSegment(&w->conv_bias, first, count);
  };
  for (int64_t group = 0; group < 2 * config.groups; ++group) {  // of B, then of C
    drop_inputs(config.inner() + group * config.state + widths.state, config.state - widths.state);
  }
  if (widths.channels == config.head_dim) return;
  assert(weights->order.channel_major && config.groups == 1);
  const int64_t kept = widths.channels * config.heads, dropped = config.inner() - kept;
  drop_inputs(kept, dropped);
  DropRows(&w->gate, kept, dropped);
  DropSegment(&w->norm, kept, dropped);
  DropColumns(&w->out, kept, dropped);
  // 1 / sqrt(squares / kept + eps) = sqrt(kept / inner) / sqrt(squares / inner + eps * kept / inner)
  const double part = static_cast<double>(kept) / static_cast<double>(config.inner());
  w->norm *= static_cast<float>(std::sqrt(part));
  w->norm_eps_factor *= part;
}

void DropOfStates(const StateSpaceConfig &config, const LayerWidths &widths, LayerPrefix *prefix) {
  const int64_t kept = widths.channels * config.heads;
  DropColumns(&prefix->conv, kept, config.inner() - kept);
  for (int64_t group = 0; group < 2 * config.groups; ++group) {  // of B, then of C
    DropColumns(&prefix->conv, config.inner() + group * config.state + widths.state, config.state - widths.state);
  }
  DropOfHeads(&prefix->state, nullptr, config.head_dim, widths.channels);
  DropColumns(&prefix->state, widths.state, config.state - widths.state);
}

}  // namespace

bool LayerWidths::operator==(const LayerWidths &other) const {
  return std::tie(ffn, qk, v, state, channels) == std::tie(other.ffn, other.qk, other.v, other.state, other.channels);
}

LayerWidths WholeWidths(const ModelConfig &config, int64_t layer) {
  LayerWidths widths;
  if (config.HasFfn(layer)) widths.ffn = config.IsSparse(layer) ? config.expert_ffn : config.ffn;
  if (config.IsStateSpace(layer)) {
    widths.state = config.ssm.state;
    widths.channels = config.ssm.head_dim;
  } else {
    widths.qk = widths.v = config.head_dim;
  }
  return widths;
}

int64_t KeptElems(const ModelConfig &config, int64_t layer, const LayerWidths &widths) {
  int64_t elems = 3 * config.hidden * widths.ffn * (config.IsSparse(layer) ? config.experts : 1);
  elems += (config.heads + config.kv_heads) * config.hidden * (widths.qk + widths.v);
  if (config.IsStateSpace(layer)) {
    const int64_t inner = config.ssm.heads * widths.channels, states = 2 * config.ssm.groups * widths.state;
    elems += 3 * config.hidden * inner + config.hidden * states + config.ssm.conv_width * (inner + states);
  }
  return elems;
}

void DropBeyond(const ModelConfig &config, const LayerWidths &widths, LayerWeights *weights) {
  LayerWeights &w = *weights;
  if (w.ssm.out.size() != 0) {
    DropOfStateSpace(config.ssm, widths, &w);
  } else {
    DropOfAttention(config, widths, &w);
  }
  if (w.experts) {
    w.experts = [whole = std::move(w.experts), kept = widths.ffn](int64_t expert) {
      auto narrow = std::make_shared<ExpertWeights>(*whole(expert));
      DropChannels(&narrow->gate, &narrow->up, &narrow->down, kept);
      return narrow;
    };
  } else if (w.down.size() != 0) {
    DropChannels(&w.gate, &w.up, &w.down, widths.ffn);
    DropSegment(&w.gate_bias, widths.ffn, w.gate_bias.size() - widths.ffn);
    DropSegment(&w.up_bias, widths.ffn, w.up_bias.size() - widths.ffn);
  }
}

void DropBeyond(const ModelConfig &config, const LayerWidths &widths, LayerPrefix *prefix) {
  if (prefix->state.size() != 0) return DropOfStates(config.ssm, widths, prefix);
  DropColumnsOfHeads(&prefix->k, config.head_dim, widths.qk);
  DropColumnsOfHeads(&prefix->v, config.head_dim, widths.v);
}

}  // namespace acorn::compiler
