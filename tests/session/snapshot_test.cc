// Snapshots: what is loaded goes on as what was saved, in any session of the same model; whatever else comes is refused and changes
// nothing.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "acorn_schema/file.h"
#include "acorn_schema/snapshot.h"
#include "session/session.h"
#include "tests/support/model_builder.h"
#include "tests/support/model_session.h"
#include "tests/support/thread_port.h"

namespace acorn::test {
namespace {

constexpr acorn_status kOk = ACORN_OK;
using Bytes = std::vector<uint8_t>;
using Ids = std::vector<int32_t>;

Ids SomeTokens(const ModelSpec &spec, size_t count) {
  Random random(29);
  Ids tokens(count);
  for (int32_t &token : tokens) token = static_cast<int32_t>(random.Between(0, spec.vocab_size - 1));
  return tokens;
}

Ids Part(const Ids &tokens, size_t begin, size_t end) {
  return {tokens.begin() + static_cast<int64_t>(begin), tokens.begin() + static_cast<int64_t>(end)};
}

ModelSession Opened(const AlignedBytes &file, uint32_t context = 0, uint32_t chunk = 0, const acorn_port *port = nullptr) {
  acorn_options options = {};
  options.context_tokens = context;
  options.chunk_tokens = chunk;
  ModelSession session(file, options, port);
  EXPECT_EQ(session.status(), kOk) << acorn_status_text(session.status()) << " " << session.fault().section;
  return session;
}

Bytes Saved(acorn_session *session) {
  // At an odd address, in a buffer of exactly that size.
  Bytes bytes(acorn_session_snapshot_bytes(session) + 1, 0x5a);
  EXPECT_EQ(acorn_session_save(session, bytes.data() + 1, bytes.size() - 1), kOk);
  bytes.erase(bytes.begin());
  return bytes;
}

acorn_status Loaded(acorn_session *session, const Bytes &bytes) { return acorn_session_load(session, bytes.data(), bytes.size()); }

Ids LogitsOf(acorn_session *session, const ModelSpec &spec) {
  const int32_t *logits = nullptr;
  if (acorn_session_logits(session, &logits) != kOk) return {};
  return {logits, logits + spec.vocab_size};
}

Ids TokensOf(acorn_session *session) {
  const int32_t *tokens = acorn_session_tokens(session);
  return {tokens, tokens + acorn_session_position(session)};
}

void PutWord(Bytes *snapshot, size_t offset, uint32_t word) { std::memcpy(snapshot->data() + offset, &word, sizeof word); }

/// The checksums that fit the content.
Bytes Resealed(Bytes snapshot) {
  const uint64_t body = WideChecksum(snapshot.data() + kSnapshotHeaderBytes, snapshot.size() - kSnapshotHeaderBytes);
  std::memcpy(snapshot.data() + kSnapshotBodyChecksumAt, &body, sizeof body);
  const uint64_t header = Checksum(snapshot.data(), kSnapshotHeaderChecksumAt);
  std::memcpy(snapshot.data() + kSnapshotHeaderChecksumAt, &header, sizeof header);
  return snapshot;
}

std::vector<ModelSpec> AllSpecs() {
  std::vector<ModelSpec> specs = VariedSpecs();
  for (const ModelSpec &spec : ElasticSpecs()) specs.push_back(spec);
  return specs;
}

#if defined(ACORN_EMULATED)  // each takes seconds there: one of each kind
std::vector<ModelSpec> SomeSpecs() {
  std::vector<ModelSpec> specs;
  for (const ModelSpec &spec : AllSpecs()) {
    for (const char *name : {"w8_narrow_odd_widths", "w8_kv4", "state_space_hybrid_experts", "elastic_dense"}) {
      if (spec.name == name) specs.push_back(spec);
    }
  }
  return specs;
}
constexpr size_t kBitStep = 61;
#else
std::vector<ModelSpec> SomeSpecs() { return AllSpecs(); }
#if !defined(__has_feature)  // Clang's way to tell of a sanitizer; GCC's is a macro
#define __has_feature(feature) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
constexpr size_t kBitStep = 7;  // every one of the largest takes a minute and a half with Clang's; each place of a byte has its turn
#else
constexpr size_t kBitStep = 1;
#endif
#endif

class Snapshots : public testing::TestWithParam<ModelSpec> {
 protected:
  const ModelSpec &spec() const { return GetParam(); }
  const AlignedBytes file_ = BuildModel(GetParam());
  const Ids tokens_ = SomeTokens(GetParam(), 22);
};

// At every length, into a session of another context and chunk that has talked of something else.
TEST_P(Snapshots, EveryLengthGoesOnAsIfNothingHadBeen) {
  const ModelSpec spec = this->spec();
  ModelSession whole = Opened(file_), saved = Opened(file_), other = Opened(file_, 25, 3);
  const Ids logits = whole.Score(tokens_);
  for (size_t length = 0; length < tokens_.size(); ++length) {
    SCOPED_TRACE(length);
    const Bytes snapshot = Saved(saved.session());
    ASSERT_EQ(Loaded(other.session(), snapshot), kOk);
    EXPECT_EQ(TokensOf(other.session()), Part(tokens_, 0, length));
    EXPECT_EQ(LogitsOf(other.session(), spec), LogitsOf(saved.session(), spec));
    EXPECT_EQ(Saved(other.session()), snapshot);
    const size_t row = length * spec.vocab_size;
    ASSERT_EQ(other.Score(Part(tokens_, length, tokens_.size())), Part(logits, row, logits.size()));
    ASSERT_EQ(acorn_session_decode(saved.session(), nullptr, tokens_[length]), kOk);
  }
}

// One conversation, one snapshot: whatever computed it, and whatever the memory held before.
TEST_P(Snapshots, BytesDependOnTheConversationAlone) {
  ModelSession first = Opened(file_);
  first.Score(tokens_);
  const Bytes snapshot = Saved(first.session());
  first.Score(Ids(20, tokens_[1]));
  acorn_session_reset(first.session());
  first.Score(tokens_);
  EXPECT_EQ(Saved(first.session()), snapshot);
  for (const uint32_t features : FeatureLevels()) {
    ThreadPort port(features, 2);
    ModelSession session = Opened(file_, 40, 5, port.get());
    session.Score(tokens_);
    EXPECT_EQ(Saved(session.session()), snapshot) << features;
    acorn_session_reset(session.session());
    ASSERT_EQ(Loaded(session.session(), snapshot), kOk);
    EXPECT_EQ(session.Score(Part(tokens_, 3, 9)), [&] {
      ModelSession same = Opened(file_);
      same.Score(tokens_);
      return same.Score(Part(tokens_, 3, 9));
    }()) << features;
  }
}

// A rewind before saving, and one after loading.
TEST_P(Snapshots, RewindsGoOnToo) {
  ModelSession whole = Opened(file_), saved = Opened(file_), loaded = Opened(file_, 24, 4);
  const Ids logits = whole.Score(tokens_);
  const Ids tail = Part(logits, size_t{9} * spec().vocab_size, logits.size());
  saved.Score(Part(tokens_, 0, 14));
  ASSERT_EQ(acorn_session_rewind(saved.session(), 9), kOk);
  const Bytes snapshot = Saved(saved.session());
  ASSERT_EQ(Loaded(loaded.session(), snapshot), kOk);
  EXPECT_EQ(LogitsOf(loaded.session(), spec()), Ids());
  EXPECT_EQ(Saved(loaded.session()), snapshot);
  EXPECT_EQ(loaded.Score(Part(tokens_, 9, tokens_.size())), tail);
  EXPECT_EQ(saved.Score(Part(tokens_, 9, tokens_.size())), tail);
  const Bytes longer = Saved(saved.session());
  ASSERT_EQ(Loaded(loaded.session(), longer), kOk);
  if (!spec().windows.empty() && loaded.plan().state_bytes == 0) {  // what only token 9 would see again is not in it
    EXPECT_EQ(acorn_session_rewind(loaded.session(), 9), static_cast<acorn_status>(ACORN_ERR_REFILL));
    EXPECT_EQ(Saved(loaded.session()), longer);
    return;
  }
  ASSERT_EQ(acorn_session_rewind(loaded.session(), 9), kOk);
  EXPECT_EQ(loaded.Score(Part(tokens_, 9, tokens_.size())), tail);
}

// The reset that follows is one of the model: nothing of a snapshot outlives it, the constant prefix neither.
TEST_P(Snapshots, AResetForgetsThem) {
  ModelSession session = Opened(file_), fresh = Opened(file_);
  session.Score(tokens_);
  Bytes snapshot = Saved(session.session());
  acorn_session_reset(session.session());
  ASSERT_EQ(Loaded(session.session(), snapshot), kOk);
  acorn_session_reset(session.session());
  EXPECT_EQ(Saved(session.session()), Saved(fresh.session()));
  EXPECT_EQ(session.Score(tokens_), fresh.Score(tokens_));
}

INSTANTIATE_TEST_SUITE_P(Session, Snapshots, testing::ValuesIn(SomeSpecs()), [](const auto &param) { return param.param.name; });

class RateSnapshots : public Snapshots {};

// Rows of several rates beside each other; the rate comes with the conversation.
TEST_P(RateSnapshots, TheRateComesToo) {
  std::vector<uint32_t> rates = {0};
  for (const ProfileSpec &profile : spec().profiles) rates.push_back(profile.rate);
  for (size_t from = 0; from < rates.size(); ++from) {
    for (size_t to = from; to < rates.size(); ++to) {
      SCOPED_TRACE(std::to_string(rates[from]) + " to " + std::to_string(rates[to]));
      ModelSession saved = Opened(file_), loaded = Opened(file_, 30, 4);
      ASSERT_EQ(acorn_session_set_rate(saved.session(), rates[from]), kOk);
      saved.Score(Part(tokens_, 0, 5));
      ASSERT_EQ(acorn_session_set_rate(saved.session(), rates[to]), kOk);
      saved.Score(Part(tokens_, 5, 11));
      ASSERT_EQ(acorn_session_set_rate(loaded.session(), rates.back()), kOk);
      loaded.Score(Part(tokens_, 2, 8));
      const Bytes snapshot = Saved(saved.session());
      ASSERT_EQ(Loaded(loaded.session(), snapshot), kOk);
      EXPECT_EQ(acorn_session_rate(loaded.session()), rates[to]);
      EXPECT_EQ(Saved(loaded.session()), snapshot);
      const acorn_status back = to == 0 ? ACORN_OK : ACORN_ERR_REFILL;
      EXPECT_EQ(acorn_session_set_rate(loaded.session(), 0), back);
      for (ModelSession *session : {&saved, &loaded}) ASSERT_EQ(acorn_session_set_rate(session->session(), rates.back()), kOk);
      EXPECT_EQ(loaded.Score(Part(tokens_, 11, 20)), saved.Score(Part(tokens_, 11, 20)));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Session, RateSnapshots, testing::ValuesIn(ElasticSpecs()),
                         [](const auto &param) { return param.param.name; });

ModelSpec SpecNamed(const std::string &name) {
  for (const ModelSpec &spec : AllSpecs()) {
    if (spec.name == name) return spec;
  }
  ADD_FAILURE() << name;
  return {};
}

// Of 8 and of 4 bits, with states alone and beside caches; small, so that every bit can have its turn.
class HostileSnapshots : public testing::TestWithParam<const char *> {
 protected:
  HostileSnapshots() {
    victim_.Score({5, 4, 3, 2, 1});
    before_ = Saved(victim_.session());
    ModelSession saved = Opened(file_);
    saved.Score({1, 2});
    snapshot_ = Saved(saved.session());
  }
  ~HostileSnapshots() override {
    // Still usable, and with the bits of a session that nobody has bothered.
    ModelSession calm = Opened(file_);
    calm.Score({5, 4, 3, 2, 1});
    EXPECT_EQ(victim_.Score({6, 7, 8}), calm.Score({6, 7, 8}));
  }
  /// Its status, when nothing has changed.
  acorn_status Refused(const Bytes &snapshot) {
    const acorn_status status = Loaded(victim_.session(), snapshot);
    EXPECT_NE(status, kOk);
    EXPECT_EQ(Saved(victim_.session()), before_);
    return status;
  }
  Bytes With(size_t offset, uint32_t word) const {
    Bytes changed = snapshot_;
    PutWord(&changed, offset, word);
    return Resealed(std::move(changed));
  }
  const Graph &graph() const { return reinterpret_cast<const Session *>(victim_.session())->model->graph; }

  ModelSpec spec_ = SpecNamed(GetParam());
  AlignedBytes file_ = BuildModel(spec_);
  mutable ModelSession victim_ = Opened(file_);
  Bytes before_, snapshot_;
};

TEST_P(HostileSnapshots, EveryFlippedBitIsFound) {
  for (size_t bit = 0; bit < 8 * snapshot_.size(); bit += kBitStep) {
    Bytes flipped = snapshot_;
    flipped[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    const acorn_status status = Refused(flipped);
    const acorn_status expected = bit < 64 ? ACORN_ERR_FOREIGN : bit < 96 ? ACORN_ERR_VERSION : ACORN_ERR_DAMAGED;
    ASSERT_EQ(status, expected) << bit;
  }
}

TEST_P(HostileSnapshots, EveryLengthButItsOwnIsRefused) {
  EXPECT_EQ(acorn_session_load(victim_.session(), snapshot_.data(), 0), static_cast<acorn_status>(ACORN_ERR_FOREIGN));
  for (size_t bytes = 1; bytes < snapshot_.size(); ++bytes) {
    const acorn_status expected = bytes < 8 ? ACORN_ERR_FOREIGN : ACORN_ERR_TRUNCATED;
    ASSERT_EQ(Refused({snapshot_.begin(), snapshot_.begin() + static_cast<int64_t>(bytes)}), expected) << bytes;
  }
  Bytes longer = snapshot_;
  longer.push_back(0);
  EXPECT_EQ(Refused(longer), static_cast<acorn_status>(ACORN_ERR_INVALID));
  longer.resize(snapshot_.size() + 64);
  EXPECT_EQ(Refused(Resealed(longer)), static_cast<acorn_status>(ACORN_ERR_INVALID));
}

// With checksums that fit: counts and sizes of every magnitude, more than there is, fewer than there are.
TEST_P(HostileSnapshots, FieldsThatLieAreFound) {
  const uint32_t words[] = {0, 1, 3, 64, 0x7fff, 0x10000, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};
  const uint32_t fields[] = {kSnapshotRateAt, kSnapshotTokensAt, kSnapshotTokensAt + 4, kSnapshotBehindAt, kSnapshotLogitsAt};
  for (const uint32_t field : fields) {
    for (const uint32_t word : words) {
      if (word == LoadLittle32(snapshot_.data() + field)) continue;
      if (field == kSnapshotTokensAt && (word == 1 || word == 3)) continue;  // padding is the id and the row 0 too
      // Of two tokens one: states that have seen fewer than there are will see the conversation again.
      if (field == kSnapshotBehindAt && word == 1 && !graph().states.empty()) continue;
      const Bytes changed = With(field, word);
      EXPECT_EQ(Refused(changed), static_cast<acorn_status>(ACORN_ERR_INVALID)) << field << " " << word;
    }
  }
  const uint64_t bytes = snapshot_.size();
  for (const uint64_t size : {uint64_t{0}, uint64_t{1}, uint64_t{63}, bytes - 64, bytes - 1, bytes + 1, bytes + 64, bytes << 32,
                              uint64_t{1} << 31, (uint64_t{1} << 32) - 1, (uint64_t{1} << 63) - 1, UINT64_MAX}) {
    Bytes changed = snapshot_;
    std::memcpy(changed.data() + kSnapshotBytesAt, &size, sizeof size);
    EXPECT_EQ(Refused(Resealed(changed)), static_cast<acorn_status>(ACORN_ERR_INVALID)) << size;
  }
  EXPECT_EQ(Refused(With(kSnapshotModelAt, 1)), static_cast<acorn_status>(ACORN_ERR_OTHER_MODEL));
  EXPECT_EQ(Refused(With(kSnapshotVersionAt, kSnapshotVersion + 1)), static_cast<acorn_status>(ACORN_ERR_VERSION));
  // More tokens than there are, and behind all of them.
  Bytes more = With(kSnapshotTokensAt, 0x80000002);
  PutWord(&more, kSnapshotBehindAt, 0x80000002);
  EXPECT_EQ(Refused(Resealed(more)), static_cast<acorn_status>(ACORN_ERR_INVALID));
  EXPECT_EQ(Refused(With(kSnapshotTokensAt, spec_.max_context)), static_cast<acorn_status>(ACORN_ERR_INVALID));
}

// With checksums that fit: what no kernel writes, at the beginning and at the end of each part. Offsets are those of
// docs/SNAPSHOTS.md.
TEST_P(HostileSnapshots, ContentThatNobodyComputesIsFound) {
  const auto padded = [](uint64_t bytes) { return (bytes + 63) / 64 * 64; };
  const auto refuse = [&](uint64_t offset, uint64_t bytes, std::vector<uint32_t> words, size_t word_bytes) {
    for (const uint32_t word : words) {
      for (const uint64_t at : {offset, offset + bytes - word_bytes}) {
        Bytes changed = snapshot_;
        std::memcpy(changed.data() + at, &word, word_bytes);
        EXPECT_EQ(Refused(Resealed(changed)), static_cast<acorn_status>(ACORN_ERR_INVALID)) << at << " " << word;
      }
    }
  };
  uint64_t offset = 64;
  refuse(offset, 2 * 4, {spec_.vocab_size, 0x7fffffff, 0x80000000, 0xffffffff}, 4);
  offset += padded(2 * 4) + padded(spec_.vocab_size * 4);
  for (const Step &step : graph().body) {
    if (step.kind == OpKind::kAppend) {
      const Cache &cache = graph().caches[step.append.cache];
      for (const bool keys : {true, false}) {
        const uint64_t dim = keys ? step.append.k_dim : step.append.v_dim;
        const uint64_t bytes = cache.kv_heads * 16 * ((dim + 15) / 16 * 16) * cache.bits / 8;
        if (cache.bits == 4) {
          refuse(offset, bytes, {0x00, 0x07, 0x70}, 1);
        } else {
          refuse(offset, bytes, {keys ? 0x00u : 0x80u}, 1);
        }
        offset += padded(bytes);
      }
    } else if (step.kind == OpKind::kConv) {
      offset += padded(uint64_t{step.conv.taps - 1} * step.conv.in.width * 2);
    } else if (step.kind == OpKind::kScan) {
      const State &state = graph().states[step.scan.state];
      const uint64_t bytes = uint64_t{state.rows} * state.columns * 4;
      refuse(offset, bytes, {1u << 30, 0x7fffffff, 0x80000000, 0xc0000000}, 4);
      offset += padded(bytes);
    }
  }
  EXPECT_EQ(offset, snapshot_.size());
}

INSTANTIATE_TEST_SUITE_P(Session, HostileSnapshots,
                         testing::Values("w8_narrow_odd_widths", "w8_kv4", "state_space_odd_widths", "profile_state_space"),
                         [](const auto &param) { return std::string(param.param); });

TEST(Snapshot, AContextThatIsTooShortRefusesIt) {
  const ModelSpec spec = SpecNamed("w8_plain");
  const AlignedBytes file = BuildModel(spec);
  ModelSession saved = Opened(file), tight = Opened(file, 10), small = Opened(file, 9);
  saved.Score(SomeTokens(spec, 10));
  const Bytes snapshot = Saved(saved.session());
  small.Score({1, 2, 3});
  const Bytes before = Saved(small.session());
  EXPECT_EQ(Loaded(small.session(), snapshot), static_cast<acorn_status>(ACORN_ERR_CONTEXT_FULL));
  EXPECT_EQ(Saved(small.session()), before);
  // The first bytes are enough to say so.
  EXPECT_EQ(acorn_session_load(small.session(), snapshot.data(), 64), static_cast<acorn_status>(ACORN_ERR_CONTEXT_FULL));
  ASSERT_EQ(Loaded(tight.session(), snapshot), kOk);
  EXPECT_EQ(LogitsOf(tight.session(), spec), LogitsOf(saved.session(), spec));
  EXPECT_EQ(acorn_session_decode(tight.session(), nullptr, 1), static_cast<acorn_status>(ACORN_ERR_CONTEXT_FULL));
}

TEST(Snapshot, AnotherModelRefusesIt) {
  ModelSpec spec = SpecNamed("w8_plain");
  ModelSession saved = Opened(BuildModel(spec));
  saved.Score({1, 2});
  const Bytes snapshot = Saved(saved.session());
  ++spec.seed;  // of the same shapes
  ModelSession other = Opened(BuildModel(spec));
  EXPECT_EQ(Saved(other.session()).size() < snapshot.size(), true);
  EXPECT_EQ(Loaded(other.session(), snapshot), static_cast<acorn_status>(ACORN_ERR_OTHER_MODEL));
  EXPECT_EQ(acorn_session_position(other.session()), 0u);
}

TEST(Snapshot, ASmallBufferStaysAsItWas) {
  ModelSession session = Opened(BuildModel(SpecNamed("w8_plain")));
  session.Score({1, 2, 3});
  const size_t need = acorn_session_snapshot_bytes(session.session());
  Bytes buffer(need + 64, 0x77);
  EXPECT_EQ(acorn_session_save(session.session(), buffer.data(), need - 1), static_cast<acorn_status>(ACORN_ERR_BUFFER));
  EXPECT_EQ(acorn_session_save(session.session(), buffer.data(), 0), static_cast<acorn_status>(ACORN_ERR_BUFFER));
  EXPECT_EQ(buffer, Bytes(need + 64, 0x77));
  ASSERT_EQ(acorn_session_save(session.session(), buffer.data(), buffer.size()), kOk);
  EXPECT_EQ(Bytes(buffer.begin() + static_cast<int64_t>(need), buffer.end()), Bytes(64, 0x77));
  EXPECT_EQ(acorn_session_snapshot_bytes(nullptr), 0u);
  EXPECT_EQ(acorn_session_save(nullptr, buffer.data(), need), static_cast<acorn_status>(ACORN_ERR_ARGUMENT));
  EXPECT_EQ(acorn_session_save(session.session(), nullptr, need), static_cast<acorn_status>(ACORN_ERR_ARGUMENT));
  EXPECT_EQ(acorn_session_load(nullptr, buffer.data(), need), static_cast<acorn_status>(ACORN_ERR_ARGUMENT));
  EXPECT_EQ(acorn_session_load(session.session(), nullptr, need), static_cast<acorn_status>(ACORN_ERR_ARGUMENT));
}

// Tokens are drawn as if the generation had never been left, which a callback may do at any of them.
TEST(Snapshot, AGenerationGoesOn) {
  struct Diary {
    acorn_session *session;
    Ids ids;
    std::vector<Bytes> snapshots;
  };
  const auto generate = [](acorn_session *session, uint32_t count) {
    Diary diary = {session, {}, {}};
    acorn_generation generation = {};
    generation.struct_size = sizeof generation;
    generation.max_tokens = count;
    generation.sampling.struct_size = sizeof generation.sampling;
    generation.sampling.temperature_q16 = 65536;
    generation.sampling.top_k = 40;
    generation.sampling.repetition_penalty_q16 = 80000;
    generation.sampling.repetition_window = 6;
    generation.sampling.seed = 11;
    generation.ctx = &diary;
    generation.callback = [](void *ctx, int32_t token, const char *, size_t) {
      auto *out = static_cast<Diary *>(ctx);
      out->ids.push_back(token);
      out->snapshots.push_back(Saved(out->session));
      return 0;
    };
    EXPECT_EQ(acorn_session_generate(session, nullptr, nullptr, &generation), kOk);
    return diary;
  };
  for (const char *name : {"w4g32_tied_groups", "state_space_hybrid"}) {
    const AlignedBytes file = BuildModel(SpecNamed(name));
    ModelSession whole = Opened(file), loaded = Opened(file);
    whole.Score({3, 1, 4, 1, 5});
    const Diary diary = generate(whole.session(), 12);
    for (size_t i = 0; i + 1 < diary.ids.size(); ++i) {
      ASSERT_EQ(Loaded(loaded.session(), diary.snapshots[i]), kOk);
      const Diary rest = generate(loaded.session(), static_cast<uint32_t>(diary.ids.size() - i - 1));
      EXPECT_EQ(rest.ids, Part(diary.ids, i + 1, diary.ids.size())) << name << " " << i;
      EXPECT_EQ(rest.snapshots.back(), diary.snapshots.back());
    }
  }
}

// Experts in memory are no part of a conversation.
TEST(Snapshot, ExpertsMayStreamOnOneSideAlone) {
  const ModelSpec spec = SpecNamed("experts_w4g32");
  const AlignedBytes file = BuildModel(spec);
  const Ids tokens = SomeTokens(spec, 16);
  acorn_port port = {};
  port.struct_size = sizeof port;
  port.ctx = const_cast<AlignedBytes *>(&file);
  port.read = [](void *ctx, void *to, uint64_t offset, size_t bytes) {
    const auto &source = *static_cast<const AlignedBytes *>(ctx);
    if (offset > source.size() || bytes > source.size() - offset) return 1;
    std::memcpy(to, source.data() + offset, bytes);
    return 0;
  };
  acorn_options options = {};
  options.expert_cache_bytes = 64 * 1024;
  ModelSession streaming(file, options, &port), resident = Opened(file), whole = Opened(file);
  ASSERT_EQ(streaming.status(), kOk);
  ASSERT_NE(streaming.plan().expert_slots, 0u);
  const Ids logits = whole.Score(tokens);
  streaming.Score(Part(tokens, 0, 7));
  const Bytes snapshot = Saved(streaming.session());
  ASSERT_EQ(Loaded(resident.session(), snapshot), kOk);
  EXPECT_EQ(resident.Score(Part(tokens, 7, 16)), Part(logits, size_t{7} * spec.vocab_size, logits.size()));
  ASSERT_EQ(Loaded(streaming.session(), snapshot), kOk);
  EXPECT_EQ(streaming.Score(Part(tokens, 7, 16)), Part(logits, size_t{7} * spec.vocab_size, logits.size()));
}

// A request to stop that nobody has taken, and the figures of what was before, end with the conversation.
TEST(Snapshot, LoadingStartsAnewWhatAResetDoes) {
  ModelSession session = Opened(BuildModel(SpecNamed("w8_plain")));
  ASSERT_EQ(acorn_session_decode(session.session(), nullptr, 4), kOk);
  const Bytes snapshot = Saved(session.session());
  acorn_session_cancel(session.session());
  ASSERT_EQ(Loaded(session.session(), snapshot), kOk);
  acorn_timings timings = {};
  ASSERT_EQ(acorn_session_timings(session.session(), &timings), kOk);
  EXPECT_EQ(timings.decode_tokens, 0u);
  EXPECT_EQ(acorn_session_decode(session.session(), nullptr, 4), kOk);
}

}  // namespace
}  // namespace acorn::test
