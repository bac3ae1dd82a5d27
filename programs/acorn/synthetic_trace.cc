#include "synthetic_trace.h"

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <utility>
#include <vector>

#include "error.h"

namespace acorn::program {
namespace {

// Chosen so that LRU, LFRU and Belady miss about what was published of Qwen3-30B-A3B with two fifths of its experts at hand
// (19, 18 and 10 % of the lookups). Only sums, products and quotients are used, so that every machine draws the same.
constexpr double kFlatness = 6;         // popularity of rank r is 1 / (r + kFlatness)
constexpr double kTopicShare = 0.75;    // of the preferences; the rest is the same for all topics
constexpr uint32_t kTopics = 12;
constexpr uint32_t kTopicTokens = 160;  // from one topic to the next
constexpr double kJump = 1.0 / 500;     // to any topic, at each token
constexpr double kReuse = 0.3;          // an expert of the previous token is chosen again without a draw
constexpr double kRightGuess = 0.8;

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }
  /// In [0, 1).
  double Unit() { return static_cast<double>(Next() >> 11) / static_cast<double>(uint64_t{1} << 53); }
  uint32_t Below(uint32_t count) { return static_cast<uint32_t>(Next() % count); }

 private:
  uint64_t state_;
};

/// Popularity of each expert, a sum of 1.
std::vector<double> Preferences(Random *random, uint32_t experts) {
  std::vector<double> out(experts);
  double sum = 0;
  for (uint32_t rank = 0; rank < experts; ++rank) sum += out[rank] = 1 / (rank + kFlatness);
  for (uint32_t i = experts; i-- > 1;) std::swap(out[i], out[random->Below(i + 1)]);
  for (double &value : out) value /= sum;
  return out;
}

class Router {
 public:
  Router(Random *random, const SyntheticSpec &spec) : random_(random), spec_(spec) {
    for (uint32_t i = 0; i < spec.layers * (kTopics + 1); ++i) preferences_.push_back(Preferences(random, spec.experts));
    previous_.resize(spec.layers);
  }

  /// The topic moves on.
  void NextToken() {
    place_ = random_->Unit() < kJump ? random_->Unit() * kTopics : place_ + 1.0 / kTopicTokens;
    if (place_ >= kTopics) place_ -= kTopics;
  }

  /// The experts of one token in one layer, the best first.
  void Choose(uint32_t layer, RoutingChoice *out) {
    const uint32_t topic = static_cast<uint32_t>(place_), after = (topic + 1) % kTopics;
    const double gone = place_ - topic;
    const std::vector<double> &all = PreferencesOf(layer, kTopics);
    const std::vector<double> &from = PreferencesOf(layer, topic), &to = PreferencesOf(layer, after);
    std::vector<double> likely(spec_.experts);
    for (uint32_t e = 0; e < spec_.experts; ++e) {
      likely[e] = (1 - kTopicShare) * all[e] + kTopicShare * ((1 - gone) * from[e] + gone * to[e]);
    }
    std::vector<std::pair<double, uint32_t>> chosen;
    const auto choose = [&](uint32_t e) {
      chosen.emplace_back(-likely[e], e);
      likely[e] = 0;
    };
    for (const uint32_t e : previous_[layer]) {
      if (random_->Unit() < kReuse) choose(e);
    }
    while (chosen.size() < spec_.top_k) {
      double at = random_->Unit() * std::accumulate(likely.begin(), likely.end(), 0.0);
      uint32_t e = 0, last = 0;
      for (; e < spec_.experts && at >= 0; ++e) {
        if (likely[e] == 0) continue;
        at -= likely[e];
        last = e;
      }
      choose(last);
    }
    std::sort(chosen.begin(), chosen.end());
    double sum = 0;
    for (const auto &[minus, e] : chosen) sum -= minus;
    previous_[layer].clear();
    for (const auto &[minus, e] : chosen) {
      previous_[layer].push_back(e);
      *out++ = {static_cast<uint16_t>(e), static_cast<uint16_t>(-minus / sum * 32768)};
    }
  }

 private:
  const std::vector<double> &PreferencesOf(uint32_t layer, uint32_t topic) const {
    return preferences_[size_t{layer} * (kTopics + 1) + topic];
  }

  Random *random_;
  const SyntheticSpec &spec_;
  std::vector<std::vector<double>> preferences_;  // [layers, kTopics + 1]; the last is what topics have in common
  std::vector<std::vector<uint32_t>> previous_;   // [layers] experts of the last token
  double place_ = 0;                              // among the topics, which lie in a ring
};

TraceFacts MakeFacts(const SyntheticSpec &spec) {
  constexpr uint64_t kBytesPerNs = 10;
  TraceFacts facts;
  facts.layers = spec.layers;
  facts.experts = spec.experts;
  facts.top_k = spec.top_k;
  facts.guesses = true;
  facts.expert_bytes.assign(size_t{spec.layers} * spec.experts, spec.expert_bytes);
  facts.expert_ns = spec.expert_bytes / kBytesPerNs;
  facts.layer_ns = facts.expert_ns * spec.top_k / 2;  // attention and what else is dense reads about half of what experts do
  facts.head_ns = facts.layer_ns * 2;
  facts.expert_more_ns = facts.expert_ns / 8;  // a prompt is bound by arithmetic
  facts.layer_more_ns = facts.layer_ns / 8;
  return facts;
}

}  // namespace

void ParseSyntheticShape(const std::string &text, SyntheticSpec *spec) {
  unsigned layers = 0, experts = 0, top_k = 0;
  int end = 0;
  const bool parsed = text.size() < 32 && std::sscanf(text.c_str(), "%ux%ux%u%n", &layers, &experts, &top_k, &end) == 3;
  if (!parsed || text.c_str()[end] != 0 || layers == 0 || layers > 1024 || experts == 0 || experts > 4096 || top_k == 0 ||
      top_k > experts) {
    Fail(ExitCode::kUsage,
         "--synthetic %s: LAYERSxEXPERTSxTOPK is wanted, at most 1024 layers, 4096 experts, and no more of them a token than there are",
         text.c_str());
  }
  spec->layers = layers;
  spec->experts = experts;
  spec->top_k = top_k;
}

RoutingTrace MakeSyntheticTrace(const SyntheticSpec &spec) {
  Random random(spec.seed);
  Router router(&random, spec);
  RoutingTrace trace;
  trace.facts = MakeFacts(spec);
  for (uint32_t done = 0; done < spec.prompt_tokens + spec.tokens;) {
    RoutingChunk chunk;
    chunk.tokens = done < spec.prompt_tokens ? spec.prompt_tokens : 1;
    const size_t all = size_t{spec.layers} * chunk.tokens * spec.top_k;
    chunk.choices.resize(all);
    for (uint32_t token = 0; token < chunk.tokens; ++token) {
      router.NextToken();
      for (uint32_t layer = 0; layer < spec.layers; ++layer) {
        router.Choose(layer, &chunk.choices[(size_t{layer} * chunk.tokens + token) * spec.top_k]);
      }
    }
    for (size_t i = 0; i < all; ++i) {
      const bool first_layer = i < all / spec.layers;
      const uint32_t any = random.Below(spec.experts);
      const bool right = random.Unit() < kRightGuess;
      chunk.guesses.push_back(first_layer ? kNoExpert : right ? chunk.choices[i].expert : static_cast<uint16_t>(any));
    }
    done += chunk.tokens;
    trace.chunks.push_back(std::move(chunk));
  }
  return trace;
}

}  // namespace acorn::program
