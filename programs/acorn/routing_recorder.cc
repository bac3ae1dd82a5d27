#include "routing_recorder.h"

#include <algorithm>
#include <cstring>

#include "acorn_schema/file.h"
#include "error.h"
#include "experts/streaming.h"
#include "statistics.h"

namespace acorn::program {
namespace {

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

uint64_t ToNs(double ns) { return static_cast<uint64_t>(std::clamp(ns, 0.0, static_cast<double>(kMaxTraceNs))); }

// A record comes from storage to memory, not to a core's own caches: enough for several is checked in turn.
double MeasureCheck(uint64_t record_bytes) {
  constexpr uint64_t kBeyondCaches = 3u << 20;
  const uint64_t bytes = BytesOfLastRead(record_bytes);
  const std::vector<uint8_t> memory(std::max(kBeyondCaches, 2 * bytes), 1);
  std::vector<double> times;
  [[maybe_unused]] volatile uint64_t sum = 0;  // computed, whoever wants it
  for (uint64_t at = 0; at + bytes <= memory.size(); at += bytes) {
    const uint64_t begin = acorn_posix_ticks();
    sum = WideChecksum(memory.data() + at, bytes);
    times.push_back(static_cast<double>(acorn_posix_ticks() - begin));
  }
  return Median(times);
}

/// Different experts of a chunk, all layers together.
uint64_t DistinctOf(const TraceFacts &facts, const RoutingChunk &chunk) {
  const size_t row = size_t{chunk.tokens} * facts.top_k;
  uint64_t distinct = 0;
  for (uint32_t layer = 0; layer < facts.layers; ++layer) {
    std::vector<bool> seen(facts.experts);
    for (size_t i = layer * row; i < (layer + 1) * row; ++i) {
      const uint16_t expert = chunk.choices[i].expert;
      if (expert == kNoExpert || seen[expert]) continue;
      seen[expert] = true;
      ++distinct;
    }
  }
  return distinct;
}

uint64_t EntriesOf(const RoutingChunk &chunk) {
  const auto used = [](const RoutingChoice &choice) { return choice.expert != kNoExpert; };
  return static_cast<uint64_t>(std::count_if(chunk.choices.begin(), chunk.choices.end(), used));
}

}  // namespace

RoutingLocality LocalityOf(const RoutingTrace &trace) {
  const TraceFacts &facts = trace.facts;
  RoutingLocality out;
  out.repeated_by_chance = static_cast<double>(facts.top_k) / facts.experts;
  uint64_t repeated = 0, followers = 0, popular = 0, all = 0;
  for (uint32_t layer = 0; layer < facts.layers; ++layer) {
    std::vector<uint64_t> counts(facts.experts);
    std::vector<bool> before(facts.experts), now(facts.experts);
    bool first = true;
    for (const RoutingChunk &chunk : trace.chunks) {
      for (uint32_t token = 0; token < chunk.tokens; ++token) {
        now.assign(facts.experts, false);
        for (uint32_t k = 0; k < facts.top_k; ++k) {
          const uint16_t expert = chunk.choices[(size_t{layer} * chunk.tokens + token) * facts.top_k + k].expert;
          if (expert == kNoExpert) continue;
          now[expert] = true;
          ++counts[expert];
          ++all;
          followers += !first;
          repeated += !first && before[expert];
        }
        before.swap(now);
        first = false;
      }
    }
    std::sort(counts.rbegin(), counts.rend());
    for (uint32_t e = 0; e < (facts.experts + 3) / 4; ++e) popular += counts[e];
  }
  if (followers != 0) out.repeated = static_cast<double>(repeated) / static_cast<double>(followers);
  if (all != 0) out.popular_quarter = static_cast<double>(popular) / static_cast<double>(all);
  return out;
}

uint64_t DigestOf(const RoutingTrace &trace) {
  const TraceFacts &facts = trace.facts;
  Fnv digest;
  int32_t token = 0;
  for (const RoutingChunk &chunk : trace.chunks) {
    for (uint32_t row = 0; row < chunk.tokens; ++row, ++token) {
      for (uint32_t layer = 0; layer < facts.layers; ++layer) {
        for (uint32_t k = 0; k < facts.top_k; ++k) {
          const uint16_t expert = chunk.choices[(size_t{layer} * chunk.tokens + row) * facts.top_k + k].expert;
          if (expert == kNoExpert) continue;
          const int32_t values[] = {static_cast<int32_t>(layer), token, expert};
          digest.Add(values, 3);
        }
      }
    }
  }
  return digest.value();
}

Foresight ForesightOf(const RoutingTrace &trace) {
  const TraceFacts &facts = trace.facts;
  uint64_t right = 0, guessed = 0, chosen = 0;
  for (const RoutingChunk &chunk : trace.chunks) {
    if (chunk.tokens != 1 || chunk.guesses.empty()) continue;
    for (size_t begin = facts.top_k; begin < chunk.choices.size(); begin += facts.top_k) {
      for (size_t i = begin; i < begin + facts.top_k; ++i) {
        chosen += chunk.choices[i].expert != kNoExpert;
        if (chunk.guesses[i] == kNoExpert) continue;
        ++guessed;
        for (size_t k = begin; k < begin + facts.top_k; ++k) right += chunk.choices[k].expert == chunk.guesses[i];
      }
    }
  }
  const auto share = [right](uint64_t of) { return of == 0 ? 0 : static_cast<double>(right) / static_cast<double>(of); };
  return {share(chosen), share(guessed)};
}

RoutingRecorder::RoutingRecorder(Device *device) : device_(device) {
  ReadFacts();
  acorn_session_set_routing_hook(device_->session(), OnRoutes, this);
  trace_.facts.guesses = device_->options().prefetch == "gate";
  if (trace_.facts.guesses) acorn_session_set_guess_hook(device_->session(), OnGuess, this);
}

RoutingRecorder::~RoutingRecorder() {
  acorn_session_set_routing_hook(device_->session(), nullptr, nullptr);
  acorn_session_set_guess_hook(device_->session(), nullptr, nullptr);
}

void RoutingRecorder::ReadFacts() {
  TraceFacts &facts = trace_.facts;
  acorn_expert_info info = {};
  info.struct_size = sizeof info;
  for (uint32_t layer = 0; acorn_model_get_expert(device_->model(), &info, layer, 0) == ACORN_OK; ++layer) {
    uint32_t experts = 0;
    for (; acorn_model_get_expert(device_->model(), &info, layer, experts) == ACORN_OK; ++experts) {
      facts.expert_bytes.push_back(static_cast<uint32_t>(info.bytes));
    }
    if (layer != 0 && (experts != facts.experts || info.top_k != facts.top_k)) {
      Fail(ExitCode::kModel, "%s: layers with different numbers of experts, which a trace cannot hold", device_->path().c_str());
    }
    facts.experts = experts;
    facts.top_k = info.top_k;
    ++facts.layers;
  }
  if (facts.layers == 0) Fail(ExitCode::kModel, "%s has no experts, and so no routing to record", device_->path().c_str());
}

RoutingRecorder::Moment RoutingRecorder::Now() const {
  constexpr char kExperts[] = "experts/";
  Moment now = {acorn_posix_ticks(), 0, 0, 0};
  acorn_profile_row row = {};
  row.struct_size = sizeof row;
  for (size_t i = 0; acorn_model_profile(device_->model(), &row, i) == ACORN_OK; ++i) {
    if (std::strncmp(row.name, kExperts, sizeof kExperts - 1) == 0) now.expert_ns += row.ticks;
  }
  now.stall_ns = static_cast<uint64_t>(ReadExperts(*device_).stall_ms * 1e6);
  return now;
}

void RoutingRecorder::OnRoutes(void *ctx, uint32_t layer, const acorn_route *routes, size_t tokens, size_t top_k) {
  auto *recorder = static_cast<RoutingRecorder *>(ctx);
  if (layer == 0) {
    recorder->moments_.push_back(recorder->Now());
    recorder->trace_.chunks.push_back({static_cast<uint32_t>(tokens), {}, {}});
    const TraceFacts &facts = recorder->trace_.facts;
    if (facts.guesses) recorder->trace_.chunks.back().guesses.assign(facts.layers * tokens * facts.top_k, kNoExpert);
  }
  recorder->moments_.back().last_ns = acorn_posix_ticks();
  std::vector<RoutingChoice> &choices = recorder->trace_.chunks.back().choices;
  for (size_t i = 0; i < tokens * top_k; ++i) choices.push_back({routes[i].expert, routes[i].weight_q15});
}

void RoutingRecorder::OnGuess(void *ctx, uint32_t layer, const acorn_route *routes, size_t tokens, size_t count) {
  auto *recorder = static_cast<RoutingRecorder *>(ctx);
  const size_t row = size_t{layer} * tokens * recorder->trace_.facts.top_k;
  for (size_t i = 0; i < count; ++i) recorder->trace_.chunks.back().guesses[row + i] = routes[i].expert;
}

RoutingTrace RoutingRecorder::Finish() {
  moments_.push_back(Now());
  MeasureTimes();
  moments_.pop_back();
  return trace_;
}

// A layer is the time from one router to the next, which the profile splits in two; waiting for reads is taken out, since a
// replay adds its own. The rest, until the next chunk's first router, is the head. Medians: a page fault is nobody's time.
void RoutingRecorder::MeasureTimes() {
  TraceFacts &facts = trace_.facts;
  const double layers = facts.layers;
  std::vector<double> expert, layer, head, expert_more, layer_more;
  const auto measure = [&](size_t i, double *experts_ns, double *layer_ns) {
    const Moment &from = moments_[i], &to = moments_[i + 1];
    const auto stall = static_cast<double>(to.stall_ns - from.stall_ns);
    *experts_ns = std::max(0.0, static_cast<double>(to.expert_ns - from.expert_ns) - stall);
    // Between the first router and the last there are all layers but one; with a single layer the head counts as part of it.
    const double share = facts.layers == 1 ? 1 : (layers - 1) / layers;
    const uint64_t end = facts.layers == 1 ? to.first_ns : from.last_ns;
    const double span = static_cast<double>(end - from.first_ns) - share * (stall + *experts_ns);
    *layer_ns = std::max(0.0, span / (facts.layers == 1 ? 1 : layers - 1));
  };
  double experts_ns = 0, layer_ns = 0;
  for (size_t i = 0; i < trace_.chunks.size(); ++i) {
    if (trace_.chunks[i].tokens != 1) continue;
    measure(i, &experts_ns, &layer_ns);
    expert.push_back(experts_ns / static_cast<double>(std::max<uint64_t>(1, EntriesOf(trace_.chunks[i]))));
    layer.push_back(layer_ns);
    const double all = static_cast<double>(moments_[i + 1].first_ns - moments_[i].first_ns) -
                       static_cast<double>(moments_[i + 1].stall_ns - moments_[i].stall_ns);
    if (facts.layers > 1) head.push_back(std::max(0.0, all - experts_ns - layers * layer_ns));
  }
  const bool decodes = !expert.empty();
  for (size_t i = 0; i < trace_.chunks.size(); ++i) {
    const RoutingChunk &chunk = trace_.chunks[i];
    if (chunk.tokens == 1) continue;
    measure(i, &experts_ns, &layer_ns);
    const uint64_t distinct = DistinctOf(facts, chunk), entries = EntriesOf(chunk);
    if (!decodes) {  // nothing tells the first token from the others
      expert_more.push_back(experts_ns / static_cast<double>(std::max<uint64_t>(1, entries)));
      layer_more.push_back(layer_ns / chunk.tokens);
    } else {
      if (entries > distinct) {
        const double first = Median(expert) * static_cast<double>(distinct);
        expert_more.push_back(std::max(0.0, experts_ns - first) / static_cast<double>(entries - distinct));
      }
      layer_more.push_back(std::max(0.0, layer_ns - Median(layer)) / (chunk.tokens - 1));
    }
  }
  facts.expert_more_ns = ToNs(Median(expert_more.empty() ? expert : expert_more));
  facts.layer_more_ns = ToNs(Median(layer_more.empty() ? layer : layer_more));
  facts.expert_ns = decodes ? ToNs(Median(expert)) : facts.expert_more_ns;
  facts.layer_ns = decodes ? ToNs(Median(layer)) : facts.layer_more_ns;
  facts.head_ns = ToNs(Median(head));
  facts.check_ns = static_cast<uint32_t>(std::min<uint64_t>(UINT32_MAX, ToNs(MeasureCheck(facts.SlotBytes()))));
}

}  // namespace acorn::program
