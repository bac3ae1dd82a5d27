#include "write/reference_run.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "acorn.h"
#include "acorn_posix.h"
#include "acorn_schema/acorn_generated.h"
#include "acorn_schema/file.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "base/parallel.h"
#include "base/progress.h"
#include "write/file_writer.h"

namespace acorn::compiler {
namespace {

constexpr uint32_t kPromptTokens = 32;
constexpr uint32_t kGeneratedTokens = 16;
constexpr uint64_t kSeed = 1;
constexpr uint32_t kTemperature = 65536;  // 1 in Q16
constexpr size_t kMostThreads = 16;       // a decode step has loops of microseconds; the library takes at most 256

// SplitMix64.
uint64_t NextRandom(uint64_t *state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/// A model file opened through the library, with the portable kernels and a trace, on this machine's threads.
class Opened {
 public:
  explicit Opened(const MappedFile &file)
      : path_(file.path()),
        posix_(acorn_posix_create(static_cast<uint32_t>(std::min<size_t>(ThreadCount(), kMostThreads))), acorn_posix_destroy) {
    if (posix_ == nullptr) throw Error(ExitCode::kMemory, "no threads to be had");
    acorn_port port;
    acorn_posix_port(posix_.get(), &port, 0);
    port.log = nullptr;
    static const uint64_t kNothing alignas(64) = 0;  // an empty file is no model, which is for the library to say
    const acorn_image image = {file.size() == 0 ? static_cast<const void *>(&kNothing) : file.data(), file.size()};
    acorn_options options = {};
    options.struct_size = sizeof options;
    options.flags = ACORN_OPEN_SCALAR | ACORN_OPEN_TRACE | ACORN_OPEN_CHECK_WEIGHTS;
    acorn_fault fault = {};
    acorn_memory_plan plan = {};
    // Twice: the model says how long its context is, and the run needs only as much of it.
    Check(acorn_plan(&plan, &fault, &image, &options, &port), fault);
    options.context_tokens = std::min(plan.context_tokens, kPromptTokens + kGeneratedTokens);
    Check(acorn_plan(&plan, &fault, &image, &options, &port), fault);
    context_tokens_ = plan.context_tokens;
    block_.resize(plan.block_bytes + kBlockAlignment);
    void *block = block_.data();
    size_t room = block_.size();
    std::align(kBlockAlignment, plan.block_bytes, block, room);
    Check(acorn_model_open(&model_, &fault, &image, &options, &port, block, plan.block_bytes), fault);
    Check(acorn_session_open(&session_, model_), fault);
  }

  uint32_t context_tokens() const { return context_tokens_; }

  void Record(schema::ReferenceRunT *run) {
    acorn_reference_run record = {};
    record.struct_size = sizeof record;
    record.prompt_count = static_cast<uint32_t>(run->prompt.size());
    record.generated_count = static_cast<uint32_t>(run->generated.size());
    record.sampled_count = run->sampled;
    record.temperature_q16 = run->temperature_q16;
    record.steps = static_cast<uint32_t>(run->prefill.size());
    record.seed = run->seed;
    record.prompt = run->prompt.data();
    record.generated = run->generated.data();
    record.prefill_digests = run->prefill.data();
    record.decode_digests = run->decode.data();
    Check(acorn_session_record(session_, &record), {});
  }

 private:
  static constexpr size_t kBlockAlignment = 64;

  void Check(acorn_status status, const acorn_fault &fault) const {
    if (status == ACORN_OK) return;
    std::string message = path_ + ": " + acorn_status_text(status);
    if (fault.section != nullptr && fault.section[0] != 0) {
      message += std::string(" (section ") + fault.section + ", index " + std::to_string(fault.index) + ", offset " +
                 std::to_string(fault.offset) + ")";
    }
    throw Error(ExitCode::kBadModel, message);
  }

  std::string path_;
  std::unique_ptr<acorn_posix, void (*)(acorn_posix *)> posix_;
  std::vector<uint8_t> block_;
  acorn_model *model_ = nullptr;
  acorn_session *session_ = nullptr;
  uint32_t context_tokens_ = 0;
};

std::unique_ptr<schema::ReferenceRunT> MakeRun(const schema::ModelT &model, Opened *opened) {
  if (opened->context_tokens() < 2) return nullptr;
  auto run = std::make_unique<schema::ReferenceRunT>();
  run->generated.resize(std::min(kGeneratedTokens, opened->context_tokens() / 2));
  run->prompt.resize(std::min<size_t>(kPromptTokens, opened->context_tokens() - run->generated.size()));
  uint64_t state = kSeed;
  for (int32_t &id : run->prompt) id = static_cast<int32_t>(NextRandom(&state) % model.vocab_size);
  run->sampled = static_cast<uint32_t>(run->generated.size() / 2);
  run->temperature_q16 = kTemperature;
  run->seed = kSeed;
  run->prefill.resize(model.body.size() + model.head.size());
  run->decode.resize(run->prefill.size());
  opened->Record(run.get());
  return run;
}

std::vector<uint8_t> Pack(const schema::ModelT &model) {
  flatbuffers::FlatBufferBuilder fbb;
  schema::FinishModelBuffer(fbb, schema::Model::Pack(fbb, &model));
  return std::vector<uint8_t>(fbb.GetBufferPointer(), fbb.GetBufferPointer() + fbb.GetSize());
}

}  // namespace

void RecordReferenceRun(const std::string &from, const std::string &to) {
  const MappedFile file(from);
  Progress progress("recording the reference run", 1);
  Opened opened(file);
  schema::ModelT model;
  schema::GetModel(file.data() + kHeaderBytes)->UnPackTo(&model);
  model.reference_run = MakeRun(model, &opened);
  const uint64_t begin = model.segments.front().offset();
  // The size of a graph does not depend on where its segments are.
  const uint64_t moved = SegmentsBegin(Pack(model).size());
  for (schema::Segment &segment : model.segments) {
    segment = schema::Segment(segment.kind(), segment.offset() - begin + moved, segment.bytes(), segment.checksum());
  }
  WriteModelFile(to, Pack(model), file.data() + begin, file.size() - begin);
  progress.Finish();
}

}  // namespace acorn::compiler
