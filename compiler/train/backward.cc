#include "train/backward.h"

#include <ATen/Parallel.h>

#include <Eigen/Core>
#include <algorithm>
#include <cmath>

#include "base/matrix.h"
#include "passes/hadamard.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kTaskRows = 16;
constexpr int64_t kTaskColumns = 64;    // of a linear layer's outputs: sums over rows stay in registers and L1
constexpr int64_t kQueryRows = 64;      // of a block of attention

int64_t Tasks(int64_t count, int64_t size) { return (count + size - 1) / size; }

template <typename Body>  // body(task, first, last)
void ForTasks(int64_t count, int64_t size, const Body &body) {
  at::parallel_for(0, Tasks(count, size), 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) body(task, task * size, std::min(count, (task + 1) * size));
  });
}

/// out = scale * (q - zero_point) over a row.
void ReadRow(const EdgeRows &edge, int64_t row, int64_t width, float *out) {
  const float scale = edge.scale, zero = edge.zero_point;
  if (edge.bytes) {
    const int8_t *from = static_cast<const int8_t *>(edge.data) + row * static_cast<int64_t>(edge.stride);
    for (int64_t i = 0; i < width; ++i) out[i] = scale * (static_cast<float>(from[i]) - zero);
  } else {
    const int16_t *from = static_cast<const int16_t *>(edge.data) + row * static_cast<int64_t>(edge.stride);
    for (int64_t i = 0; i < width; ++i) out[i] = scale * (static_cast<float>(from[i]) - zero);
  }
}

/// Straight-through over a row: g becomes what passes; sums are added up. v: real before rounding, y: real after.
void PassRow(const float *v, const float *y, int64_t width, float inverse_scale, float zero, float limit, float *g,
             EdgeSums *sums) {
  float log_scale = 0, outside = 0;
  for (int64_t i = 0; i < width; ++i) {
    const bool inside = std::abs(v[i] * inverse_scale + zero) <= limit + 0.5f;
    const float passed = inside ? g[i] : 0.0f;
    log_scale += g[i] * y[i] - passed * v[i];
    outside += g[i] - passed;
    g[i] = passed;
  }
  sums->log_scale += static_cast<double>(log_scale);
  sums->zero_point -= static_cast<double>(outside) / static_cast<double>(inverse_scale);
}

EdgeSums Total(const std::vector<EdgeSums> &parts) {
  EdgeSums total;
  for (const EdgeSums &part : parts) {
    total.log_scale += part.log_scale;
    total.zero_point += part.zero_point;
  }
  return total;
}

}  // namespace

EdgeSums NormBackward(const NormShape &shape, const EdgeRows &x, const EdgeRows &y, const float *gain, const float *bias,
                      const float *gradient, float *dx, float *gain_gradient, float *bias_gradient) {
  const int64_t width = shape.width, whole = shape.groups * width, tasks = Tasks(shape.rows, kTaskRows);
  std::vector<EdgeSums> sums(static_cast<size_t>(tasks));
  std::vector<float> gains(static_cast<size_t>(tasks * shape.gains), 0.0f), biases(gains.size(), 0.0f);
  const float inverse = 1 / y.scale;
  ForTasks(shape.rows, kTaskRows, [&](int64_t task, int64_t begin, int64_t end) {
    std::vector<float> input(static_cast<size_t>(whole)), output(input.size()), value(static_cast<size_t>(width)), g(value.size());
    for (int64_t row = begin; row < end; ++row) {
      ReadRow(x, row, whole, input.data());
      ReadRow(y, row, whole, output.data());
      for (int64_t group = 0; group < shape.groups; ++group) {
        const int64_t first = shape.gains == width ? 0 : group * width;  // of the group's gains
        const float *own_gain = gain + first, *own_bias = bias == nullptr ? nullptr : bias + first;
        float *gain_sum = gains.data() + task * shape.gains + first, *bias_sum = biases.data() + task * shape.gains + first;
        float *n = input.data() + group * width;
        const float *from = gradient + row * whole + group * width;
        if (shape.centred) {
          float mean = 0;
          for (int64_t i = 0; i < width; ++i) mean += n[i];
          mean /= static_cast<float>(width);
          for (int64_t i = 0; i < width; ++i) n[i] -= mean;
        }
        float energy = 0;
        for (int64_t i = 0; i < width; ++i) energy += n[i] * n[i];
        const float r = 1 / std::sqrt(energy / static_cast<float>(width) + static_cast<float>(shape.eps));
        for (int64_t i = 0; i < width; ++i) {
          n[i] *= r;
          value[static_cast<size_t>(i)] = n[i] * own_gain[i] + (own_bias == nullptr ? 0.0f : own_bias[i]);
          g[static_cast<size_t>(i)] = from[i];
        }
        PassRow(value.data(), output.data() + group * width, width, inverse, y.zero_point, y.limit, g.data(),
                &sums[static_cast<size_t>(task)]);
        float dot = 0, mean = 0;
        for (int64_t i = 0; i < width; ++i) {
          bias_sum[i] += g[static_cast<size_t>(i)];
          gain_sum[i] += g[static_cast<size_t>(i)] * n[i];
          g[static_cast<size_t>(i)] *= own_gain[i];
          dot += g[static_cast<size_t>(i)] * n[i];
          mean += g[static_cast<size_t>(i)];
        }
        dot /= static_cast<float>(width);
        mean = shape.centred ? mean / static_cast<float>(width) : 0.0f;
        float *to = dx + row * whole + group * width;
        for (int64_t i = 0; i < width; ++i) to[i] = r * (g[static_cast<size_t>(i)] - mean - n[i] * dot);
      }
    }
  });
  for (int64_t task = 0; task < tasks; ++task) {
    for (int64_t i = 0; i < shape.gains; ++i) {
      gain_gradient[i] += gains[static_cast<size_t>(task * shape.gains + i)];
      bias_gradient[i] += biases[static_cast<size_t>(task * shape.gains + i)];
    }
  }
  return Total(sums);
}

void LinearBackward(const LinearShape &shape, const int16_t *y16, const int32_t *y32, size_t y_stride, const float *out_scale,
                    const float *bias, const float *row_scale, const float *gradient, float *scaled, float *rows_gradient,
                    float *bias_gradient) {
  ForTasks(shape.n, kTaskColumns, [&](int64_t, int64_t begin, int64_t end) {
    const int64_t width = end - begin;
    float by_output[kTaskColumns] = {}, sum[kTaskColumns] = {};
    for (int64_t row = 0; row < shape.rows; ++row) {
      const float *g = gradient + row * shape.n + begin;
      float *to = scaled + row * shape.n + begin;
      const int64_t at = row * static_cast<int64_t>(y_stride) + begin;
      if (y16 != nullptr) {
        for (int64_t i = 0; i < width; ++i) by_output[i] += g[i] * static_cast<float>(y16[at + i]);
      } else {
        for (int64_t i = 0; i < width; ++i) by_output[i] += g[i] * static_cast<float>(y32[at + i]);
      }
      for (int64_t i = 0; i < width; ++i) {
        sum[i] += g[i];
        to[i] = g[i] * row_scale[begin + i];
      }
    }
    for (int64_t i = 0; i < width; ++i) {
      const float offset = bias == nullptr ? 0.0f : bias[begin + i];
      rows_gradient[begin + i] += by_output[i] * out_scale[begin + i] - sum[i] * offset;
      bias_gradient[begin + i] += sum[i];
    }
  });
}

void HeadsBackward(const HeadShape &shape, const EdgeRows &x, const float *cosine, const float *sine, const float *head_scale,
                   const float *gradient, float *dx, double *log_scale) {
  const int64_t dim = shape.dim, whole = shape.heads * dim, half = cosine == nullptr ? 0 : shape.half;
  const int64_t tasks = Tasks(shape.rows, kTaskRows);
  std::vector<EdgeSums> sums(static_cast<size_t>(tasks * shape.heads));
  ForTasks(shape.rows, kTaskRows, [&](int64_t task, int64_t begin, int64_t end) {
    std::vector<float> value(static_cast<size_t>(whole)), rounded(static_cast<size_t>(dim));
    for (int64_t row = begin; row < end; ++row) {
      ReadRow(x, row, whole, value.data());
      const float *c = cosine + row * half, *s = sine + row * half;
      for (int64_t head = 0; head < shape.heads; ++head) {
        float *v = value.data() + head * dim, *to = dx + row * whole + head * dim;
        for (int64_t i = 0; i < half; ++i) {
          const float a = v[i], b = v[i + half];
          v[i] = a * c[i] - b * s[i];
          v[i + half] = b * c[i] + a * s[i];
        }
        const float scale = head_scale[head], inverse = 1 / scale;
        for (int64_t i = 0; i < dim; ++i) {
          to[i] = gradient[row * whole + head * dim + i];
          rounded[static_cast<size_t>(i)] =
              scale * std::min(std::max(std::floor(v[i] * inverse + 0.5f), -shape.limit), shape.limit);
        }
        PassRow(v, rounded.data(), dim, inverse, 0, shape.limit, to, &sums[static_cast<size_t>(task * shape.heads + head)]);
        for (int64_t i = 0; i < half; ++i) {
          const float a = to[i], b = to[i + half];
          to[i] = a * c[i] + b * s[i];
          to[i + half] = b * c[i] - a * s[i];
        }
      }
    }
  });
  for (int64_t task = 0; task < tasks; ++task) {
    for (int64_t head = 0; head < shape.heads; ++head) {
      log_scale[head] += sums[static_cast<size_t>(task * shape.heads + head)].log_scale;
    }
  }
}

std::vector<EdgeSums> HadamardBackward(const HadamardShape &shape, const EdgeRows &x, const EdgeRows &y, const float *gradient,
                                       float *dx) {
  const int64_t width = shape.width, part = width / shape.parts, tasks = Tasks(shape.rows, kTaskRows);
  std::vector<std::vector<EdgeSums>> sums(static_cast<size_t>(shape.parts),
                                          std::vector<EdgeSums>(static_cast<size_t>(tasks)));
  ForTasks(shape.rows, kTaskRows, [&](int64_t task, int64_t begin, int64_t end) {
    std::vector<float> value(static_cast<size_t>(width)), output(value.size());
    for (int64_t row = begin; row < end; ++row) {
      float *to = dx + row * width;
      ReadRow(x, row, width, value.data());
      ReadRow(y, row, width, output.data());
      std::copy(gradient + row * width, gradient + (row + 1) * width, to);
      HadamardBlocks(value.data(), width, shape.block);
      for (int64_t p = 0; p < shape.parts; ++p) {
        PassRow(value.data() + p * part, output.data() + p * part, part, 1 / y.scale, y.zero_point, y.limit, to + p * part,
                &sums[static_cast<size_t>(p)][static_cast<size_t>(task)]);
      }
      HadamardBlocks(to, width, shape.block);
    }
  });
  std::vector<EdgeSums> totals;
  totals.reserve(sums.size());
  for (const std::vector<EdgeSums> &of_part : sums) totals.push_back(Total(of_part));
  return totals;
}

void GluBackward(int64_t rows, int64_t width, const EdgeRows &gate, const EdgeRows &up, const float *table,
                 const float *gradient, float *dgate, float *dup) {
  ForTasks(rows, kTaskRows, [&](int64_t, int64_t begin, int64_t end) {
    std::vector<float> gates(static_cast<size_t>(width)), ups(gates.size());
    for (int64_t row = begin; row < end; ++row) {
      ReadRow(gate, row, width, gates.data());
      ReadRow(up, row, width, ups.data());
      const float *g = gradient + row * width;
      float *to_gate = dgate + row * width, *to_up = dup + row * width;
      for (int64_t i = 0; i < width; ++i) {
        const float x = gates[static_cast<size_t>(i)];
        const ActivationFactor factor = FactorAt(table, x);
        to_up[i] = g[i] * x * factor.value;
        to_gate[i] = g[i] * ups[static_cast<size_t>(i)] * (factor.value + x * factor.slope);
      }
    }
  });
}

EdgeSums AttentionBackward(const AttentionShape &shape, const AttentionInputs &in, float *dq, float *dk, float *dv) {
  using Block = Eigen::Map<Matrix>;
  using ConstBlock = Eigen::Map<const Matrix>;
  const int64_t dim = shape.dim, keys = shape.prefix + shape.rows, group = shape.heads / shape.kv_heads;
  const int64_t whole = shape.heads * dim;
  // Of each query head apart; heads of one KV head are added up in order afterwards.
  std::vector<Matrix> head_dk(static_cast<size_t>(shape.heads)), head_dv(head_dk.size());
  std::vector<EdgeSums> sums(head_dk.size());
  ForTasks(shape.heads, 1, [&](int64_t, int64_t head, int64_t) {
    const ConstBlock k(in.k + head / group * keys * dim, keys, dim), v(in.v + head / group * keys * dim, keys, dim);
    Matrix &key_sum = head_dk[static_cast<size_t>(head)], &value_sum = head_dv[static_cast<size_t>(head)];
    key_sum = Matrix::Zero(keys, dim);
    value_sum = Matrix::Zero(keys, dim);
    const float unit = in.score_scale[static_cast<size_t>(head)];
    EdgeRows head_q = in.q, head_y = in.y;
    head_q.scale = unit;
    head_q.data = static_cast<const int8_t *>(in.q.data) + head * dim;
    head_y.data = static_cast<const int8_t *>(in.y.data) + head * dim;
    Matrix q, p, out, y, g, gs;
    for (int64_t first = 0; first < shape.rows; first += kQueryRows) {
      const int64_t rows = std::min(kQueryRows, shape.rows - first), seen = shape.prefix + first + rows;
      q.resize(rows, dim);
      y.resize(rows, dim);
      g.resize(rows, dim);
      for (int64_t r = 0; r < rows; ++r) {
        ReadRow(head_q, first + r, dim, q.row(r).data());
        ReadRow(head_y, first + r, dim, y.row(r).data());
        g.row(r) = Eigen::Map<const RowVector>(in.gradient + (first + r) * whole + head * dim, dim);
      }
      p.noalias() = q * k.topRows(seen).transpose();
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t visible = shape.prefix + first + r + 1;
        auto row = p.row(r).head(visible).array();
        row = (row - row.maxCoeff()).exp();
        row /= row.sum();
        p.row(r).tail(seen - visible).setZero();
      }
      out.noalias() = p * v.topRows(seen);
      PassRow(out.data(), y.data(), rows * dim, 1 / in.y.scale, in.y.zero_point, in.y.limit, g.data(),
              &sums[static_cast<size_t>(head)]);
      value_sum.topRows(seen).noalias() += p.transpose() * g;
      gs.noalias() = g * v.topRows(seen).transpose();
      for (int64_t r = 0; r < rows; ++r) gs.row(r).array() = (gs.row(r).array() - g.row(r).dot(out.row(r))) * p.row(r).array();
      key_sum.topRows(seen).noalias() += gs.transpose() * q;
      q.noalias() = unit * (gs * k.topRows(seen));
      for (int64_t r = 0; r < rows; ++r) Eigen::Map<RowVector>(dq + (first + r) * whole + head * dim, dim) = q.row(r);
    }
  });
  for (int64_t kv_head = 0; kv_head < shape.kv_heads; ++kv_head) {
    Block key_total(dk + kv_head * keys * dim, keys, dim), value_total(dv + kv_head * keys * dim, keys, dim);
    key_total.setZero();
    value_total.setZero();
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      key_total += head_dk[static_cast<size_t>(head)];
      value_total += head_dv[static_cast<size_t>(head)];
    }
  }
  return Total(sums);
}

}  // namespace acorn::compiler
