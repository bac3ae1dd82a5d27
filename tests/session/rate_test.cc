// One file, many speeds: what a session at another rate computes, and what a switch of the rate leaves of a conversation.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/kv_cache.h"
#include "session/session.h"
#include "tests/support/model_builder.h"
#include "tests/support/model_session.h"
#include "tests/support/recorded_model.h"
#include "tests/support/thread_port.h"

namespace acorn::test {
namespace {

constexpr acorn_status kOk = ACORN_OK;

std::vector<int32_t> SomeTokens(const ModelSpec &spec, size_t count) {
  Random random(23);
  std::vector<int32_t> tokens(count);
  for (int32_t &token : tokens) token = static_cast<int32_t>(random.Between(0, spec.vocab_size - 1));
  return tokens;
}

std::vector<int32_t> Part(const std::vector<int32_t> &tokens, size_t begin, size_t end) {
  return {tokens.begin() + static_cast<int64_t>(begin), tokens.begin() + static_cast<int64_t>(end)};
}

ModelSession Opened(const AlignedBytes &file, uint32_t rate = 0, const acorn_port *port = nullptr, uint32_t chunk = 0) {
  acorn_options options = {};
  options.rate = rate;
  options.chunk_tokens = chunk;
  ModelSession session(file, options, port);
  EXPECT_EQ(session.status(), kOk) << acorn_status_text(session.status()) << " " << session.fault().section << " "
                                   << session.fault().index;
  return session;
}

std::vector<int32_t> LastLogits(ModelSession *session, const ModelSpec &spec) {
  const int32_t *logits = nullptr;
  EXPECT_EQ(acorn_session_logits(session->session(), &logits), kOk);
  return logits == nullptr ? std::vector<int32_t>() : std::vector<int32_t>(logits, logits + spec.vocab_size);
}

/// Adds a segment of constants while a graph is being changed, before those of experts.
class MoreConstants {
 public:
  explicit MoreConstants(const schema::ModelT &model) {
    while (index_ < model.segments.size() && model.segments[index_].kind() != schema::SegmentKind::Experts) ++index_;
  }
  template <typename T>
  std::unique_ptr<schema::Ref> Put(const std::vector<T> &values) {
    const size_t offset = Align(bytes_.size(), 64), count = values.size() * sizeof(T);
    bytes_.resize(offset + count);
    std::memcpy(bytes_.data() + offset, values.data(), count);
    return std::make_unique<schema::Ref>(index_, offset, count);
  }
  AlignedBytes File(const AlignedBytes &file, schema::ModelT *model) const {
    const uint64_t experts = LoadLittle64(file.data() + kHeaderExperts);
    const size_t begin = experts == 0 ? Align(file.size(), kSegmentAlignment) : experts, moved = Align(bytes_.size(), kSegmentAlignment);
    std::vector<uint8_t> longer(begin + (experts == 0 ? bytes_.size() : moved));
    std::memcpy(longer.data(), file.data(), experts == 0 ? file.size() : experts);
    std::memcpy(longer.data() + begin, bytes_.data(), bytes_.size());
    if (experts != 0) longer.insert(longer.end(), file.data() + experts, file.data() + file.size());
    for (size_t i = index_; i < model->segments.size(); ++i) {
      const schema::Segment &old = model->segments[i];
      model->segments[i] = schema::Segment(old.kind(), old.offset() + moved, old.bytes(), old.checksum());
    }
    for (const auto &set : model->expert_sets) ++set->segment;
    model->segments.insert(model->segments.begin() + index_, schema::Segment(schema::SegmentKind::Constants, begin, bytes_.size(),
                                                                             Checksum(bytes_.data(), bytes_.size())));
    WriteHeader(longer.data(), longer.size(), LoadLittle64(file.data() + kHeaderGraphBytes), experts == 0 ? 0 : experts + moved);
    return WithGraph(AlignedBytes(longer), std::move(*model));
  }

 private:
  static size_t Align(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }
  uint16_t index_ = 0;
  std::vector<uint8_t> bytes_;
};

/// The state of a convolution with its columns where the widest profile has them, and 0 between them.
std::vector<uint8_t> Spread(const ConvOp &op, const State &state, const uint8_t *kept) {
  std::vector<uint8_t> whole(StateBytes(state));
  for (uint32_t row = 0; row < state.rows; ++row) {
    uint8_t *to = whole.data() + size_t{row} * state.columns * sizeof(int16_t);
    const IndexRun all = {0, state.columns};
    for (const IndexRun &run : op.columns.empty() ? IndexRuns{&all, 1} : op.columns) {
      std::memcpy(to + run.first * sizeof(int16_t), kept, run.count * sizeof(int16_t));
      kept += run.count * sizeof(int16_t);
    }
  }
  return whole;
}

/// A file whose constant prefix is the prefix of `file` and what the session keeps of its conversation, at whatever rate.
AlignedBytes WithHistory(const AlignedBytes &file, ModelSession *opened) {
  const Session &session = *reinterpret_cast<const Session *>(opened->session());
  const Graph &graph = session.model->graph;
  auto model = GraphOf(file);
  MoreConstants constants(*model);
  const size_t rows = graph.prefix_tokens.size() + session.position;
  model->prefix_tokens.insert(model->prefix_tokens.end(), session.tokens.begin(), session.tokens.begin() + static_cast<std::ptrdiff_t>(session.position));
  model->max_context -= static_cast<uint32_t>(session.position);
  for (size_t i = 0; i < graph.caches.size(); ++i) {
    const Cache &cache = graph.caches[i];
    const size_t cache_rows = kv_cache::TokenRowsOf(session.model->extent, cache.window).all();
    const size_t head_bytes = kv_cache::HeadBytes(cache_rows, cache.head_dim, cache.bits);
    std::vector<int8_t> k, v;
    for (size_t row = 0; row < rows; ++row) {
      for (size_t head = 0; head < cache.kv_heads; ++head) {
        for (size_t d = 0; d < cache.head_dim; ++d) {
          k.push_back(static_cast<int8_t>(kv_cache::KeyAt(session.caches[i].k + head * head_bytes, row, d, cache.head_dim, cache.bits)));
          v.push_back(
              static_cast<int8_t>(kv_cache::ValueAt(session.caches[i].v + head * head_bytes, row, d, cache.head_dim, cache.bits)));
        }
      }
    }
    model->caches[i]->prefix_k = constants.Put(k);
    model->caches[i]->prefix_v = constants.Put(v);
  }
  for (const Step &step : graph.profiles[session.profile].body) {
    const uint32_t i = StateOf(step);
    if (i == kNoState) continue;
    const uint8_t *kept = session.states[i];
    model->states[i]->prefix = constants.Put(step.kind == OpKind::kConv
                                                 ? Spread(step.conv, graph.states[i], kept)
                                                 : std::vector<uint8_t>(kept, kept + StateBytes(graph.states[i])));
  }
  return constants.File(file, model.get());
}

class Rates : public testing::TestWithParam<ModelSpec> {
 protected:
  /// Of the experts at a rate: of as many as a token visits, if all were as long as the longest of their layer; of all.
  struct Bytes {
    uint64_t visited = 0, all = 0;
  };
  Bytes ExpertBytes(uint32_t rate) const {
    ModelSession session = Opened(file_, rate);
    Bytes bytes;
    acorn_expert_info info = {};
    for (uint32_t layer = 0; acorn_model_get_expert(session.model(), &info, layer, 0) == kOk; ++layer) {
      uint64_t longest = 0;
      for (uint32_t expert = 0; acorn_model_get_expert(session.model(), &info, layer, expert) == kOk; ++expert) {
        longest = std::max(longest, info.bytes);
        bytes.all += info.bytes;
      }
      bytes.visited += info.top_k * longest;
    }
    return bytes;
  }
  const ModelSpec &spec() const { return GetParam(); }
  const AlignedBytes file_ = BuildModel(GetParam());
  const std::vector<int32_t> tokens_ = SomeTokens(GetParam(), 24);
};

// Opened so, switched while empty, after a reset, after a rewind to the start; and a file of that rate alone.
TEST_P(Rates, AnEmptyConversationIsThatOfTheRateAlone) {
  const std::vector<int32_t> at_zero = Opened(file_).Score(tokens_);
  for (size_t i = 0; i < spec().profiles.size(); ++i) {
    const uint32_t rate = spec().profiles[i].rate;
    SCOPED_TRACE(rate);
    const std::vector<int32_t> expected = Opened(OneRateOf(file_, i)).Score(tokens_);
    EXPECT_NE(expected, at_zero);
    ModelSession opened = Opened(file_, rate);
    EXPECT_EQ(acorn_session_rate(opened.session()), rate);
    EXPECT_EQ(opened.Score(tokens_), expected);
    acorn_session_reset(opened.session());
    EXPECT_EQ(acorn_session_rate(opened.session()), rate);
    EXPECT_EQ(opened.Score(tokens_), expected);

    ModelSession switched = Opened(file_);
    ASSERT_EQ(acorn_session_set_rate(switched.session(), rate), kOk);
    EXPECT_EQ(switched.Score(tokens_), expected);
    ASSERT_EQ(acorn_session_rewind(switched.session(), 0), kOk);
    ASSERT_EQ(acorn_session_set_rate(switched.session(), 0), kOk);
    EXPECT_EQ(switched.Score(tokens_), at_zero);
    ASSERT_EQ(acorn_session_set_rate(switched.session(), rate), kOk);
    acorn_session_reset(switched.session());
    EXPECT_EQ(switched.Score(tokens_), expected);
  }
}

// What was computed before the switch stands in a file's constant prefix; the rest is fed at the new rate.
TEST_P(Rates, AHigherRateGoesOnFromWhatTheOldOneComputed) {
  if (!spec().windows.empty()) GTEST_SKIP() << "a prefix is seen for ever, tokens are not";
  std::vector<uint32_t> rates = {0};
  for (const ProfileSpec &profile : spec().profiles) rates.push_back(profile.rate);
  for (const size_t history : {size_t{1}, size_t{13}}) {
    for (size_t from = 0; from < rates.size(); ++from) {
      ModelSession kept = Opened(file_, rates[from]);
      kept.Score(Part(tokens_, 0, history));
      const AlignedBytes remembered = WithHistory(file_, &kept);
      for (size_t to = from + 1; to < rates.size(); ++to) {
        ModelSession switched = Opened(file_, rates[from]);
        switched.Score(Part(tokens_, 0, history));
        ASSERT_EQ(acorn_session_set_rate(switched.session(), rates[to]), kOk);
        EXPECT_EQ(switched.Score(Part(tokens_, history, tokens_.size())),
                  Opened(remembered, rates[to]).Score(Part(tokens_, history, tokens_.size())))
            << rates[from] << " to " << rates[to] << " after " << history;
      }
    }
  }
}

// What its tokens would leave behind, to the bit: at each rate, for any chunks, after a reset and after rewinds.
TEST_P(Rates, AConstantPrefixIsAConversationThatHasBeen) {
  if (!spec().windows.empty()) GTEST_SKIP() << "a prefix is seen for ever, tokens are not";
  for (size_t i = 0; i <= spec().profiles.size(); ++i) {
    const uint32_t rate = i == 0 ? 0 : spec().profiles[i - 1].rate;
    ModelSession kept = Opened(file_, rate);
    kept.Score(Part(tokens_, 0, 2));
    const AlignedBytes remembered = WithHistory(file_, &kept);
    const std::vector<int32_t> rest = Part(tokens_, 2, tokens_.size()), expected = kept.Score(rest);
    for (const uint32_t chunk : {0u, 1u, 3u}) {
      ModelSession session = Opened(remembered, rate, nullptr, chunk);
      EXPECT_EQ(session.Score(rest), expected) << rate << " " << chunk;
      acorn_session_reset(session.session());
      EXPECT_EQ(session.Score(rest), expected) << rate << " " << chunk;
      for (const size_t position : {size_t{5}, size_t{0}}) {
        ASSERT_EQ(acorn_session_rewind(session.session(), position), kOk);
        const std::vector<int32_t> again = session.Score(Part(rest, position, rest.size()));
        EXPECT_TRUE(std::equal(again.begin(), again.end(), expected.end() - static_cast<std::ptrdiff_t>(again.size()), expected.end()))
            << rate << " " << chunk << " " << position;
      }
    }
  }
}

// Rate by rate through the conversation: the same bits for any chunks, threads and kernels, and beside another session.
TEST_P(Rates, SwitchesAreTheSameHoweverTheyAreComputed) {
  const auto talk = [&](ModelSession *session) {
    std::vector<int32_t> all = session->Score(Part(tokens_, 0, 9));
    size_t begin = 9;
    for (const ProfileSpec &profile : spec().profiles) {
      EXPECT_EQ(acorn_session_set_rate(session->session(), profile.rate), kOk);
      const std::vector<int32_t> more = session->Score(Part(tokens_, begin, begin + 5));
      all.insert(all.end(), more.begin(), more.end());
      begin += 5;
    }
    return all;
  };
  ModelSession plain = Opened(file_);
  const std::vector<int32_t> expected = talk(&plain);
  for (const uint32_t features : FeatureLevels()) {
    for (const uint32_t threads : {1u, 2u}) {
      ThreadPort port(features, threads);
      ModelSession session = Opened(file_, 0, port.get(), threads == 1 ? 1 : 4);
      EXPECT_EQ(talk(&session), expected) << features << " " << threads;
    }
  }
}

TEST_P(Rates, ALowerRateAsksForTheConversationAnew) {
  const uint32_t rate = spec().profiles.back().rate;
  ModelSession session = Opened(file_, rate), same = Opened(file_, rate);
  const std::vector<int32_t> first = session.Score(Part(tokens_, 0, 8));
  EXPECT_EQ(same.Score(Part(tokens_, 0, 8)), first);
  const std::vector<int32_t> logits = LastLogits(&session, spec());
  EXPECT_EQ(acorn_session_set_rate(session.session(), 0), static_cast<acorn_status>(ACORN_ERR_REFILL));
  EXPECT_EQ(acorn_session_rate(session.session()), rate);
  EXPECT_EQ(acorn_session_position(session.session()), 8u);
  EXPECT_EQ(LastLogits(&session, spec()), logits);
  EXPECT_EQ(session.Score(Part(tokens_, 8, 16)), same.Score(Part(tokens_, 8, 16)));
  // Fed again, it is a conversation at rate 0 like any other.
  acorn_session_reset(session.session());
  ASSERT_EQ(acorn_session_set_rate(session.session(), 0), kOk);
  EXPECT_EQ(session.Score(tokens_), Opened(file_).Score(tokens_));
}

// What only caches keep is there after a rewind, at the rate that it was computed at; what states keep is computed once more.
TEST_P(Rates, ARewindRepeatsAtTheRateOfThatTime) {
  const uint32_t rate = spec().profiles.back().rate;
  const bool states = Opened(file_).plan().state_bytes != 0;
  ModelSession session = Opened(file_);
  session.Score(Part(tokens_, 0, 8));
  ASSERT_EQ(acorn_session_set_rate(session.session(), rate), kOk);
  const std::vector<int32_t> first = session.Score(Part(tokens_, 8, 16));
  ASSERT_EQ(acorn_session_rewind(session.session(), 8), kOk);
  const std::vector<int32_t> again = session.Score(Part(tokens_, 8, 16));
  if (!states) {
    EXPECT_EQ(again, first);
    ASSERT_EQ(acorn_session_rewind(session.session(), 8), kOk);
    EXPECT_EQ(acorn_session_set_rate(session.session(), 0), static_cast<acorn_status>(ACORN_ERR_REFILL));
    return;
  }
  ModelSession narrow = Opened(file_, rate), whole = Opened(file_);
  narrow.Score(Part(tokens_, 0, 8));
  EXPECT_EQ(again, narrow.Score(Part(tokens_, 8, 16)));
  ASSERT_EQ(acorn_session_rewind(session.session(), 8), kOk);
  ASSERT_EQ(acorn_session_set_rate(session.session(), 0), kOk);
  whole.Score(Part(tokens_, 0, 8));
  EXPECT_EQ(session.Score(Part(tokens_, 8, 16)), whole.Score(Part(tokens_, 8, 16)));
}

TEST_P(Rates, TheLastLogitsStay) {
  ModelSession session = Opened(file_);
  session.Score(Part(tokens_, 0, 5));
  const std::vector<int32_t> logits = LastLogits(&session, spec());
  ASSERT_EQ(acorn_session_set_rate(session.session(), spec().profiles.front().rate), kOk);
  EXPECT_EQ(LastLogits(&session, spec()), logits);
}

TEST_P(Rates, ARateThatTheFileLacksChangesNothing) {
  ModelSession session = Opened(file_);
  const std::vector<int32_t> first = session.Score(Part(tokens_, 0, 5));
  for (const uint32_t rate : {1u, 99u, UINT32_MAX}) {
    EXPECT_EQ(acorn_session_set_rate(session.session(), rate), static_cast<acorn_status>(ACORN_ERR_RATE));
    acorn_options options = {};
    options.rate = rate;
    const ModelSession refused(file_, options);
    EXPECT_EQ(refused.status(), static_cast<acorn_status>(ACORN_ERR_RATE));
    EXPECT_STREQ(refused.fault().section, "rate");
    EXPECT_EQ(refused.fault().index, rate);
  }
  EXPECT_EQ(acorn_session_set_rate(session.session(), 0), kOk);
  EXPECT_EQ(session.Score(Part(tokens_, 5, 9)), [&] {
    ModelSession other = Opened(file_);
    other.Score(Part(tokens_, 0, 5));
    return other.Score(Part(tokens_, 5, 9));
  }());
}

TEST_P(Rates, TheModelSaysWhichItHolds) {
  ModelSession session = Opened(file_);
  std::vector<uint32_t> expected = {0};
  for (const ProfileSpec &profile : spec().profiles) expected.push_back(profile.rate);
  size_t count = 0;
  uint32_t rates[16] = {};
  EXPECT_EQ(acorn_model_rates(session.model(), nullptr, 0, &count), static_cast<acorn_status>(ACORN_ERR_BUFFER));
  EXPECT_EQ(count, expected.size());
  ASSERT_EQ(acorn_model_rates(session.model(), rates, 16, &count), kOk);
  EXPECT_EQ(std::vector<uint32_t>(rates, rates + count), expected);
  EXPECT_EQ(session.plan().rates, expected.size());
}

// Each row against the widths that the model was built with.
TEST_P(Rates, ThePlanHasARowForEach) {
  const ModelSession session = Opened(file_);
  const acorn_image image{file_.data(), file_.size()};
  acorn_rate_plan before = {};
  for (size_t i = 0; i <= spec().profiles.size(); ++i) {
    acorn_rate_plan row = {};
    ASSERT_EQ(acorn_plan_rate(&row, nullptr, &image, nullptr, nullptr, i), kOk);
    const Widths widths = i == 0 ? Widths() : spec().profiles[i - 1].widths;
    const auto or_whole = [](uint32_t width, uint32_t whole) { return width == 0 ? whole : width; };
    uint64_t cache_bytes = 0, state_bytes = 0;
    for (uint32_t layer = 0; layer < spec().layers; ++layer) {
      if (spec().mixers[layer % spec().mixers.size()] == Mixer::kAttention) {
        cache_bytes += uint64_t{spec().kv_heads} * (or_whole(widths.k_dim, spec().head_dim) + or_whole(widths.v_dim, spec().head_dim)) *
                       spec().kv_bits / 8;
      } else {
        const uint64_t inner = uint64_t{spec().state_heads} * or_whole(widths.state_head_dim, spec().state_head_dim);
        const uint64_t n = or_whole(widths.state_columns, spec().state_columns);
        state_bytes += inner * n * 4 + (spec().taps - 1) * (inner + 2 * spec().state_groups * n) * 2;
      }
    }
    EXPECT_EQ(row.rate, i == 0 ? 0 : spec().profiles[i - 1].rate);
    EXPECT_EQ(row.cache_row_bytes, cache_bytes);
    EXPECT_EQ(row.state_bytes, state_bytes);
    // A token leaves out parts of the experts that it visits, and no token touches those parts of the others.
    const uint64_t left_out_of_experts = ExpertBytes(0).visited - ExpertBytes(row.rate).visited;
    const uint64_t untouched = row.left_out_bytes - left_out_of_experts + ExpertBytes(0).all - ExpertBytes(row.rate).all;
    EXPECT_EQ(row.resident_bytes, session.plan().block_bytes + file_.size() - untouched);
    if (i == 0) {
      EXPECT_EQ(row.left_out_bytes, 0u);
    } else {
      EXPECT_GT(row.left_out_bytes, before.left_out_bytes);
      EXPECT_EQ(row.prunable_bytes, before.prunable_bytes);
      EXPECT_EQ(row.weight_bytes + row.left_out_bytes, before.weight_bytes + before.left_out_bytes);
    }
    EXPECT_LT(row.left_out_bytes, row.prunable_bytes);
    before = row;
  }
  EXPECT_EQ(acorn_plan_rate(&before, nullptr, &image, nullptr, nullptr, spec().profiles.size() + 1),
            static_cast<acorn_status>(ACORN_ERR_ARGUMENT));
}

// The reference run is of rate 0, whatever the session's.
TEST_P(Rates, TheSelfTestPassesAtAnyRate) {
  const AlignedBytes file = Recorded(file_);
  acorn_options options = {};
  options.flags = ACORN_OPEN_TRACE;
  options.rate = spec().profiles.front().rate;
  ModelSession session(file, options);
  ASSERT_EQ(session.status(), kOk);
  const std::vector<int32_t> first = session.Score(tokens_);
  acorn_selftest_report report = {};
  ASSERT_EQ(acorn_session_selftest(session.session(), &report), kOk);
  EXPECT_EQ(report.passed, 1u);
  EXPECT_EQ(acorn_session_rate(session.session()), options.rate);
  EXPECT_EQ(session.Score(tokens_), first);
}

TEST(RatesOfSessions, OfOneModelSessionsEachHaveTheirOwn) {
  const ModelSpec spec = ElasticSpecs().front();
  const AlignedBytes file = BuildModel(spec);
  const std::vector<int32_t> tokens = SomeTokens(spec, 8);
  acorn_options options = {};
  options.max_sessions = 2;
  ModelSession first(file, options);
  acorn_session *second = nullptr;
  ASSERT_EQ(acorn_session_open(&second, first.model()), kOk);
  ASSERT_EQ(acorn_session_set_rate(second, spec.profiles[0].rate), kOk);
  std::vector<int32_t> narrow;
  const auto collect = [](void *ctx, size_t, const int32_t *row, size_t count) {
    auto *all = static_cast<std::vector<int32_t> *>(ctx);
    all->insert(all->end(), row, row + count);
    return 0;
  };
  std::vector<int32_t> whole = first.Score(Part(tokens, 0, 4));
  ASSERT_EQ(acorn_session_score(second, tokens.data(), tokens.size(), collect, &narrow), kOk);
  const std::vector<int32_t> rest = first.Score(Part(tokens, 4, 8));
  whole.insert(whole.end(), rest.begin(), rest.end());
  EXPECT_EQ(whole, Opened(file).Score(tokens));
  EXPECT_EQ(narrow, Opened(file, spec.profiles[0].rate).Score(tokens));
}

INSTANTIATE_TEST_SUITE_P(Specs, Rates, testing::ValuesIn(ElasticSpecs()),
                         [](const testing::TestParamInfo<ModelSpec> &spec) { return spec.param.name; });

}  // namespace
}  // namespace acorn::test
