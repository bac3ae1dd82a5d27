// Graphs whose tables stand in more than one place, which FlatBuffers' object API cannot write. For tests/evil.
#pragma once

#include <functional>
#include <vector>

#include "tests/evil/evil_file.h"

namespace acorn::test {

/// The lists of a graph before they are written; `change` may put one table into a list as often as it likes.
struct Shared {
  template <typename T>
  using Tables = std::vector<flatbuffers::Offset<T>>;
  std::function<void(flatbuffers::FlatBufferBuilder *, Shared *)> change;
  size_t repeats = 0;
  Tables<schema::Weight> weights;
  Tables<schema::Rope> ropes;
  Tables<schema::Cache> caches;
  Tables<schema::Step> body, head;
  Tables<schema::ExpertSet> expert_sets;
  Tables<schema::State> states;
};

template <typename T, typename Object>
std::vector<flatbuffers::Offset<T>> PackAll(flatbuffers::FlatBufferBuilder *fbb, const std::vector<std::unique_ptr<Object>> &objects) {
  std::vector<flatbuffers::Offset<T>> offsets;
  for (const auto &object : objects) offsets.push_back(T::Pack(*fbb, object.get()));
  return offsets;
}

inline Bytes PackShared(const schema::ModelT &model, Shared parts) {
  flatbuffers::FlatBufferBuilder fbb;
  parts.weights = PackAll<schema::Weight>(&fbb, model.weights);
  parts.ropes = PackAll<schema::Rope>(&fbb, model.ropes);
  parts.caches = PackAll<schema::Cache>(&fbb, model.caches);
  parts.body = PackAll<schema::Step>(&fbb, model.body);
  parts.head = PackAll<schema::Step>(&fbb, model.head);
  parts.expert_sets = PackAll<schema::ExpertSet>(&fbb, model.expert_sets);
  parts.states = PackAll<schema::State>(&fbb, model.states);
  parts.change(&fbb, &parts);
  schema::FinishModelBuffer(
      fbb, schema::CreateModelDirect(fbb, model.name.c_str(), model.family.c_str(), model.vocab_size, model.max_context,
                                     &model.prefix_tokens, &model.segments, &model.values, &parts.weights, &parts.ropes, &parts.caches,
                                     &parts.body, &parts.head, model.body_out, model.logits, model.logit_factor.get(),
                                     model.tokenizer_segment, nullptr, 0, &parts.expert_sets, &parts.states));
  return Bytes(fbb.GetBufferPointer(), fbb.GetBufferPointer() + fbb.GetSize());
}

/// As WithGraph of tests/support.
inline AlignedBytes WithSharedGraph(const AlignedBytes &file, schema::ModelT model, const Shared &parts) {
  return WithGraphBytes(file, std::move(model), [&](const schema::ModelT &placed) { return PackShared(placed, parts); });
}

}  // namespace acorn::test
