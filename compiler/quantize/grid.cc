#include "quantize/grid.h"

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/parallel.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kRowsPerTask = 32;
constexpr int64_t kBlock = 128;  // columns that GPTQ rounds before it updates the rest
/// Room above the largest group's step for steps chosen from updated weights.
constexpr double kStepHeadroom = 1.1;

/// Weights are spacing * code + offset for the whole codes in [low, high].
struct Grid {
  float low;
  float high;
  float spacing;
  float inverse_spacing;
  float offset;
  float min_divisor;  // candidates for a step are the largest magnitude over a divisor in this range
  float max_divisor;
  int candidates;

  float LargestWeight() const { return spacing * high + offset; }
  /// With a step of 0 every weight stands for 0: the way there for a grid that lacks it.
  bool HasZero() const { return offset == 0; }
};

Grid GridOf(WeightFormat format) {
  switch (WeightBits(format)) {
    case 8:
      return {-127, 127, 1, 1, 0, 127, 200, 14};
    case 4:
      return {-8, 7, 1, 1, 0, 6.6f, 13, 24};
    default:
      // For 32 normal values the best step is the largest over 4.2; GPTQ's updates leave single values far outside.
      return {-2, 1, 2, 0.5f, 1, 2.2f, 10, 32};
  }
}

/// Rounds to nearest even: exact for |x| < 2^22, and vectorised everywhere.
inline float RoundFloat(float x) { return (x + 12582912.0f) - 12582912.0f; }

inline float ToGrid(float w, float inverse_step, const Grid &grid) {
  const float code = (w * inverse_step - grid.offset) * grid.inverse_spacing;
  return RoundFloat(std::min(std::max(code, grid.low), grid.high)) * grid.spacing + grid.offset;
}

/// 1 / step, and 0 for a step of 0: any weight of the grid will do.
inline float InverseOf(float step) { return step == 0 ? 0 : 1 / step; }

/// Sum of h * (w - step * q)^2 in a fixed order of sixteen lanes.
float GridError(const float *w, const float *h, int64_t count, float step, const Grid &grid) {
  float lanes[16] = {};
  const float inverse = 1 / step;
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    for (int lane = 0; lane < 16; ++lane) {
      const float d = w[i + lane] - step * ToGrid(w[i + lane], inverse, grid);
      lanes[lane] += h[i + lane] * d * d;
    }
  }
  for (; i < count; ++i) {
    const float d = w[i] - step * ToGrid(w[i], inverse, grid);
    lanes[i % 16] += h[i] * d * d;
  }
  return std::accumulate(lanes, lanes + 16, 0.0f);
}

float LargestMagnitude(const float *w, int64_t count) {
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(w[i]));
  return largest;
}

float MinMaxStep(const float *w, int64_t count, const Grid &grid) { return LargestMagnitude(w, count) / grid.LargestWeight(); }

/// The step of least weighted error; 0 for values that are all 0.
float BestStep(const float *w, const float *h, int64_t count, const Grid &grid) {
  const float largest = LargestMagnitude(w, count);
  if (largest == 0) return 0;
  float best = 0, best_error = INFINITY;
  const float ratio = std::pow(grid.max_divisor / grid.min_divisor, 1.0f / static_cast<float>(grid.candidates - 1));
  float divisor = grid.min_divisor;
  for (int i = 0; i < grid.candidates; ++i, divisor *= ratio) {
    const float step = largest / divisor;
    const float error = GridError(w, h, count, step, grid);
    if (error < best_error) {
      best_error = error;
      best = step;
    }
  }
  return best;
}

/// The multiplier of a group of zeros.
int32_t MultiplierOfZeros(const Grid &grid) { return grid.HasZero() ? 1 : 0; }

/// The multiplier of least weighted error for a group under a fixed channel scale.
int32_t BestMultiplier(const float *w, const float *h, int64_t count, float scale, int32_t limit, const Grid &grid) {
  const float largest = LargestMagnitude(w, count);
  if (largest == 0) return MultiplierOfZeros(grid);
  const float ratio = std::pow(grid.max_divisor / grid.min_divisor, 1.0f / static_cast<float>(grid.candidates - 1));
  int32_t best = MultiplierOfZeros(grid), previous = 0;
  float best_error = INFINITY;
  if (!grid.HasZero()) {
    best_error = 0;
    for (int64_t i = 0; i < count; ++i) best_error += h[i] * w[i] * w[i];
  }
  float divisor = grid.min_divisor;
  for (int i = 0; i < grid.candidates; ++i, divisor *= ratio) {
    const int32_t m = std::min(std::max(static_cast<int32_t>(RoundFloat(largest / divisor / scale)), 1), limit);
    if (m == previous) continue;
    previous = m;
    const float error = GridError(w, h, count, scale * static_cast<float>(m), grid);
    if (error < best_error) {
      best_error = error;
      best = m;
    }
  }
  return best;
}

/// Channel scale and, for grouped formats, the first choice of multipliers of one row.
struct RowScale {
  float scale = 0;  // 0: the row is all zero
  std::vector<float> steps;
};

RowScale ChooseRowScale(const float *w, const float *h, int64_t k, int64_t group, ScaleRule rule, int32_t limit,
                        double headroom, const Grid &grid) {
  RowScale row;
  const int64_t width = group == 0 ? k : group;
  float largest = 0;
  for (int64_t begin = 0; begin < k; begin += width) {
    const float step =
        rule == ScaleRule::kMinMax ? MinMaxStep(w + begin, width, grid) : BestStep(w + begin, h + begin, width, grid);
    row.steps.push_back(step);
    largest = std::max(largest, step);
  }
  row.scale = group == 0 ? largest : static_cast<float>(largest * headroom) / static_cast<float>(limit);
  return row;
}

QuantizedMatrix EmptyMatrix(const Matrix &w, WeightFormat format) {
  QuantizedMatrix q;
  q.format = format;
  q.n = w.rows();
  q.k = w.cols();
  const int64_t group = q.group();
  if (group != 0 && q.k % group != 0) {
    throw Error(ExitCode::kBadModel, "a weight of depth " + std::to_string(q.k) + " has no groups of " + std::to_string(group));
  }
  // Rows of zeros stay as they are here.
  const Grid grid = GridOf(format);
  q.weights.assign(static_cast<size_t>(q.n * q.k), static_cast<int8_t>(ToGrid(0, 0, grid)));
  if (group != 0) {
    q.multipliers.assign(static_cast<size_t>(q.n * (q.k / group)), static_cast<uint8_t>(MultiplierOfZeros(grid)));
  }
  q.scale.assign(static_cast<size_t>(q.n), 0.0);
  return q;
}

/// Rows of zeros have no scale of their own: they take the largest of the others, so that their factors stay ordinary.
void FillZeroScales(QuantizedMatrix *q) {
  double largest = 0;
  for (const double scale : q->scale) largest = std::max(largest, scale);
  if (largest == 0) largest = 1;
  for (double &scale : q->scale) {
    if (scale == 0) scale = largest;
  }
}

void ForRows(int64_t rows, const std::function<void(int64_t, int64_t)> &body) {
  ParallelFor((rows + kRowsPerTask - 1) / kRowsPerTask,
              [&](int64_t task) { body(task * kRowsPerTask, std::min(rows, (task + 1) * kRowsPerTask)); });
}

}  // namespace

std::string FormatName(WeightFormat format) {
  switch (format) {
    case WeightFormat::kW8:
      return "w8";
    case WeightFormat::kW4:
      return "w4";
    case WeightFormat::kW4G32:
      return "w4g32";
    case WeightFormat::kW4G64:
      return "w4g64";
    case WeightFormat::kW4G128:
      return "w4g128";
    case WeightFormat::kW2G32:
      return "w2g32";
  }
  return "?";
}

int32_t LargestMultiplier(int64_t k) {
  // A quarter of the range is left for the bias.
  const int64_t limit = (int64_t{3} << 29) / (k * 8 * 127);
  return static_cast<int32_t>(std::min<int64_t>(255, std::max<int64_t>(limit, 1)));
}

QuantizedMatrix RoundToGrid(const Matrix &w, WeightFormat format, ScaleRule rule, const RowVector &importance) {
  QuantizedMatrix q = EmptyMatrix(w, format);
  const Grid grid = GridOf(format);
  const int64_t k = q.k, group = q.group(), groups = group == 0 ? 1 : k / group;
  const int64_t width = k / groups;
  const int32_t limit = LargestMultiplier(k);
  const RowVector h = importance.size() == 0 ? RowVector(RowVector::Ones(k)) : importance;
  ForRows(q.n, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float *row = w.data() + r * k;
      const RowScale chosen = ChooseRowScale(row, h.data(), k, group, rule, limit, 1.0, grid);
      q.scale[static_cast<size_t>(r)] = chosen.scale;
      if (chosen.scale == 0) continue;
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t first = g * width;
        float step = chosen.scale;
        if (group != 0) {
          int32_t m = 1;
          if (rule == ScaleRule::kMinMax) {
            m = std::min(std::max(static_cast<int32_t>(std::ceil(chosen.steps[static_cast<size_t>(g)] / chosen.scale)), 1),
                         limit);
          } else {
            m = BestMultiplier(row + first, h.data() + first, width, chosen.scale, limit, grid);
          }
          q.multipliers[static_cast<size_t>(r * groups + g)] = static_cast<uint8_t>(m);
          step *= static_cast<float>(m);
        }
        for (int64_t i = first; i < first + width; ++i) {
          q.weights[static_cast<size_t>(r * k + i)] = static_cast<int8_t>(ToGrid(row[i], InverseOf(step), grid));
        }
      }
    }
  });
  FillZeroScales(&q);
  return q;
}

GptqFactor FactorHessian(const Matrix &hessian, int64_t group, double damping) {
  const int64_t k = hessian.rows();
  GptqFactor factor;
  // Important columns first; columns of a group stay together, important groups first.
  const int64_t width = group == 0 ? k : group;
  std::vector<int64_t> group_order(static_cast<size_t>(k / width));
  std::iota(group_order.begin(), group_order.end(), 0);
  const Eigen::VectorXf diagonal = hessian.diagonal();
  std::vector<double> mass;
  for (int64_t g = 0; g < k / width; ++g) mass.push_back(diagonal.segment(g * width, width).cast<double>().sum());
  std::stable_sort(group_order.begin(), group_order.end(),
                   [&](int64_t a, int64_t b) { return mass[static_cast<size_t>(a)] > mass[static_cast<size_t>(b)]; });
  for (const int64_t g : group_order) {
    std::vector<int64_t> columns(static_cast<size_t>(width));
    std::iota(columns.begin(), columns.end(), g * width);
    std::stable_sort(columns.begin(), columns.end(), [&](int64_t a, int64_t b) { return diagonal[a] > diagonal[b]; });
    factor.order.insert(factor.order.end(), columns.begin(), columns.end());
  }

  // H = R R^T with R upper triangular, from the lower factor of H turned upside down; then U = R^-1.
  double mean = diagonal.cast<double>().mean();
  if (!(mean > 0)) mean = 1;
  for (double extra = damping;; extra *= 10) {
    Eigen::MatrixXd turned(k, k);
    for (int64_t i = 0; i < k; ++i) {
      const int64_t row = factor.order[static_cast<size_t>(k - 1 - i)];
      for (int64_t j = 0; j < k; ++j) turned(i, j) = hessian(row, factor.order[static_cast<size_t>(k - 1 - j)]);
      turned(i, i) += extra * mean;
    }
    const Eigen::LLT<Eigen::Ref<Eigen::MatrixXd>> llt(turned);
    if (llt.info() != Eigen::Success) continue;
    Eigen::MatrixXd inverse = Eigen::MatrixXd::Identity(k, k);
    llt.matrixL().solveInPlace(inverse);
    factor.inverse.resize(k, k);
    for (int64_t i = 0; i < k; ++i) {
      for (int64_t j = 0; j < k; ++j) factor.inverse(i, j) = static_cast<float>(inverse(k - 1 - i, k - 1 - j));
    }
    return factor;
  }
}

namespace {

/// keep_grid: scales and multipliers of q are given, else they are chosen.
void RunGptq(const Matrix &w, const GptqFactor &factor, QuantizedMatrix *result, bool keep_grid) {
  QuantizedMatrix &q = *result;
  const Grid grid = GridOf(q.format);
  const int64_t k = q.k, group = q.group(), groups = group == 0 ? 0 : k / group;
  const int32_t limit = LargestMultiplier(k);
  const Matrix &u = factor.inverse;
  // A column's error costs 1 / U_jj^2 after what later columns can make up for.
  RowVector cost(k), cost_in_place(k);
  for (int64_t j = 0; j < k; ++j) {
    cost[j] = 1 / (u(j, j) * u(j, j));
    cost_in_place[factor.order[static_cast<size_t>(j)]] = cost[j];
  }
  ForRows(q.n, [&](int64_t begin, int64_t end) {
    const int64_t rows = end - begin;
    Matrix work(rows, k);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t j = 0; j < k; ++j) work(r, j) = w(begin + r, factor.order[static_cast<size_t>(j)]);
    }
    std::vector<float> scales;
    for (int64_t r = 0; r < rows; ++r) {
      const float *row = w.data() + (begin + r) * k;
      double &scale = q.scale[static_cast<size_t>(begin + r)];
      if (!keep_grid) {
        scale = ChooseRowScale(row, cost_in_place.data(), k, group, ScaleRule::kWeightedMse, limit, kStepHeadroom, grid).scale;
      }
      scales.push_back(static_cast<float>(scale));
    }
    Matrix errors(rows, kBlock);
    for (int64_t first = 0; first < k; first += kBlock) {
      const int64_t last = std::min(first + kBlock, k);
      for (int64_t r = 0; r < rows; ++r) {
        float *row = work.data() + r * k;
        int8_t *out = q.weights.data() + (begin + r) * k;
        const float scale = scales[static_cast<size_t>(r)];
        float step = scale;
        for (int64_t j = first; j < last; ++j) {
          const int64_t column = factor.order[static_cast<size_t>(j)];
          if (group != 0 && j % group == 0) {
            uint8_t &m = q.multipliers[static_cast<size_t>((begin + r) * groups + column / group)];
            if (!keep_grid) {
              m = static_cast<uint8_t>(scale == 0 ? MultiplierOfZeros(grid)
                                                  : BestMultiplier(row + j, cost.data() + j, group, scale, limit, grid));
            }
            step = scale * static_cast<float>(m);
          }
          const float value = ToGrid(row[j], InverseOf(step), grid);
          out[column] = static_cast<int8_t>(value);
          const float error = (row[j] - value * step) / u(j, j);
          errors(r, j - first) = error;
          const float *spread = u.data() + j * k;
          for (int64_t t = j + 1; t < last; ++t) row[t] -= error * spread[t];
        }
      }
      if (last < k) {
        work.rightCols(k - last).noalias() -= errors.leftCols(last - first) * u.block(first, last, last - first, k - last);
      }
    }
  });
}

}  // namespace

void SeparateAt(const std::vector<int64_t> &depths, Matrix *hessian) {
  for (const int64_t depth : depths) {
    const int64_t rest = hessian->cols() - depth;
    hessian->topRightCorner(depth, rest).setZero();
    hessian->bottomLeftCorner(rest, depth).setZero();
  }
}

QuantizedMatrix Gptq(const Matrix &w, WeightFormat format, const GptqFactor &factor) {
  QuantizedMatrix q = EmptyMatrix(w, format);
  RunGptq(w, factor, &q, false);
  FillZeroScales(&q);
  return q;
}

void GptqOnGrid(const Matrix &w, const GptqFactor &factor, QuantizedMatrix *grid) { RunGptq(w, factor, grid, true); }

void RefitScales(const Matrix &w, const Matrix &hessian, QuantizedMatrix *q) {
  const Matrix back = Dequantize(*q);
  const Matrix projected = back * hessian;  // [n, k]
  ForRows(q->n, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const double along = static_cast<double>(projected.row(r).dot(w.row(r)));
      const double energy = static_cast<double>(projected.row(r).dot(back.row(r)));
      if (energy > 0 && along > 0) q->scale[static_cast<size_t>(r)] *= along / energy;
    }
  });
}


Matrix Dequantize(const QuantizedMatrix &q) {
  Matrix w(q.n, q.k);
  const int64_t group = q.group();
  ForRows(q.n, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const auto scale = static_cast<float>(q.scale[static_cast<size_t>(r)]);
      for (int64_t i = 0; i < q.k; ++i) {
        const float step =
            group == 0 ? scale : scale * static_cast<float>(q.multipliers[static_cast<size_t>(r * (q.k / group) + i / group)]);
        w(r, i) = step * static_cast<float>(q.weights[static_cast<size_t>(r * q.k + i)]);
      }
    }
  });
  return w;
}

double RelativeOutputError(const Matrix &w, const QuantizedMatrix &q, const Matrix &hessian) {
  const Matrix difference = w - Dequantize(q);
  std::vector<double> errors(static_cast<size_t>((w.rows() + kRowsPerTask - 1) / kRowsPerTask));
  std::vector<double> sums(errors.size());
  ForRows(w.rows(), [&](int64_t begin, int64_t end) {
    const auto d = difference.middleRows(begin, end - begin);
    const auto v = w.middleRows(begin, end - begin);
    const auto task = static_cast<size_t>(begin / kRowsPerTask);
    errors[task] = static_cast<double>((d * hessian).cwiseProduct(d).sum());
    sums[task] = static_cast<double>((v * hessian).cwiseProduct(v).sum());
  });
  const double sum = std::accumulate(sums.begin(), sums.end(), 0.0);
  return sum > 0 ? std::accumulate(errors.begin(), errors.end(), 0.0) / sum : 0.0;
}

}  // namespace acorn::compiler
