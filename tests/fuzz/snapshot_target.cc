// A snapshot by anybody, its checksums right or wrong, into a session of a small model: refused without a trace, or a conversation
// that goes on. An input is a snapshot; the model that it names takes it, or the first one.
#include <memory>

#include "acorn.h"
#include "acorn_schema/file.h"
#include "acorn_schema/snapshot.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/snapshot_models.h"

namespace acorn::fuzz {
namespace {

std::vector<uint8_t> Saved(acorn_session *session) {
  const ExactBytes bytes(acorn_session_snapshot_bytes(session), 8);
  Require(acorn_session_save(session, bytes.data(), bytes.size()) == ACORN_OK, "a session is saved");
  return {bytes.data(), bytes.data() + bytes.size()};
}

class Opened {
 public:
  explicit Opened(const test::ModelSpec &spec) : file_(test::BuildModel(spec)) {
    const acorn_image image = {file_.data(), file_.size()};
    acorn_options options = {};
    options.struct_size = sizeof options;
    options.context_tokens = SnapshotContext(spec);
    acorn_memory_plan plan = {};
    plan.struct_size = sizeof plan;
    Require(acorn_plan(&plan, nullptr, &image, &options, nullptr) == ACORN_OK, "a sound model's plan");
    block_ = std::make_unique<ExactBytes>(plan.block_bytes, 64);
    acorn_model *model = nullptr;
    Require(acorn_model_open(&model, nullptr, &image, &options, nullptr, block_->data(), block_->size()) == ACORN_OK, "a sound model");
    Require(acorn_session_open(&session_, model) == ACORN_OK, "its session");
    constexpr int32_t kTokens[] = {1, 2, 3};
    Require(acorn_session_prefill(session_, kTokens, 3) == ACORN_OK, "a short prompt");
    start_ = Saved(session_);
  }
  uint64_t checksum() const { return LoadLittle64(file_.data() + kHeaderChecksum); }
  acorn_session *session() const { return session_; }
  /// The session after a short prompt.
  const std::vector<uint8_t> &start() const { return start_; }

 private:
  test::AlignedBytes file_;
  std::unique_ptr<ExactBytes> block_;
  acorn_session *session_ = nullptr;
  std::vector<uint8_t> start_;
};

const std::vector<std::unique_ptr<Opened>> &Models() {
  static std::vector<std::unique_ptr<Opened>> models;
  if (models.empty()) {
    for (const test::ModelSpec &spec : SnapshotSpecs()) models.push_back(std::make_unique<Opened>(spec));
  }
  return models;
}

void RunSnapshot(const Opened &model, const ExactBytes &snapshot) {
  acorn_session *session = model.session();
  const std::vector<uint8_t> &before = model.start();
  Require(acorn_session_load(session, before.data(), before.size()) == ACORN_OK, "a sound snapshot");
  const acorn_status status = acorn_session_load(session, snapshot.data(), snapshot.size());
  const std::vector<uint8_t> after = Saved(session);
  if (status != ACORN_OK) {
    Require(before == after, "a refused snapshot leaves the session as it was");
    return;
  }
  Require(after.size() == snapshot.size(), "a session of the snapshot's size");
  Require(acorn_session_load(session, after.data(), after.size()) == ACORN_OK && Saved(session) == after, "a session is what was saved");
  const uint64_t position = acorn_session_position(session);
  const acorn_status decoded = acorn_session_decode(session, nullptr, 1);
  Require(decoded == (position < acorn_session_capacity(session) ? ACORN_OK : ACORN_ERR_CONTEXT_FULL), "a conversation goes on");
  const acorn_status back = acorn_session_rewind(session, position / 2);
  Require(back == ACORN_OK || back == ACORN_ERR_REFILL, "a rewind");  // a window may have moved past it
  if (acorn_session_position(session) < acorn_session_capacity(session)) Require(acorn_session_decode(session, nullptr, 2) == ACORN_OK, "and goes on");
}

void Put(uint8_t *at, uint64_t value) { std::memcpy(at, &value, 8); }

}  // namespace
}  // namespace acorn::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  using namespace acorn;
  using namespace acorn::fuzz;
  const ExactBytes snapshot(data, size, 8);
  const uint64_t named = size < kSnapshotHeaderBytes ? 0 : LoadLittle64(data + kSnapshotModelAt);
  const auto &models = Models();
  const auto found = std::find_if(models.begin(), models.end(), [&](const auto &model) { return model->checksum() == named; });
  RunSnapshot(found == models.end() ? *models.front() : **found, snapshot);
  return 0;
}

/// A number of the header or of what follows it, or more or fewer bytes; then both checksums and, mostly, the length are right.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed) {
  using namespace acorn;
  using namespace acorn::fuzz;
  Chooser chooser(seed);
  if (size < kSnapshotHeaderBytes || chooser.OneIn(16)) return LLVMFuzzerMutate(data, size, max_size);
  if (chooser.OneIn(8)) {
    uint8_t *body = data + kSnapshotHeaderBytes;
    size = kSnapshotHeaderBytes + LLVMFuzzerMutate(body, size - kSnapshotHeaderBytes, max_size - kSnapshotHeaderBytes);
    size -= size % kSnapshotAlignment;
  }
  for (uint64_t i = 0; i <= chooser.Below(4); ++i) {
    const size_t bytes = size_t{1} << chooser.Below(4);
    const size_t limit = chooser.OneIn(4) ? size_t{kSnapshotBodyChecksumAt} : size;
    chooser.ChangeNumber(data + chooser.Below(limit / bytes) * bytes, bytes);
  }
  if (!chooser.OneIn(8)) std::memcpy(data, kSnapshotMagic, 8), Put(data + kSnapshotBytesAt, size);
  if (!chooser.OneIn(8)) std::memset(data + kSnapshotTokensAt + 4, 0, 4), Put(data + kSnapshotVersionAt, kSnapshotVersion);
  if (!chooser.OneIn(4)) Put(data + kSnapshotModelAt, Models()[chooser.Below(Models().size())]->checksum());
  const size_t body = (size - kSnapshotHeaderBytes) / kSnapshotAlignment * kSnapshotAlignment;
  Put(data + kSnapshotBodyChecksumAt, WideChecksum(data + kSnapshotHeaderBytes, body));
  Put(data + kSnapshotHeaderChecksumAt, Checksum(data, kSnapshotHeaderChecksumAt));
  return size;
}
