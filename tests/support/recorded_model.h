// A model file in memory with a reference run put into it, as acornc does with files; and the graph of a file taken apart and
// put back, for tests that change it. For tests that link acorn.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "acorn_schema/file.h"
#include "tests/support/model_file.h"
#include "tests/support/model_session.h"

namespace acorn::test {

inline std::unique_ptr<schema::ModelT> GraphOf(const AlignedBytes &file) {
  return std::unique_ptr<schema::ModelT>(schema::GetModel(file.data() + kHeaderBytes)->UnPack());
}

/// The file with another graph; its segments move as far as the graph's size asks for.
///   pack   the bytes of a graph, as many wherever its segments are
template <typename Pack>
AlignedBytes WithGraphBytes(const AlignedBytes &file, schema::ModelT model, const Pack &pack) {
  const uint64_t before = model.segments.front().offset();
  const uint64_t after = (kHeaderBytes + pack(model).size() + kSegmentAlignment - 1) / kSegmentAlignment * kSegmentAlignment;
  for (schema::Segment &segment : model.segments) {
    segment = schema::Segment(segment.kind(), segment.offset() - before + after, segment.bytes(), segment.checksum());
  }
  const std::vector<uint8_t> graph = pack(model);
  std::vector<uint8_t> bytes(after);
  std::copy(graph.begin(), graph.end(), bytes.begin() + kHeaderBytes);
  bytes.insert(bytes.end(), file.data() + before, file.data() + file.size());
  const uint64_t experts = LoadLittle64(file.data() + kHeaderExperts);
  WriteHeader(bytes.data(), bytes.size(), graph.size(), experts == 0 ? 0 : experts - before + after);
  return AlignedBytes(bytes);
}
inline AlignedBytes WithGraph(const AlignedBytes &file, schema::ModelT model) {
  return WithGraphBytes(file, std::move(model), [](const schema::ModelT &placed) {
    flatbuffers::FlatBufferBuilder fbb;
    schema::FinishModelBuffer(fbb, schema::Model::Pack(fbb, &placed));
    return std::vector<uint8_t>(fbb.GetBufferPointer(), fbb.GetBufferPointer() + fbb.GetSize());
  });
}

/// The file of one profile alone: its body at rate 0, weights, caches and states as wide as ever.
inline AlignedBytes OneRateOf(const AlignedBytes &file, size_t profile) {
  const std::unique_ptr<schema::ModelT> model = GraphOf(file);
  model->body = std::move(model->profiles[profile]->body);
  model->profiles.clear();
  return WithGraph(file, std::move(*model));
}

/// The file with a run of the portable kernels over random ids in it.
inline AlignedBytes Recorded(const AlignedBytes &file, size_t prompt_count = 9, size_t generated_count = 6) {
  std::unique_ptr<schema::ModelT> model = GraphOf(file);
  auto run = std::make_unique<schema::ReferenceRunT>();
  Random random(17);
  run->prompt.resize(prompt_count);
  for (int32_t &id : run->prompt) id = static_cast<int32_t>(random.Between(0, model->vocab_size - 1));
  run->generated.resize(generated_count);
  run->sampled = static_cast<uint32_t>(generated_count / 2);
  run->temperature_q16 = 65536;
  run->seed = 5;
  run->prefill.resize(model->body.size() + model->head.size());
  run->decode.resize(run->prefill.size());
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
  acorn_options options = {};
  options.flags = ACORN_OPEN_SCALAR | ACORN_OPEN_TRACE;
  ModelSession session(file, options);
  EXPECT_EQ(session.status(), static_cast<acorn_status>(ACORN_OK));
  if (session.status() != ACORN_OK) return file;
  EXPECT_EQ(acorn_session_record(session.session(), &record), static_cast<acorn_status>(ACORN_OK));
  model->reference_run = std::move(run);
  return WithGraph(file, *model);
}

}  // namespace acorn::test
