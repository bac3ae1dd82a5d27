// The rules of profiles (FORMAT.md, section 4), broken one at a time.
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "tests/evil/evil_file.h"

namespace acorn::test {
namespace {

using schema::Op;

ModelSpec SpecNamed(const std::string &name) {
  for (const ModelSpec &spec : ElasticSpecs()) {
    if (spec.name == name) return spec;
  }
  ADD_FAILURE() << name;
  return {};
}

schema::Slice Moved(const schema::Slice &slice, int value, int offset, int width) {
  return schema::Slice(static_cast<uint16_t>(slice.value() + value), slice.offset() + static_cast<uint32_t>(offset),
                       slice.width() + static_cast<uint32_t>(width));
}

/// The graph after `harm`, which says the index of the fault.
void ExpectRefused(const std::string &spec, const char *what, const char *section,
                   const std::function<uint64_t(schema::ModelT *)> &harm) {
  const AlignedBytes file = BuildModel(SpecNamed(spec));
  auto model = GraphOf(file);
  const uint64_t index = harm(model.get());
  test::ExpectRefused(spec + ", " + what, BytesOf(WithGraph(file, std::move(*model))), {ACORN_ERR_INVALID, section, index});
}

TEST(EvilProfiles, RatesRiseAndBodiesAreWhole) {
  ExpectRefused("elastic_dense", "a rate twice", "profiles", [](schema::ModelT *m) {
    m->profiles[1]->rate = m->profiles[0]->rate;
    return 1;
  });
  ExpectRefused("elastic_dense", "rates that fall", "profiles", [](schema::ModelT *m) {
    std::swap(m->profiles[0]->rate, m->profiles[1]->rate);
    return 1;
  });
  ExpectRefused("elastic_dense", "rate 0 again", "profiles", [](schema::ModelT *m) {
    m->profiles[0]->rate = 0;
    return 0;
  });
  ExpectRefused("elastic_dense", "a rate of 96", "profiles", [](schema::ModelT *m) {
    m->profiles[2]->rate = 96;
    return 2;
  });
  ExpectRefused("elastic_dense", "no body", "profiles", [](schema::ModelT *m) {
    m->profiles[1]->body.clear();
    return 1;
  });
  ExpectRefused("elastic_dense", "a step less", "profiles", [](schema::ModelT *m) {
    m->profiles[1]->body.pop_back();
    return 1;
  });
  ExpectRefused("elastic_dense", "17 bodies", "profiles", [](schema::ModelT *m) {
    while (m->profiles.size() < 16) m->profiles.push_back(std::make_unique<schema::ProfileT>(*m->profiles.back()));
    return 17;
  });
}

TEST(EvilProfiles, StepsAreThoseOfTheRateBelow) {
  const auto swapped = [](size_t profile, size_t a, size_t b) {
    return [=](schema::ModelT *m) {
      std::swap(m->profiles[profile]->body[a], m->profiles[profile]->body[b]);
      return profile * m->body.size() + std::max(a, b);  // the walk goes backwards
    };
  };
  const auto model = GraphOf(BuildModel(SpecNamed("elastic_dense")));
  ExpectRefused("elastic_dense", "steps out of order", "profile", swapped(1, IndexOf(model->body, Op::Linear), IndexOf(model->body, Op::Glu)));
  const auto at = [](schema::ModelT *m, size_t profile, Op type, size_t which = 0) {
    return m->profiles[profile]->body[IndexOf(m->body, type, which)].get();
  };
  ExpectRefused("elastic_dense", "another cache", "profile", [&](schema::ModelT *m) {
    at(m, 0, Op::Append, 1)->op.AsAppend()->cache = 0;
    return IndexOf(m->body, Op::Append, 1);
  });
  ExpectRefused("elastic_dense", "another weight", "profile", [&](schema::ModelT *m) {
    at(m, 2, Op::Linear, 4)->op.AsLinear()->weight = m->body[IndexOf(m->body, Op::Linear, 0)]->op.AsLinear()->weight;
    return 2 * m->body.size() + IndexOf(m->body, Op::Linear, 4);
  });
  ExpectRefused("elastic_dense", "another value", "profile", [&](schema::ModelT *m) {
    auto *add = at(m, 0, Op::Add)->op.AsAdd();
    std::swap(add->a, add->b);
    return IndexOf(m->body, Op::Add);
  });
  ExpectRefused("elastic_dense", "wider than at the rate below", "profile", [&](schema::ModelT *m) {
    // Rates 30 and 45 exchange their bodies.
    std::swap(m->profiles[1]->body, m->profiles[2]->body);
    return 2 * m->body.size() + IndexOf(m->body, Op::Linear, 7);  // the walk goes backwards
  });
  ExpectRefused("elastic_hybrid_experts", "more experts a token", "profile", [&](schema::ModelT *m) {
    at(m, 0, Op::Experts)->op.AsExperts()->top_k = 3;
    return IndexOf(m->body, Op::Experts);
  });
  ExpectRefused("elastic_state_space", "another state", "profile", [&](schema::ModelT *m) {
    at(m, 1, Op::Conv, 1)->op.AsConv()->state = 0;
    return m->body.size() + IndexOf(m->body, Op::Conv, 1);
  });
}

TEST(EvilProfiles, NothingIsReadThatNobodyWrote) {
  // Attention over more dimensions than this body's Append writes: the cache has them from another conversation.
  ExpectRefused("elastic_dense", "wider values than are written", "profile", [](schema::ModelT *m) {
    auto *append = m->profiles[0]->body[IndexOf(m->body, Op::Append)]->op.AsAppend();
    append->v = std::make_unique<schema::Slice>(Moved(*append->v, 0, 0, -2 * 32));
    return IndexOf(m->body, Op::Append);
  });
  // A gate that reads columns of a value which its writer leaves alone at this rate.
  ExpectRefused("elastic_dense", "columns of another rate", "profile", [](schema::ModelT *m) {
    auto *glu = m->profiles[0]->body[IndexOf(m->body, Op::Glu)]->op.AsGlu();
    glu->up = std::make_unique<schema::Slice>(Moved(*glu->up, 0, 32, 0));
    return 0;
  });
}

TEST(EvilProfiles, ColumnsOfAStateRiseAndAreThoseOfTheRateBelow) {
  const auto conv = [](schema::ModelT *m, size_t profile) {
    return m->profiles[profile]->body[IndexOf(m->body, Op::Conv)]->op.AsConv();
  };
  ExpectRefused("elastic_state_space", "columns that fall", "profile", [&](schema::ModelT *m) {
    std::swap(conv(m, 1)->columns[1], conv(m, 1)->columns[2]);
    return m->body.size() + IndexOf(m->body, Op::Conv);
  });
  ExpectRefused("elastic_state_space", "columns twice", "profile", [&](schema::ModelT *m) {
    conv(m, 1)->columns[2] = conv(m, 1)->columns[1];
    return m->body.size() + IndexOf(m->body, Op::Conv);
  });
  ExpectRefused("elastic_state_space", "columns that the rate below has not", "profile", [&](schema::ModelT *m) {
    schema::Run &run = conv(m, 2)->columns[1];
    run = schema::Run(run.first() + 31, run.count());
    return 2 * m->body.size() + IndexOf(m->body, Op::Conv);
  });
  ExpectRefused("elastic_state_space", "columns past the state", "profile", [&](schema::ModelT *m) {
    schema::Run &run = conv(m, 1)->columns.back();
    run = schema::Run(run.first() + 17, run.count());
    return m->body.size() + IndexOf(m->body, Op::Conv);
  });
}

TEST(EvilProfiles, SlicesOfExperts) {
  const AlignedBytes file = BuildModel(SpecNamed("elastic_experts"));
  const auto refused = [&](const char *what, const char *section, Where where, const std::function<void(schema::ModelT *)> &harm) {
    auto model = GraphOf(file);
    harm(model.get());
    test::ExpectRefused(std::string("elastic_experts, ") + what, BytesOf(WithGraph(file, std::move(*model))),
                        {ACORN_ERR_INVALID, section, where.index, where.offset});
  };
  const std::unique_ptr<schema::ModelT> whole = GraphOf(file);
  const schema::ExpertSetT &set = *whole->expert_sets[1];
  const uint64_t segment = whole->segments[set.segment].offset(), steps = whole->body.size();
  const auto at = [&](size_t record) { return segment + set.records[record].offset(); };
  const auto of_profile = [&](uint64_t profile) { return (profile - 1) * steps + IndexOf(whole->body, Op::Experts); };
  const Where first_step = IndexOf(whole->body, Op::Experts), second_step = IndexOf(whole->body, Op::Experts, 1);
  const auto move = [](schema::ExpertRecord *record, int64_t bytes) {
    *record = schema::ExpertRecord(record->offset() + static_cast<uint64_t>(bytes), record->checksum(), record->format(),
                                   record->down_format(), record->gate_shift(), record->up_shift(), record->down_shift());
  };
  const auto step = [](schema::ModelT *m, size_t profile) {
    const auto &body = profile == 0 ? m->body : m->profiles[profile - 1]->body;
    return body[IndexOf(body, Op::Experts)]->op.AsExperts();
  };
  refused("a slice without width", "experts", 1, [](schema::ModelT *m) { m->expert_sets[1]->slices[1] = 0; });
  refused("slices that are too narrow", "experts", 1, [](schema::ModelT *m) { m->expert_sets[1]->slices[2] = 32; });
  refused("slices that are too wide", "experts", 1, [](schema::ModelT *m) { m->expert_sets[1]->slices[0] = 96; });
  refused("widths that wrap around", "experts", 1, [](schema::ModelT *m) {
    m->expert_sets[1]->slices[0] = UINT32_MAX;
    m->expert_sets[1]->slices[1] = 97;
  });
  refused("17 slices", "experts", 1, [](schema::ModelT *m) {
    m->expert_sets[1]->slices.assign(17, 32);
    m->expert_sets[1]->records.resize(7 * 17, m->expert_sets[1]->records[0]);
  });
  refused("an expert with a slice less", "experts", 1, [](schema::ModelT *m) { m->expert_sets[1]->records.pop_back(); });
  refused("an expert less", "body", second_step, [](schema::ModelT *m) { m->expert_sets[1]->records.resize(6 * 3); });
  refused("a slice that no group divides", "expert", {0, set.records[0].offset()}, [](schema::ModelT *m) { m->expert_sets[1]->slices = {48, 48, 64}; });
  refused("a gap between slices", "expert", {1, at(1) + kSegmentAlignment}, [&](schema::ModelT *m) { move(&m->expert_sets[1]->records[1], kSegmentAlignment); });
  refused("slices in one place", "expert", {1, at(0)}, [&](schema::ModelT *m) {
    move(&m->expert_sets[1]->records[1], -int64_t{kSegmentAlignment});
  });
  refused("slices out of order", "expert", {4, at(3)}, [](schema::ModelT *m) {
    std::swap(m->expert_sets[1]->records[3], m->expert_sets[1]->records[4]);
  });
  refused("a slice past the end", "expert", {20, set.records[20].offset() + kSegmentAlignment}, [&](schema::ModelT *m) { move(&m->expert_sets[1]->records.back(), kSegmentAlignment); });
  refused("a slice before the beginning", "expert", {0, uint64_t{0} - kSegmentAlignment}, [&](schema::ModelT *m) {
    move(&m->expert_sets[1]->records[0], -int64_t{kSegmentAlignment});
  });
  refused("more slices than there are", "body", first_step, [&](schema::ModelT *m) { step(m, 0)->slices = 4; });
  refused("more slices than at the rate below", "profile", of_profile(3), [&](schema::ModelT *m) { step(m, 3)->slices = 3; });
  refused("all slices where the rate below has fewer", "profile", of_profile(3), [&](schema::ModelT *m) { step(m, 3)->slices = 0; });
  refused("slices that no block divides", "profile", of_profile(2), [&](schema::ModelT *m) {
    for (size_t profile = 0; profile < 4; ++profile) step(m, profile)->block = profile < 2 ? 32 : 64;
  });
}

}  // namespace
}  // namespace acorn::test
