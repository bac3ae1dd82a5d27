#include "write/reference_run.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "acorn_schema/acorn_generated.h"
#include "acorn_schema/file.h"
#include "base/mapped_file.h"
#include "base/progress.h"
#include "write/file_writer.h"
#include "write/opened_model.h"

namespace acorn::compiler {
namespace {

constexpr uint32_t kPromptTokens = 32;
constexpr uint32_t kGeneratedTokens = 16;
constexpr uint64_t kSeed = 1;
constexpr uint32_t kTemperature = 65536;  // 1 in Q16

// SplitMix64.
uint64_t NextRandom(uint64_t *state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

void Record(OpenedModel *opened, schema::ReferenceRunT *run) {
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
  opened->Check(acorn_session_record(opened->session(), &record));
}

std::unique_ptr<schema::ReferenceRunT> MakeRun(const schema::ModelT &model, OpenedModel *opened) {
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
  Record(opened, run.get());
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
  acorn_options options = {};
  options.context_tokens = kPromptTokens + kGeneratedTokens;
  options.flags = ACORN_OPEN_SCALAR | ACORN_OPEN_TRACE | ACORN_OPEN_CHECK_WEIGHTS;
  OpenedModel opened(file, options);
  schema::ModelT model;
  schema::GetModel(file.data() + kHeaderBytes)->UnPackTo(&model);
  model.reference_run = MakeRun(model, &opened);
  const uint64_t begin = model.segments.front().offset();
  // The size of a graph does not depend on where its segments are.
  const uint64_t moved = SegmentsBegin(Pack(model).size());
  for (schema::Segment &segment : model.segments) {
    segment = schema::Segment(segment.kind(), segment.offset() - begin + moved, segment.bytes(), segment.checksum());
  }
  const uint64_t experts = LoadLittle64(file.data() + kHeaderExperts);
  WriteModelFile(to, Pack(model), file.data() + begin, file.size() - begin, experts == 0 ? 0 : experts - begin);
  progress.Finish();
}

}  // namespace acorn::compiler
