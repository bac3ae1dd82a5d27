#include "text/sampler.h"

namespace acorn {
namespace {

constexpr uint64_t kLog2eQ58 = 0x5C551D94AE0BF86;  // round(2^58 / ln 2)
constexpr uint32_t kMaxTemperatureQ16 = 100u << 16;
constexpr uint32_t kMinPenaltyQ16 = 655, kMaxPenaltyQ16 = 100u << 16;

// Turns the distance of a logit from the largest one into a weight, for one temperature.
class Weigher {
 public:
  explicit Weigher(uint32_t temperature_q16)
      : inverse_q32_(kLog2eQ58 / temperature_q16), max_delta_((uint64_t{1} << 63) / inverse_q32_) {}

  uint32_t Weigh(uint64_t delta_q16) const {
    if (delta_q16 > max_delta_) return 0;
    return Exp2NegQ31((delta_q16 * inverse_q32_ + (uint64_t{1} << 31)) >> 32);
  }

 private:
  uint64_t inverse_q32_;  // t = delta * log2(e) / T, from Q16 to Q26, as a factor in Q32
  uint64_t max_delta_;    // beyond: t >= 32, weight 0
};

struct Candidate {
  int32_t value_q16;
  uint32_t id;
};

// While penalties are applied: this id had its turn.
constexpr uint32_t kPenalised = 0x80000000u;

bool Before(const Candidate &a, const Candidate &b) {
  return a.value_q16 > b.value_q16 || (a.value_q16 == b.value_q16 && a.id < b.id);
}

// Candidates from best to worst, sorted only as far as somebody asks: a heap whose popped roots lie, in order, behind it.
class Ranking {
 public:
  Ranking(Candidate *candidates, size_t count) : candidates_(candidates), count_(count), heap_size_(count) {
    for (size_t i = count / 2; i > 0; --i) SiftDown(i - 1);
  }
  size_t count() const { return count_; }
  const Candidate &Get(size_t rank) {
    while (count_ - heap_size_ <= rank) {
      const Candidate best = candidates_[0];
      candidates_[0] = candidates_[--heap_size_];
      SiftDown(0);
      candidates_[heap_size_] = best;
    }
    return candidates_[count_ - 1 - rank];
  }

 private:
  void SiftDown(size_t slot) {
    if (heap_size_ == 0) return;
    const Candidate moved = candidates_[slot];
    for (;;) {
      size_t child = slot * 2 + 1;
      if (child >= heap_size_) break;
      if (child + 1 < heap_size_ && Before(candidates_[child + 1], candidates_[child])) ++child;
      if (!Before(candidates_[child], moved)) break;
      candidates_[slot] = candidates_[child];
      slot = child;
    }
    candidates_[slot] = moved;
  }

  Candidate *candidates_;
  size_t count_;
  size_t heap_size_;
};

// floor(a * b / 2^64)
uint64_t MulHigh(uint64_t a, uint64_t b) {
  const uint64_t a_low = a & 0xFFFFFFFFu, a_high = a >> 32, b_low = b & 0xFFFFFFFFu, b_high = b >> 32;
  const uint64_t low = a_low * b_low;
  const uint64_t middle = a_high * b_low + (low >> 32);
  const uint64_t other = a_low * b_high + (middle & 0xFFFFFFFFu);
  return a_high * b_high + (middle >> 32) + (other >> 32);
}

// floor(total * factor / 2^16) for totals up to 2^52
uint64_t MulQ16(uint64_t total, uint32_t factor_q16) {
  return (total >> 16) * factor_q16 + (((total & 0xFFFF) * factor_q16) >> 16);
}

int32_t Penalise(int32_t value_q16, uint32_t penalty_q16) {
  const int64_t value = value_q16;
  if (value > 0) return SaturateS32(value * kSamplerOneQ16 / penalty_q16);
  return SaturateS32(RoundShift(value * penalty_q16, 16));
}

// Logits in natural units with the penalty applied, in the order of ids.
void FillCandidates(Candidate *candidates, Span<const int32_t> logits, Scale scale, Span<const int32_t> recent,
                    uint32_t penalty_q16) {
  for (size_t i = 0; i < logits.size(); ++i) {
    candidates[i] = {SaturateS32(Apply(scale, logits[i])), static_cast<uint32_t>(i)};
  }
  if (penalty_q16 == kSamplerOneQ16) return;
  for (const int32_t id : recent) {
    if (id < 0 || static_cast<size_t>(id) >= logits.size()) continue;
    Candidate &candidate = candidates[id];
    if ((candidate.id & kPenalised) != 0) continue;
    candidate = {Penalise(candidate.value_q16, penalty_q16), candidate.id | kPenalised};
  }
  for (size_t i = 0; i < logits.size(); ++i) candidates[i].id &= ~kPenalised;
}

uint64_t RandomQ64(uint64_t seed, uint64_t position) {
  const PhiloxBlock counter{{static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0, 0}};
  const PhiloxBlock block = Philox4x32(counter, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
  return uint64_t{block.word[1]} << 32 | block.word[0];
}

}  // namespace

PhiloxBlock Philox4x32(const PhiloxBlock &counter, uint32_t key_low, uint32_t key_high) {
  PhiloxBlock x = counter;
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * x.word[0];
    const uint64_t b = uint64_t{0xCD9E8D57u} * x.word[2];
    x = {{static_cast<uint32_t>(b >> 32) ^ x.word[1] ^ key_low, static_cast<uint32_t>(b),
          static_cast<uint32_t>(a >> 32) ^ x.word[3] ^ key_high, static_cast<uint32_t>(a)}};
    key_low += 0x9E3779B9u;
    key_high += 0xBB67AE85u;
  }
  return x;
}

uint32_t SampleWeightQ31(uint64_t delta_q16, uint32_t temperature_q16) { return Weigher(temperature_q16).Weigh(delta_q16); }

Status CheckSamplerParams(const SamplerParams &params) {
  const bool good = params.temperature_q16 <= kMaxTemperatureQ16 && params.top_p_q16 >= 1 &&
                    params.top_p_q16 <= kSamplerOneQ16 && params.min_p_q16 <= kSamplerOneQ16 &&
                    params.repetition_penalty_q16 >= kMinPenaltyQ16 && params.repetition_penalty_q16 <= kMaxPenaltyQ16;
  return good ? Status::kOk : Status::kArgument;
}

size_t SamplerWorkBytes(const SamplerParams &params, uint32_t vocab_size) {
  if (params.temperature_q16 == 0 && params.repetition_penalty_q16 == kSamplerOneQ16) return 0;
  return size_t{vocab_size} * sizeof(Candidate);
}

int32_t ArgMax(Span<const int32_t> logits) {
  ACORN_DCHECK(!logits.empty());
  // Blocks of a constant size become vector instructions on every machine; the id is looked for in the best block alone.
  constexpr size_t kBlock = 64;
  int32_t largest = logits[0];
  size_t best = 0, i = 0;
  for (; logits.size() - i >= kBlock; i += kBlock) {
    const int32_t *block = logits.data() + i;
    int32_t most = block[0];
    for (size_t j = 0; j < kBlock; ++j) most = block[j] > most ? block[j] : most;
    if (most > largest) {
      largest = most;
      best = i;
    }
  }
  for (; i < logits.size(); ++i) {
    if (logits[i] > largest) {
      largest = logits[i];
      best = i;
    }
  }
  while (logits[best] != largest) ++best;
  return static_cast<int32_t>(best);
}

Status Sample(int32_t *token, Span<const int32_t> logits, Scale scale, Span<const int32_t> recent, const SamplerParams &params,
              uint64_t position, Span<uint8_t> work) {
  if (logits.empty() || logits.size() >= kPenalised || scale.multiplier < 1 || scale.shift < 1 || scale.shift > 62) {
    return Status::kArgument;
  }
  ACORN_TRY(CheckSamplerParams(params));
  const size_t work_bytes = SamplerWorkBytes(params, static_cast<uint32_t>(logits.size()));
  if (work_bytes == 0) {
    *token = ArgMax(logits);
    return Status::kOk;
  }
  if (work.size() < work_bytes || reinterpret_cast<uintptr_t>(work.data()) % 8 != 0) return Status::kMemory;
  Candidate *candidates = reinterpret_cast<Candidate *>(work.data());
  FillCandidates(candidates, logits, scale, recent, params.repetition_penalty_q16);
  Candidate best = candidates[0];
  for (size_t i = 1; i < logits.size(); ++i) {
    if (Before(candidates[i], best)) best = candidates[i];
  }
  if (params.temperature_q16 == 0) {
    *token = static_cast<int32_t>(best.id);
    return Status::kOk;
  }

  const Weigher weigher(params.temperature_q16);
  const auto weigh = [&](const Candidate &candidate) {
    return weigher.Weigh(static_cast<uint64_t>(int64_t{best.value_q16} - candidate.value_q16));
  };
  size_t count = 0;
  uint64_t total = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const uint32_t weight = weigh(candidates[i]);
    if (weight == 0) continue;
    total += weight;
    candidates[count++] = candidates[i];
  }
  Ranking ranking(candidates, count);
  size_t kept = count;
  if (params.top_k != 0 && params.top_k < count) {
    kept = params.top_k;
    total = 0;
    for (size_t i = 0; i < kept; ++i) total += weigh(ranking.Get(i));
  }
  if (params.top_p_q16 < kSamplerOneQ16) {
    const uint64_t need = MulQ16(total, params.top_p_q16);
    size_t i = 0;
    for (total = 0; i < kept && total < need; ++i) total += weigh(ranking.Get(i));
    kept = i;
  }
  if (params.min_p_q16 != 0) {
    const uint64_t least = uint64_t{params.min_p_q16} << 15;
    size_t i = 0;
    for (total = 0; i < kept; ++i) {
      const uint32_t weight = weigh(ranking.Get(i));
      if (weight < least) break;
      total += weight;
    }
    kept = i;
  }
  const uint64_t target = MulHigh(RandomQ64(params.seed, position), total);
  uint64_t sum = 0;
  for (size_t i = 0; i < kept; ++i) {
    const Candidate &candidate = ranking.Get(i);
    sum += weigh(candidate);
    if (target < sum) {
      *token = static_cast<int32_t>(candidate.id);
      return Status::kOk;
    }
  }
  *token = static_cast<int32_t>(best.id);  // not reached: target < total
  return Status::kOk;
}

}  // namespace acorn
