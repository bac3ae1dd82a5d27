#include "train/float_ops.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "base/matrix.h"
#include "import/source_model.h"
#include "train/product.h"

namespace acorn::compiler {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

constexpr int64_t kQueryRows = 128;  // queries of a block of attention: at most half of it is masked in vain
constexpr int64_t kTokenBlock = 16;  // tokens of a task of rotation

using Rows = Eigen::Map<Matrix, 0, Eigen::OuterStride<>>;
using ConstRows = Eigen::Map<const Matrix, 0, Eigen::OuterStride<>>;

/// Head `head` of x [t, heads, dim].
ConstRows HeadOf(const Tensor &x, int64_t head) {
  return {x.data_ptr<float>() + head * x.size(2), x.size(0), x.size(2), Eigen::OuterStride<>(x.size(1) * x.size(2))};
}
Rows MutableHeadOf(const Tensor &x, int64_t head) {
  return {x.data_ptr<float>() + head * x.size(2), x.size(0), x.size(2), Eigen::OuterStride<>(x.size(1) * x.size(2))};
}

template <typename Body>  // body(head)
void ForHeads(int64_t heads, const Body &body) {
  at::parallel_for(0, heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t head = begin; head < end; ++head) body(head);
  });
}

class LowRankLinearFunction : public Function<LowRankLinearFunction> {
 public:
  static Tensor forward(AutogradContext *context, const Tensor &x, const Tensor &weight, const Tensor &a, const Tensor &b,
                        double scale) {
    const Tensor low = at::mm(x, a.t());
    Tensor y = Product(x, weight.t());
    y.addmm_(low, b.t(), 1, scale);
    context->save_for_backward({x, weight, a, b, low});
    context->saved_data["scale"] = scale;
    return y;
  }

  static variable_list backward(AutogradContext *context, const variable_list &gradients) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &a = saved[2], &b = saved[3], &low = saved[4];
    const double scale = context->saved_data["scale"].toDouble();
    const Tensor g = gradients[0].contiguous();
    const Tensor dlow = at::mm(g, b).mul_(scale);
    Tensor dx = Product(g, weight);
    dx.addmm_(dlow, a);
    return {dx, {}, at::mm(dlow.t(), x), at::mm(g.t(), low).mul_(scale), {}};
  }
};

/// Each pair by its angle, or by its negative.
Tensor Turned(const Tensor &x, const Tensor &cos, const Tensor &sin, bool blocked, float sign) {
  const int64_t tokens = x.size(0), heads = x.size(1), dim = x.size(2), kv_heads = cos.size(1), all_pairs = cos.size(2);
  const int64_t pairs = blocked ? std::min(all_pairs, dim / 2) : all_pairs;
  const int64_t distance = blocked ? LayerOrder::kPairBlock : pairs;
  Tensor result = x.clone();
  float *const out = result.data_ptr<float>();
  at::parallel_for(0, tokens, kTokenBlock, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t head = 0; head < heads; ++head) {
        float *const values = out + (t * heads + head) * dim;
        const int64_t row = (t * kv_heads + head / (heads / kv_heads)) * all_pairs;
        const float *const cosine = cos.data_ptr<float>() + row, *const sine = sin.data_ptr<float>() + row;
        for (int64_t pair = 0; pair < pairs; ++pair) {
          // A block of partners stands behind each block of first members.
          const int64_t first = blocked ? pair + pair / distance * distance : pair;
          const float one = values[first], other = values[first + distance], turn = sign * sine[pair];
          values[first] = one * cosine[pair] - other * turn;
          values[first + distance] = other * cosine[pair] + one * turn;
        }
      }
    }
  });
  return result;
}

class RotateFunction : public Function<RotateFunction> {
 public:
  static Tensor forward(AutogradContext *context, const Tensor &x, const Tensor &cos, const Tensor &sin, bool blocked) {
    context->save_for_backward({cos, sin});
    context->saved_data["blocked"] = blocked;
    return Turned(x, cos, sin, blocked, 1);
  }

  static variable_list backward(AutogradContext *context, const variable_list &gradients) {
    const variable_list saved = context->get_saved_variables();
    const bool blocked = context->saved_data["blocked"].toBool();
    return {Turned(gradients[0].contiguous(), saved[0], saved[1], blocked, -1), {}, {}, {}};
  }
};

/// Shares of attention of queries [first, first + q.rows()) over the keys [0, first + q.rows()).
Matrix Shares(const ConstMatrixRef &q, const ConstMatrixRef &keys, int64_t first, float scale, int64_t window) {
  Matrix shares(q.rows(), keys.rows());
  shares.noalias() = scale * q * keys.transpose();
  for (int64_t r = 0; r < shares.rows(); ++r) {
    const int64_t end = first + r + 1, begin = window > 0 ? std::max<int64_t>(0, end - window) : 0;
    auto seen = shares.row(r).segment(begin, end - begin).array();
    seen = (seen - seen.maxCoeff()).exp();
    seen *= 1 / seen.sum();
    shares.row(r).head(begin).setZero();
    shares.row(r).tail(keys.rows() - end).setZero();
  }
  return shares;
}

class AttentionFunction : public Function<AttentionFunction> {
 public:
  static Tensor forward(AutogradContext *context, const Tensor &q, const Tensor &k, const Tensor &v, double scale, int64_t window) {
    const int64_t tokens = q.size(0), heads = q.size(1), group = heads / k.size(1);
    Tensor out = torch::empty({tokens, heads, v.size(2)}, q.options());
    ForHeads(heads, [&](int64_t head) {
      const ConstRows queries = HeadOf(q, head), keys = HeadOf(k, head / group), values = HeadOf(v, head / group);
      Rows result = MutableHeadOf(out, head);
      for (int64_t first = 0; first < tokens; first += kQueryRows) {
        const int64_t rows = std::min(kQueryRows, tokens - first), seen = first + rows;
        const Matrix shares =
            Shares(queries.middleRows(first, rows), keys.topRows(seen), first, static_cast<float>(scale), window);
        result.middleRows(first, rows).noalias() = shares * values.topRows(seen);
      }
    });
    context->save_for_backward({q, k, v});
    context->saved_data["scale"] = scale;
    context->saved_data["window"] = window;
    return out;
  }

  static variable_list backward(AutogradContext *context, const variable_list &gradients) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &q = saved[0], &k = saved[1], &v = saved[2], g = gradients[0].contiguous();
    const auto scale = static_cast<float>(context->saved_data["scale"].toDouble());
    const int64_t window = context->saved_data["window"].toInt();
    const int64_t tokens = q.size(0), heads = q.size(1), kv_heads = k.size(1), group = heads / kv_heads;
    // Keys and values have a gradient from each query head; these are added up in their order.
    Tensor dq = torch::empty_like(q);
    Tensor dk = torch::zeros({tokens, heads, k.size(2)}, q.options()), dv = torch::zeros({tokens, heads, v.size(2)}, q.options());
    ForHeads(heads, [&](int64_t head) {
      const ConstRows queries = HeadOf(q, head), keys = HeadOf(k, head / group), values = HeadOf(v, head / group);
      const ConstRows wanted = HeadOf(g, head);
      Rows by_q = MutableHeadOf(dq, head), by_k = MutableHeadOf(dk, head), by_v = MutableHeadOf(dv, head);
      for (int64_t first = 0; first < tokens; first += kQueryRows) {
        const int64_t rows = std::min(kQueryRows, tokens - first), seen = first + rows;
        const auto block = queries.middleRows(first, rows), change = wanted.middleRows(first, rows);
        const Matrix shares = Shares(block, keys.topRows(seen), first, scale, window);
        by_v.topRows(seen).noalias() += shares.transpose() * change;
        Matrix scores = change * values.topRows(seen).transpose();
        const Eigen::ArrayXf mean = scores.cwiseProduct(shares).rowwise().sum().array();
        scores = ((scores.array().colwise() - mean) * shares.array() * scale).matrix();
        by_q.middleRows(first, rows).noalias() = scores * keys.topRows(seen);
        by_k.topRows(seen).noalias() += scores.transpose() * block;
      }
    });
    const auto of_kv_heads = [&](const Tensor &by_head) { return by_head.view({tokens, kv_heads, group, -1}).sum(2); };
    return {dq, of_kv_heads(dk), of_kv_heads(dv), {}, {}};
  }
};

/// Of one head: how much of a token's addition to the state is left at a later one, [t, t]; zero before it.
Matrix Remaining(const Eigen::ArrayXd &steps, double decay) {
  const int64_t tokens = steps.size();
  Eigen::ArrayXd sum(tokens);  // in double: its differences count
  double total = 0;
  for (int64_t t = 0; t < tokens; ++t) sum(t) = total += decay * steps(t);
  Matrix remaining = Matrix::Zero(tokens, tokens);
  for (int64_t t = 0; t < tokens; ++t) {
    remaining.row(t).head(t + 1) = (sum(t) - sum.head(t + 1)).cast<float>().exp().matrix().transpose();
  }
  return remaining;
}

Eigen::ArrayXf StepsOf(const Tensor &dt, int64_t head) {
  const float *const data = dt.data_ptr<float>() + head;
  return Eigen::Map<const Eigen::ArrayXf, 0, Eigen::InnerStride<>>(data, dt.size(0), Eigen::InnerStride<>(dt.size(1)));
}

/// c_t b_s of each group: [groups, t, t].
Tensor Overlap(const Tensor &b, const Tensor &c) { return at::bmm(c.transpose(0, 1), b.permute({1, 2, 0})); }

ConstRows SquareOf(const Tensor &x, int64_t index) {
  return {x.data_ptr<float>() + index * x.size(1) * x.size(2), x.size(1), x.size(2), Eigen::OuterStride<>(x.size(2))};
}

class ScanFunction : public Function<ScanFunction> {
 public:
  static Tensor forward(AutogradContext *context, const Tensor &x, const Tensor &dt, const Tensor &b, const Tensor &c,
                        const Tensor &decay, const Tensor &skip) {
    const int64_t heads = x.size(1), group = heads / b.size(1);
    const Tensor overlap = Overlap(b, c);
    Tensor out = torch::empty_like(x);
    ForHeads(heads, [&](int64_t head) {
      const Eigen::ArrayXf steps = StepsOf(dt, head);
      const auto values = HeadOf(x, head);
      Matrix share = Remaining(steps.cast<double>(), static_cast<double>(decay.data_ptr<float>()[head]));
      share.array() *= SquareOf(overlap, head / group).array();
      Rows result = MutableHeadOf(out, head);
      result.noalias() = share * (values.array().colwise() * steps).matrix();
      result += skip.data_ptr<float>()[head] * values;
    });
    context->save_for_backward({x, dt, b, c, decay, skip});
    return out;
  }

  static variable_list backward(AutogradContext *context, const variable_list &gradients) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &x = saved[0], &dt = saved[1], &b = saved[2], &c = saved[3], &decay = saved[4], &skip = saved[5];
    const Tensor g = gradients[0].contiguous();
    const int64_t tokens = x.size(0), heads = x.size(1), groups = b.size(1), group = heads / groups;
    const Tensor overlap = Overlap(b, c);
    Tensor dx = torch::empty_like(x), ddt = torch::empty_like(dt), doverlap = torch::empty({heads, tokens, tokens}, x.options());
    ForHeads(heads, [&](int64_t head) {
      const float rate = decay.data_ptr<float>()[head];
      const Eigen::ArrayXf steps = StepsOf(dt, head);
      const auto values = HeadOf(x, head), change = HeadOf(g, head);
      const Matrix remaining = Remaining(steps.cast<double>(), static_cast<double>(rate));
      const Matrix share = remaining.cwiseProduct(SquareOf(overlap, head / group));
      const Matrix by_share = change * (values.array().colwise() * steps).matrix().transpose();
      const Matrix by_added = share.transpose() * change;  // by dt x
      float *const by_overlap = doverlap.data_ptr<float>() + head * tokens * tokens;
      Eigen::Map<Matrix>(by_overlap, tokens, tokens) = by_share.cwiseProduct(remaining);
      const Matrix by_exponent = by_share.cwiseProduct(share);
      Eigen::ArrayXf by_sum = by_exponent.rowwise().sum().array() - by_exponent.colwise().sum().transpose().array();
      const Eigen::ArrayXf by_step = by_added.cwiseProduct(values).rowwise().sum().array();
      float later = 0;
      for (int64_t t = tokens - 1; t >= 0; --t) {
        later += by_sum(t);
        ddt.data_ptr<float>()[t * heads + head] = by_step(t) + rate * later;
      }
      MutableHeadOf(dx, head) = (by_added.array().colwise() * steps).matrix() + skip.data_ptr<float>()[head] * change;
    });
    const Tensor by_group = doverlap.view({groups, group, tokens, tokens}).sum(1);
    const Tensor db = at::bmm(by_group.transpose(1, 2), c.transpose(0, 1)).transpose(0, 1);
    const Tensor dc = at::bmm(by_group, b.transpose(0, 1)).transpose(0, 1);
    return {dx, ddt, db, dc, {}, {}};
  }
};

}  // namespace

Tensor LowRankLinear(const Tensor &x, const Tensor &weight, const Tensor &bias, const Tensor &a, const Tensor &b, double scale) {
  const Tensor y = a.defined() ? LowRankLinearFunction::apply(x, weight, a, b, scale) : Product(x, weight.t());
  return bias.defined() ? y + bias : y;
}

Tensor Rotate(const Tensor &x, const Rotary &rotary) {
  return RotateFunction::apply(x.contiguous(), rotary.cos, rotary.sin, rotary.blocked);
}

Tensor CausalAttention(const Tensor &q, const Tensor &k, const Tensor &v, double scale, int64_t window) {
  return AttentionFunction::apply(q.contiguous(), k.contiguous(), v.contiguous(), scale, window);
}

Tensor Scan(const Tensor &x, const Tensor &dt, const Tensor &b, const Tensor &c, const Tensor &decay, const Tensor &skip) {
  return ScanFunction::apply(x.contiguous(), dt.contiguous(), b.contiguous(), c.contiguous(), decay, skip);
}

}  // namespace acorn::compiler
