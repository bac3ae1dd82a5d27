// States, convolutions and recurrences that do not fit each other.
#include "tests/evil/evil_file.h"

namespace acorn::test {
namespace {

using schema::ModelT;
using schema::Op;

ModelSpec Spec() {
  ModelSpec spec;
  spec.name = "state space";
  spec.mixers = {Mixer::kStateSpace};
  spec.state_groups = 2;
  spec.norm_groups = 4;
  spec.prefix_rows = 1;
  return spec;
}

void Narrow(const std::unique_ptr<schema::Slice> &slice, uint32_t by = 1) {
  *slice = schema::Slice(slice->value(), slice->offset(), slice->width() - by);
}

using C = schema::ConvT;
using S = schema::ScanT;
GraphCase Conv(const char *name, const std::function<void(C &)> &harm) {
  return StepCase<C>(name, Op::Conv, [=](C &op, ModelT &) { harm(op); });
}
GraphCase Scan(const char *name, const std::function<void(S &)> &harm) {
  return StepCase<S>(name, Op::Scan, [=](S &op, ModelT &) { harm(op); });
}
// The state of the first convolution, or of the first recurrence.
GraphCase ConvState(const char *name, const std::function<void(schema::StateT &)> &harm) {
  return StepCase<C>(name, Op::Conv, [=](C &op, ModelT &m) { harm(*m.states[op.state]); });
}
GraphCase ScanState(const char *name, const std::function<void(schema::StateT &)> &harm) {
  return StepCase<S>(name, Op::Scan, [=](S &op, ModelT &m) { harm(*m.states[op.state]); });
}

TEST(EvilStateSpaces, Convolutions) {
  const auto runs = [](const char *name, const std::function<std::vector<schema::Run>(uint32_t)> &make) {
    return Conv(name, [=](C &op) { op.columns = make(op.input->width()); });
  };
  using Runs = std::vector<schema::Run>;
  ExpectAllRefused(Spec(), {
      Conv("state -1", [](C &op) { op.state = 65535; }),
      Conv("state after the last", [](C &op) { op.state = 4; }),
      Conv("with a recurrence's state", [](C &op) { op.state = 1; }),
      Conv("of no taps", [](C &op) { op.taps = 0; }),
      Conv("of one tap", [](C &op) { op.taps = 1; }),
      Conv("of nine taps", [](C &op) { op.taps = 9; }),
      Conv("of 2^32 - 1 taps", [](C &op) { op.taps = UINT32_MAX; }),
      Conv("of fewer taps than its state has rows for", [](C &op) { op.taps = 3; }),
      Conv("to another width", [](C &op) { Narrow(op.out); }),
      ConvState("with a state of another type", [](auto &s) { s.dtype = schema::DType::S32; }),
      ConvState("with a state of no type", [](auto &s) { s.dtype = schema::DType::None; }),
      ConvState("with a state of no rows", [](auto &s) { s.rows = 0; }),
      ConvState("with a state of 2^32 - 1 rows", [](auto &s) { s.rows = UINT32_MAX; }),
      ConvState("with a state of fewer columns", [](auto &s) { --s.columns; }),
      ConvState("with a state of 2^31 columns", [](auto &s) { s.columns = 1u << 31; }),
      runs("of a run of no columns", [](uint32_t n) { return Runs{{0, n}, {n, 0}}; }),
      runs("of columns past the last", [](uint32_t n) { return Runs{{1, n}}; }),
      runs("of columns that wrap around", [](uint32_t n) { return Runs{{UINT32_MAX, n}}; }),
      runs("of columns that fall", [](uint32_t n) { return Runs{{n / 2, n - n / 2}, {0, n / 2}}; }),
      runs("of columns twice", [](uint32_t n) { return Runs{{0, n / 2}, {0, n - n / 2}}; }),
      runs("of fewer columns", [](uint32_t n) { return Runs{{0, n - 1}}; }),
  });
}

TEST(EvilStateSpaces, Recurrences) {
  ExpectAllRefused(Spec(), {
      Scan("state -1", [](S &op) { op.state = 65535; }),
      Scan("with a convolution's state", [](S &op) { op.state = 0; }),
      Scan("of no heads", [](S &op) { op.heads = 0; }),
      Scan("of heads that do not divide", [](S &op) { op.heads = 3; }),
      Scan("of 2^31 heads", [](S &op) { op.heads = 1u << 31; }),
      Scan("of no groups", [](S &op) { op.groups = 0; }),
      Scan("of groups that do not divide the heads", [](S &op) { op.groups = 3; }),
      Scan("of more columns than its state", [](S &op) { op.groups = 1; }),
      Scan("of 2^32 - 1 groups", [](S &op) { op.groups = UINT32_MAX; }),
      Scan("of fewer step sizes than heads", [](S &op) { Narrow(op.dt); }),
      Scan("of B that groups do not divide", [](S &op) { Narrow(op.b); }),
      Scan("of another C", [](S &op) { Narrow(op.c, 2); }),
      Scan("to another width", [](S &op) { Narrow(op.out); }),
      Scan("of a run that does not divide", [](S &op) { op.run = 3; }),
      Scan("of a run of 255", [](S &op) { op.run = 255; }),
      Scan("of limits out of order", [](S &op) { op.dt_least = op.dt_most + 1; }),
      Scan("of a limit of 2^31", [](S &op) { op.dt_most = 1u << 31; }),
      Scan("of limits of 2^32 - 1", [](S &op) { op.dt_least = op.dt_most = UINT32_MAX; }),
      Scan("in its own place", [](S &op) { *op.out = *op.x; }),
      ScanState("with a state of another type", [](auto &s) { s.dtype = schema::DType::S16; }),
      ScanState("with a state of fewer rows", [](auto &s) { s.rows -= 4; }),
      ScanState("with a state whose rows heads do not divide", [](auto &s) { ++s.rows; }),
      ScanState("with a state of fewer columns", [](auto &s) { --s.columns; }),
  });
}

TEST(EvilStateSpaces, States) {
  const auto state = [](const char *name, uint64_t index, const std::function<uint64_t(schema::StateT &)> &harm) {
    return GraphCase{name, "states", [=](ModelT &m) { return Where(index, harm(*m.states[index])); }};
  };
  ExpectAllRefused(Spec(), {
      state("a state too high", 1, [](auto &s) { s.rows = (1u << 20) + 4; return 0; }),
      state("a state too wide", 1, [](auto &s) { s.columns = (1u << 20) + 1; return 0; }),
      state("a state of 2^40 elements", 1, [](auto &s) { s.rows = s.columns = 1u << 20; return 0; }),
      state("a state without its prefix", 1, [](auto &s) { s.prefix = nullptr; return 0; }),
      state("a prefix of another size", 1, [](auto &s) {
        *s.prefix = schema::Ref(s.prefix->segment(), s.prefix->offset(), s.prefix->bytes() - 4);
        return s.prefix->offset();
      }),
      state("a prefix at 2^40", 0, [](auto &s) {
        *s.prefix = schema::Ref(s.prefix->segment(), uint64_t{1} << 40, s.prefix->bytes());
        return s.prefix->offset();
      }),
      state("a prefix whose end wraps around", 0, [](auto &s) {
        *s.prefix = schema::Ref(s.prefix->segment(), 0 - uint64_t{64}, s.prefix->bytes());
        return s.prefix->offset();
      }),
      state("a prefix among the weights", 1, [](auto &s) {
        *s.prefix = schema::Ref(1, s.prefix->offset(), s.prefix->bytes());
        return s.prefix->offset();
      }),
      {"two layers with one state", "body", [](ModelT &m) {
         const size_t second = IndexOf(m.body, Op::Conv, 1);
         m.body[second]->op.AsConv()->state = 0;
         return Where(second);
       }},
      {"states out of order", "body", [](ModelT &m) {
         const size_t second = IndexOf(m.body, Op::Scan, 1);
         m.body[second]->op.AsScan()->state = 1;
         m.body[IndexOf(m.body, Op::Scan)]->op.AsScan()->state = 3;
         return Where(second);
       }},
      {"a state of no step", "body", [](ModelT &m) {
         m.states.push_back(std::make_unique<schema::StateT>(*m.states.back()));
         return Where(IndexOf(m.body, Op::Scan, 1));
       }},
  });
  ModelSpec bare = Spec();
  bare.prefix_rows = 0;
  ExpectAllRefused(bare, {{"a prefix of a model without one", "states", [](ModelT &m) {
                             m.states[1]->prefix = std::make_unique<schema::Ref>(*m.body[1]->op.AsRmsNorm()->gamma);
                             return Where(1);
                           }}});
}

TEST(EvilStateSpaces, AStateIsWithinItsLimit) {
  const AlignedBytes file = BuildModel(Spec());
  const schema::ModelT model = *GraphOf(file);
  const schema::Ref &prefix = *model.states[3]->prefix;
  for (const uint32_t value : {1u << 30, 0x80000000u, 0xc0000000u}) {
    Bytes bytes = BytesOf(file);
    Put(&bytes, model.segments[prefix.segment()].offset() + prefix.offset() + prefix.bytes() - 4, value, 4);
    AlignedBytes bad(bytes);
    Reseal(&bad);
    ExpectRefused("a state of " + std::to_string(value), BytesOf(bad), {ACORN_ERR_INVALID, "states", 3});
  }
}

}  // namespace
}  // namespace acorn::test
