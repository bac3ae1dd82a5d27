#include "passes/rotate.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <string>

#include "base/parallel.h"
#include "base/random.h"
#include "passes/hadamard.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kRowsPerTask = 64;
constexpr int64_t kOddFactors[] = {7, 5, 3};  // of the orders 28, 20 and 12

/// Families whose layers are RMSNorm, linear layers and an addition to the stream, once or twice, and whose stream meets nothing
/// else: what R1 takes for granted.
constexpr const char *kPlainStreams[] = {"llama", "mistral", "qwen2", "qwen3", "mamba2", "bamba"};

/// A block's order as 4 * odd factors times a power of two.
struct Orders {
  std::vector<int64_t> paley;
  int64_t power = 1;
  int64_t block() const {
    int64_t product = power;
    for (const int64_t order : paley) product *= order;
    return product;
  }
};

Orders OrdersOf(int64_t width) {
  Orders orders;
  int64_t rest = width;
  for (; rest % 2 == 0; rest /= 2) orders.power *= 2;
  for (const int64_t odd : kOddFactors) {
    for (; rest % odd == 0 && orders.power >= 4; rest /= odd) {
      orders.paley.push_back(4 * odd);
      orders.power /= 4;
    }
  }
  return orders;
}

/// 1 where `value` is a square modulo the prime, -1 where it is none, 0 where it is a multiple.
float Character(int64_t value, int64_t prime) {
  value = (value % prime + prime) % prime;
  if (value == 0) return 0;
  for (int64_t root = 1; root < prime; ++root) {
    if (root * root % prime == value) return 1;
  }
  return -1;
}

/// Border of ones around the characters of all differences: C * C^T = prime * I, antisymmetric for a prime of 4n + 3 with the
/// sign of the first column turned, symmetric for 4n + 1.
Matrix Conference(int64_t prime) {
  Matrix c = Matrix::Zero(prime + 1, prime + 1);
  c.row(0).tail(prime).setOnes();
  c.col(0).tail(prime).setConstant(prime % 4 == 3 ? -1.0f : 1.0f);
  for (int64_t i = 0; i < prime; ++i) {
    for (int64_t j = 0; j < prime; ++j) c(1 + i, 1 + j) = Character(i - j, prime);
  }
  return c;
}

/// Paley's orthonormal Hadamard matrices: of order 12 and 20 by the first construction, 28 by the second.
Matrix Paley(int64_t order) {
  Matrix h(order, order);
  if (order != 28) {
    h = Conference(order - 1) + Matrix::Identity(order, order);
  } else {
    const int64_t half = order / 2;
    const Matrix c = Conference(half - 1), one = Matrix::Identity(half, half);
    h << c + one, c - one, c - one, -c - one;
  }
  return h / std::sqrt(static_cast<float>(order));
}

ModelConfig RotatedConfig(ModelConfig config, RotationKind kind) {
  if (kind == RotationKind::kR1R2) config.tied_head = false;
  return config;
}

/// m [n, k] = R^T * m, R of width n.
void RotateOutputs(Matrix *m, const Rotation &rotation) {
  Matrix columns = m->transpose();
  rotation.Apply(columns);
  *m = columns.transpose();
}

}  // namespace

const char *RotationName(RotationKind kind) {
  switch (kind) {
    case RotationKind::kNone:
      return "none";
    case RotationKind::kR2:
      return "r2";
    case RotationKind::kR1R2:
      return "r1r2";
  }
  return "?";
}

const char *RefusalOf(const ModelConfig &config, RotationKind kind) {
  if (kind == RotationKind::kNone) return nullptr;
  if (!config.HasAttention() && kind == RotationKind::kR2) return "it has no values";
  if (config.HasAttention() && Rotation::Block(config.head_dim) == 1) return "heads of an odd width have no Hadamard matrix";
  if (config.qkv_limit != 0) return "values are clipped one by one";
  if (kind == RotationKind::kR2) return nullptr;
  const auto is_family = [&](const char *name) { return config.family == name; };
  if (std::none_of(std::begin(kPlainStreams), std::end(kPlainStreams), is_family)) {
    return "in this family something else than an RMSNorm, a linear layer or an addition meets the residual stream";
  }
  if (Rotation::Block(config.hidden) == 1) return "a residual stream of odd width has no Hadamard matrix";
  return nullptr;
}

Rotation::Rotation(int64_t width, uint64_t seed) : signs_(width) {
  for (int64_t i = 0; i < width; ++i) signs_[i] = NextRandom(&seed) >> 63 == 0 ? 1.0f : -1.0f;
  const Orders orders = OrdersOf(width);
  power_ = orders.power;
  for (const int64_t order : orders.paley) factors_.push_back(Paley(order));
}

int64_t Rotation::Block(int64_t width) { return OrdersOf(width).block(); }

void Rotation::Apply(MatrixRef rows) const {
  rows.array().rowwise() *= signs_.array();
  HadamardRows(rows, power_);
  if (factors_.empty()) return;
  ParallelFor((rows.rows() + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task) {
    const int64_t end = std::min<int64_t>(rows.rows(), (task + 1) * kRowsPerTask);
    Matrix product;
    for (int64_t r = task * kRowsPerTask; r < end; ++r) {
      int64_t stride = power_;
      for (const Matrix &factor : factors_) {
        for (int64_t first = 0; first < rows.cols(); first += factor.rows() * stride) {
          // [order, stride]: the index that this factor turns stands outermost.
          Eigen::Map<Matrix> tile(&rows(r, first), factor.rows(), stride);
          product.noalias() = factor.transpose() * tile;
          tile = product;
        }
        stride *= factor.rows();
      }
    }
  });
}

RotatedModel::RotatedModel(const SourceModel &source, RotationKind kind, uint64_t seed)
    : SourceModel(source, RotatedConfig(source.config(), kind)),
      source_(source),
      kind_(kind),
      seed_(seed),
      stream_(source.config().hidden, seed) {}

Matrix RotatedModel::LoadRows(TensorRole role, int64_t layer, int64_t first, int64_t count) const {
  // Rows of the embedding are turned each by itself, and those of experts not at all (a family with experts has no R1).
  // Everything else is small enough to be turned whole.
  const bool is_by_row = role == TensorRole::kEmbedding || role == TensorRole::kHead || IsExpertRole(role);
  Matrix tensor = is_by_row ? source_.LoadRows(role, layer, first, count) : source_.Load(role, layer);
  if (kind_ == RotationKind::kR1R2) RotateStream(&tensor, role, layer);
  if (kind_ != RotationKind::kNone) RotateValues(&tensor, role, layer);
  if (tensor.rows() == count) return tensor;
  assert(first >= 0 && count >= 0 && first + count <= tensor.rows());
  return tensor.middleRows(first, count);
}

void RotatedModel::RotateStream(Matrix *tensor, TensorRole role, int64_t layer) const {
  const auto fold = [&](TensorRole norm) { tensor->array().rowwise() *= source_.Load(norm, layer).row(0).array(); };
  switch (role) {
    case TensorRole::kAttnNorm:
    case TensorRole::kFfnNorm:
    case TensorRole::kFinalNorm:
      tensor->setOnes();
      return;
    case TensorRole::kQ:
    case TensorRole::kK:
    case TensorRole::kV:
    case TensorRole::kSsmGate:
    case TensorRole::kSsmConvIn:
    case TensorRole::kSsmStep:
      fold(TensorRole::kAttnNorm);
      return stream_.Apply(*tensor);
    case TensorRole::kGate:
    case TensorRole::kUp:
      fold(TensorRole::kFfnNorm);
      return stream_.Apply(*tensor);
    case TensorRole::kHead:
      fold(TensorRole::kFinalNorm);
      return stream_.Apply(*tensor);
    case TensorRole::kEmbedding:
    case TensorRole::kOBias:
    case TensorRole::kDownBias:
      return stream_.Apply(*tensor);
    case TensorRole::kO:
    case TensorRole::kDown:
    case TensorRole::kSsmOut:
      return RotateOutputs(tensor, stream_);
    default:
      return;
  }
}

void RotatedModel::RotateValues(Matrix *tensor, TensorRole role, int64_t layer) const {
  if (role != TensorRole::kV && role != TensorRole::kVBias && role != TensorRole::kO) return;
  const int64_t dim = config().head_dim, group = config().heads / config().kv_heads;
  for (int64_t kv_head = 0; kv_head < config().kv_heads; ++kv_head) {
    uint64_t state = seed_ + (static_cast<uint64_t>(layer * config().kv_heads + kv_head + 1) << 32);
    const Rotation rotation(dim, NextRandom(&state));
    if (role == TensorRole::kV) {
      Matrix head = tensor->middleRows(kv_head * dim, dim);
      RotateOutputs(&head, rotation);
      tensor->middleRows(kv_head * dim, dim) = head;
    } else if (role == TensorRole::kVBias) {
      rotation.Apply(tensor->middleCols(kv_head * dim, dim));
    } else {
      for (int64_t g = 0; g < group; ++g) rotation.Apply(tensor->middleCols((kv_head * group + g) * dim, dim));
    }
  }
}

}  // namespace acorn::compiler
