// Operators whose shapes do not fit, and steps in an order that cannot run. Operands by themselves: operand_cases_test.cc.
#include "tests/evil/evil_file.h"

namespace acorn::test {
namespace {

using schema::ModelT;
using schema::Op;

ModelSpec Spec() {
  ModelSpec spec;
  spec.name = "dense";
  spec.kv_bits = 4;
  spec.prefix_rows = 1;
  spec.head_weights = HeadWeights::kOwn;
  return spec;
}

void Narrow(const std::unique_ptr<schema::Slice> &slice, uint32_t by = 1) {
  *slice = schema::Slice(slice->value(), slice->offset(), slice->width() - by);
}

template <typename T, typename Field>
GraphCase With(Op type, const char *name, Field T::*field, uint64_t value) {
  return StepCase<T>(name, type, [=](T &op, ModelT &) { op.*field = static_cast<Field>(value); });
}
template <typename T>
GraphCase Narrowed(Op type, const char *name, std::unique_ptr<schema::Slice> T::*slice) {
  return StepCase<T>(name, type, [=](T &op, ModelT &) { Narrow(op.*slice); });
}

TEST(EvilSteps, Embedding) {
  using T = schema::EmbeddingT;
  ExpectAllRefused(Spec(), {
      With(Op::Embedding, "weight -1", &T::weight, 65535),
      StepCase<T>("weight after the last", Op::Embedding,
                  [](T &op, ModelT &m) { op.weight = static_cast<uint16_t>(m.weights.size()); }),
      // CVE-2022-23559: rows of a table, longer or more than it has.
      With(Op::Embedding, "of another weight", &T::weight, 1),
      Narrowed(Op::Embedding, "of another depth", &T::out),
  });
}

// CVE-2023-27579, CVE-2022-23557: a count of 0 that something is divided by. Here and below: groups, heads, blocks, panels.
TEST(EvilSteps, Norms) {
  using T = schema::RmsNormT;
  const auto factor = [](const char *name, int32_t multiplier, uint8_t shift) {
    return StepCase<T>(name, Op::RmsNorm, [=](T &op, ModelT &) { *op.factor = schema::Factor(multiplier, shift); });
  };
  ExpectAllRefused(Spec(), {
      With(Op::RmsNorm, "of no groups", &T::groups, 0),
      With(Op::RmsNorm, "of groups that do not divide", &T::groups, 7),
      With(Op::RmsNorm, "of 2^31 groups", &T::groups, uint64_t{1} << 31),
      With(Op::RmsNorm, "of 2^32 - 1 groups", &T::groups, UINT32_MAX),
      With(Op::RmsNorm, "of epsilon 2^60", &T::eps_term, uint64_t{1} << 60),
      With(Op::RmsNorm, "of epsilon 2^64 - 1", &T::eps_term, UINT64_MAX),
      factor("of a factor below 2^30", (1 << 30) - 1, 20),
      factor("of a factor of shift 1", 1 << 30, 1),
      factor("of a factor of shift 50", 1 << 30, 50),
      Narrowed(Op::RmsNorm, "to another width", &T::out),
  });
  using L = schema::LayerNormT;
  ModelSpec layers = Spec();
  layers.norms = Norms::kLayer;
  ExpectAllRefused(layers, {
      With(Op::LayerNorm, "of no groups", &L::groups, 0),
      With(Op::LayerNorm, "of groups that do not divide", &L::groups, 7),
      With(Op::LayerNorm, "of 2^32 - 1 groups", &L::groups, UINT32_MAX),
      With(Op::LayerNorm, "of epsilon 2^60", &L::eps_term, uint64_t{1} << 60),
      With(Op::LayerNorm, "of epsilon 2^64 - 1", &L::eps_term, UINT64_MAX),
      Narrowed(Op::LayerNorm, "to another width", &L::out),
  });
}

TEST(EvilSteps, Linear) {
  using T = schema::LinearT;
  const auto runs = [](const char *name, const std::function<std::vector<schema::Run>(uint32_t n)> &make) {
    return StepCase<T>(name, Op::Linear, [=](T &op, ModelT &) { op.rows = make(op.out->width()); });
  };
  const auto bound = [](const char *name, uint64_t value) {
    return StepCase<T>(name, Op::Linear, [=](T &op, ModelT &m) { m.weights[op.weight]->acc_bound = value; });
  };
  const auto weight = [](const char *name, const std::function<void(schema::WeightT &)> &harm) {
    return StepCase<T>(name, Op::Linear, [=](T &op, ModelT &m) { harm(*m.weights[op.weight]); });
  };
  using Runs = std::vector<schema::Run>;
  ExpectAllRefused(Spec(), {
      With(Op::Linear, "weight -1", &T::weight, 65535),
      StepCase<T>("weight after the last", Op::Linear,
                  [](T &op, ModelT &m) { op.weight = static_cast<uint16_t>(m.weights.size()); }),
      With(Op::Linear, "of another layer's last weight", &T::weight, 4),
      Narrowed(Op::Linear, "of a part of a panel", &T::input),
      Narrowed(Op::Linear, "to fewer columns than rows", &T::out),
      weight("of a weight of no depth", [](auto &w) { w.k = 0; }),
      weight("of a weight of no channels", [](auto &w) { w.n = 0; }),
      weight("of a weight of 2^32 - 1 channels", [](auto &w) { w.n = UINT32_MAX; }),
      // CVE-2022-23560, -23561: the index lists of a sparse tensor. CVE-2020-15212: indices that say where is written to.
      runs("of a run of no rows", [](uint32_t n) { return Runs{{0, n}, {0, 0}}; }),
      runs("of a run askew", [](uint32_t n) { return Runs{{8, n - 8}, {0, 8}}; }),
      runs("of a run past the last row", [](uint32_t n) { return Runs{{16, n}}; }),
      runs("of a run far away", [](uint32_t n) { return Runs{{0x80000000u, n}}; }),
      runs("of a run that wraps around", [](uint32_t n) { return Runs{{0xfffffff0u, n}}; }),
      runs("of a run without end", [](uint32_t) { return Runs{{0, UINT32_MAX}}; }),
      runs("of fewer rows than columns", [](uint32_t n) { return Runs{{0, n - 16}}; }),
      runs("of more rows than columns", [](uint32_t n) { return Runs{{0, n}, {0, 16}}; }),
      runs("of rows that are as many by 2^32", [](uint32_t n) { return Runs(n / 16 + 1, schema::Run(0, 16)); }),
      // What sums may be, FORMAT.md "Bounds".
      bound("of sums of 2^31", uint64_t{1} << 31),
      bound("of sums of 2^32", uint64_t{1} << 32),
      bound("of sums of 2^63", uint64_t{1} << 63),
      bound("of sums of 2^64 - 1", UINT64_MAX),
  });
  ModelSpec wide = Spec();
  wide.name = "wide input";
  wide.hadamard_block = 1;
  std::vector<GraphCase> cases;
  for (const uint64_t value : {(uint64_t{1} << 38) - 1, uint64_t{1} << 38, UINT64_MAX}) {
    cases.push_back(StepCase<T>(("of two rows' sums of " + std::to_string(value)).c_str(), Op::Linear,
                                [=](T &op, ModelT &m) { m.weights[op.weight]->acc_bound = value; }, 3));
  }
  ExpectAllRefused(wide, cases);
}

TEST(EvilSteps, AttentionAndItsCache) {
  using R = schema::RotateT;
  using A = schema::AppendT;
  using T = schema::AttentionT;
  const auto cache = [](const char *name, const std::function<void(schema::CacheT &)> &harm) {
    return StepCase<T>(name, Op::Attention, [=](T &op, ModelT &m) { harm(*m.caches[op.cache]); });
  };
  const auto sinks = [](const char *name, const std::function<void(T &)> &harm) {
    return StepCase<T>(name, Op::Attention, [=](T &op, ModelT &m) {
      m.caches[op.cache]->window = 9;
      op.sink_q = std::make_unique<schema::Slice>(*op.q);
      harm(op);
    });
  };
  ExpectAllRefused(Spec(), {
      StepCase<T>("with queries for sinks and no window", Op::Attention,
                  [](T &op, ModelT &) { op.sink_q = std::make_unique<schema::Slice>(*op.q); }),
      StepCase<T>("with queries for sinks and no prefix", Op::Attention,
                  [](T &op, ModelT &m) {
                    op.sink_q = std::make_unique<schema::Slice>(*op.q);
                    m.prefix_tokens.clear();
                    for (auto &one : m.caches) one->window = 9;
                  }),
      sinks("with fewer queries for sinks", [](T &op) { Narrow(op.sink_q, 2); }),
      sinks("with no queries for sinks", [](T &op) { Narrow(op.sink_q, op.sink_q->width()); }),
      sinks("with queries for sinks beside their value",
            [](T &op) { *op.sink_q = schema::Slice(op.sink_q->value(), op.sink_q->offset() + 1, op.sink_q->width()); }),
      sinks("with queries for sinks of no value", [](T &op) { *op.sink_q = schema::Slice(65535, 0, op.sink_q->width()); }),
      sinks("with queries for sinks of 16 bits", [](T &op) { *op.sink_q = schema::Slice(0, 0, op.sink_q->width()); }),
      sinks("with queries for sinks in its output", [](T &op) { *op.sink_q = schema::Slice(op.out->value(), 0, op.sink_q->width()); }),
      With(Op::Rotate, "of no heads", &R::heads, 0),
      With(Op::Rotate, "of heads that do not divide", &R::heads, 5),
      With(Op::Rotate, "of 2^31 heads", &R::heads, uint64_t{1} << 31),
      With(Op::Rotate, "of heads narrower than the rope", &R::heads, 8),
      With(Op::Rotate, "rope -1", &R::rope, 65535),
      With(Op::Rotate, "rope after the last", &R::rope, 1),
      Narrowed(Op::Rotate, "to another width", &R::out),
      StepCase<R>("of a rope of 2^31", Op::Rotate, [](R &op, ModelT &m) { m.ropes[op.rope]->rotary_dims = 1u << 31; }, 3),
      With(Op::Append, "cache -1", &A::cache, 65535),
      With(Op::Append, "cache after the last", &A::cache, 2),
      Narrowed(Op::Append, "keys that heads do not divide", &A::k),
      Narrowed(Op::Append, "values that heads do not divide", &A::v),
      StepCase<A>("keys of odd heads", Op::Append, [](A &op, ModelT &) { Narrow(op.k, 2); }),
      StepCase<A>("values of odd heads", Op::Append, [](A &op, ModelT &) { Narrow(op.v, 2); }),
      StepCase<A>("fewer keys than are read", Op::Append, [](A &op, ModelT &) { Narrow(op.k, 4); }),
      StepCase<A>("fewer values than are read", Op::Append, [](A &op, ModelT &) { Narrow(op.v, 4); }),
      With(Op::Append, "to the next layer's cache", &A::cache, 1),
      With(Op::Attention, "cache -1", &T::cache, 65535),
      With(Op::Attention, "of no heads", &T::heads, 0),
      With(Op::Attention, "of heads that do not divide", &T::heads, 3),
      With(Op::Attention, "of 2^31 heads", &T::heads, uint64_t{1} << 31),
      With(Op::Attention, "of odd values", &T::v_dim, 15),
      With(Op::Attention, "of more values than the cache has", &T::v_dim, 18),
      With(Op::Attention, "of 2^32 - 2 values", &T::v_dim, UINT32_MAX - 1),
      With(Op::Attention, "of a run that does not divide", &T::run, 5),
      With(Op::Attention, "of a run of more than there is", &T::run, 32),
      Narrowed(Op::Attention, "of queries that heads do not divide", &T::q),
      StepCase<T>("of odd queries", Op::Attention, [](T &op, ModelT &) { Narrow(op.q, 4); }),
      Narrowed(Op::Attention, "to another width", &T::out),
      cache("of a cache of no heads", [](auto &c) { c.kv_heads = 0; }),
      cache("of a cache of other heads", [](auto &c) { c.kv_heads = 3; }),
      cache("of a cache of 2^32 - 1 heads", [](auto &c) { c.kv_heads = UINT32_MAX; }),
      cache("of a cache of narrower heads", [](auto &c) { c.head_dim = 14; }),
      cache("of a cache of heads of 2^31", [](auto &c) { c.head_dim = 1u << 31; }),
  });
}

TEST(EvilSteps, ElementByElement) {
  using G = schema::GluT;
  using H = schema::HadamardT;
  using A = schema::AddT;
  ExpectAllRefused(Spec(), {
      Narrowed(Op::Glu, "of another gate", &G::gate),
      Narrowed(Op::Glu, "of another up", &G::up),
      Narrowed(Op::Glu, "to another width", &G::out),
      With(Op::Hadamard, "of no block", &H::block, 0),
      With(Op::Hadamard, "of a block of 3", &H::block, 3),
      With(Op::Hadamard, "of a block that does not divide", &H::block, 1024),
      With(Op::Hadamard, "of a block of 2048", &H::block, 2048),
      With(Op::Hadamard, "of a block of 2^31", &H::block, uint64_t{1} << 31),
      Narrowed(Op::Hadamard, "to another width", &H::out),
      Narrowed(Op::Add, "of another a", &A::a),
      Narrowed(Op::Add, "of another b", &A::b),
      Narrowed(Op::Add, "to another width", &A::out),
      StepCase<A>("of a multiplier of -2^31", Op::Add, [](A &op, ModelT &) { op.a_multiplier = INT32_MIN; }),
      StepCase<A>("of another multiplier of -2^31", Op::Add, [](A &op, ModelT &) { op.b_multiplier = INT32_MIN; }),
  });
}

TEST(EvilSteps, WhatTheHeadMayNotDo) {
  ModelSpec hybrid;
  hybrid.name = "hybrid";
  hybrid.mixers = {Mixer::kAttention, Mixer::kStateSpace};
  hybrid.experts = 3;
  hybrid.expert_weights = {{WeightFormat::kW4G32, Layout::kC4}};
  std::vector<GraphCase> cases;
  for (const Op type : {Op::Embedding, Op::Rotate, Op::Append, Op::Attention, Op::Experts, Op::Conv, Op::Scan}) {
    cases.push_back({std::string(schema::EnumNameOp(type)) + " in the head", "head", [=](ModelT &m) {
                       m.head.insert(m.head.begin(), std::make_unique<schema::StepT>(*m.body[IndexOf(m.body, type)]));
                       return Where(0);
                     }});
  }
  ExpectAllRefused(hybrid, cases);
}

TEST(EvilSteps, Order) {
  ExpectAllRefused(Spec(), {
      {"a step of nothing", "body", [](ModelT &m) { m.body[4]->op.Reset(); return Where(4); }},
      {"a step of nothing in the head", "head", [](ModelT &m) { m.head[0]->op.Reset(); return Where(0); }},
      {"a body without an embedding", "body", [](ModelT &m) { m.body.erase(m.body.begin()); return Where(0); }},
      {"an embedding after its reader", "body", [](ModelT &m) { std::swap(m.body[0], m.body[1]); return Where(0); }},
      {"attention before anything was appended", "body",
       [](ModelT &m) {
         m.body.erase(m.body.begin() + static_cast<std::ptrdiff_t>(IndexOf(m.body, Op::Append)));
         return Where(0);
       }},
      {"attention that the next layer's rows are missing for", "body",
       [](ModelT &m) {
         m.body.erase(m.body.begin() + static_cast<std::ptrdiff_t>(IndexOf(m.body, Op::Append, 1)));
         return Where(IndexOf(m.body, Op::Attention, 0));
       }},
      // CVE-2020-15209: a tensor that nobody gave a content.
      {"a head that starts from what nobody computed", "head",
       [](ModelT &m) {
         m.values.emplace_back(schema::DType::S16, m.values[m.body_out].width());
         auto &input = *m.head[0]->op.AsRmsNorm()->input;
         input = schema::Slice(static_cast<uint16_t>(m.values.size() - 1), 0, input.width());
         return Where(m.head.size());
       }},
      // Logits of a whole chunk have no place.
      {"a body that computes logits", "body",
       [](ModelT &m) {
         for (const auto &step : m.head) m.body.push_back(std::make_unique<schema::StepT>(*step));
         return Where(m.body.size() - 1);
       }},
      {"a head that writes what it starts from", "head",
       [](ModelT &m) {
         m.head.insert(m.head.begin(), std::make_unique<schema::StepT>(*m.body[IndexOf(m.body, Op::Add)]));
         auto &out = *m.head[0]->op.AsAdd()->out;
         out = schema::Slice(static_cast<uint16_t>(m.body_out), out.offset(), out.width());
         return Where(0);
       }},
      {"a head that writes no logits", "head", [](ModelT &m) { m.head.pop_back(); return Where(m.head.size()); }},
  });
  // CVE-2020-15210: one tensor as an operator's input and output.
  const auto self = [](const char *name, Op type, const auto &harm) {
    return GraphCase{name, "body", [=](ModelT &m) {
                       const size_t index = IndexOf(m.body, type);
                       harm(*m.body[index]);
                       return Where(index);
                     }};
  };
  ExpectAllRefused(Spec(), {
      self("an addition to itself", Op::Add, [](auto &s) { *s.op.AsAdd()->out = *s.op.AsAdd()->a; }),
      self("a gate in its own place", Op::Glu, [](auto &s) { *s.op.AsGlu()->out = *s.op.AsGlu()->up; }),
      self("a rotation in its own place", Op::Rotate, [](auto &s) { *s.op.AsRotate()->out = *s.op.AsRotate()->input; }),
  });
}

}  // namespace
}  // namespace acorn::test
