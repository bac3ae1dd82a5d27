#include "quantize/mixed.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "quantize/file_size.h"
#include "quantize/grid.h"
#include "quantize/layer_quantizer.h"

namespace acorn::compiler {
namespace {

// An input of 15 bits is two rows where there was one: no byte more in the file, and next to none of a decode step that waits
// for weights, but twice the products in prefill. Beside bytes it counts as an eighth of the weights that read it: enough that
// only inputs which matter are chosen.
constexpr double kInputPrice = 1.0 / 8;

/// What one part is stored as now, and what else it could be.
struct Candidate {
  int64_t layer;
  Part part;
  struct Option {
    WeightFormat format;  // of a weight
    double loss;          // nats per token
  };
  std::vector<Option> options;  // ever better; the last one is lossless
  size_t now = 0;
};

class Chooser {
 public:
  Chooser(const ModelConfig &config, const RecipeOptions &plain, const Sensitivities &sensitivities, uint64_t tokenizer_bytes)
      : config_(config), ffn_(FfnShapeOf(config, plain)), options_(plain), tokenizer_bytes_(tokenizer_bytes) {
    options_.prefix_tokens = sensitivities.prefix_tokens;
    for (int64_t layer = 0; layer < config.layers; ++layer) {
      options_.layers.push_back(FormatsOf(plain, config, ffn_.padded, layer));
    }
    double sum = 0;
    for (const Sensitivity &part : sensitivities.parts) {
      const bool same = !candidates_.empty() && candidates_.back().layer == part.layer && candidates_.back().part == part.part;
      if (!same) {
        candidates_.push_back({part.layer, part.part, {}});
        if (part.part != Part::kHead) sum += part.loss;
      }
      candidates_.back().options.push_back({part.format, part.loss});
    }
    // Losses add up but for a few percent: so that the estimates of a whole model are those that were measured on it.
    if (sum > 0 && sensitivities.together > 0) scale_ = sensitivities.together / sum;
    for (Candidate &candidate : candidates_) candidate.options.push_back({WeightFormat::kW8, 0});
  }

  uint64_t FileBytesNow() const { return FileBytes(config_, ffn_, options_, tokenizer_bytes_); }
  /// Estimates, nats per token: as things stand, and with all weights in 8 bits but the inputs as they were.
  double Loss() const {
    double loss = 0;
    for (const Candidate &c : candidates_) loss += c.options[c.now].loss;
    return loss * scale_;
  }
  double LossOfEightBits() const {
    double loss = 0;
    for (const Candidate &c : candidates_) loss += IsInput(c.part) ? c.options[0].loss : 0;
    return loss * scale_;
  }

  /// The best step within `limit` bytes of the whole file. False when no weight has one.
  bool Raise(uint64_t limit) {
    Candidate *best = nullptr;
    size_t best_option = 0;
    double best_rate = 0;
    bool weight_fits = false;
    for (Candidate &candidate : candidates_) {
      for (size_t option = candidate.now + 1; option < candidate.options.size(); ++option) {
        const double gain = candidate.options[candidate.now].loss - candidate.options[option].loss;
        const double rate = gain / Price(candidate, option, candidate.now);
        if (!(rate > 0) || !Fits(&candidate, option, limit)) continue;
        weight_fits = weight_fits || !IsInput(candidate.part);
        if (rate <= best_rate) continue;
        best = &candidate;
        best_option = option;
        best_rate = rate;
      }
    }
    if (!weight_fits) return false;
    Set(best, best_option);
    return true;
  }

  const RecipeOptions &options() const { return options_; }

  std::vector<SensitivityReport> Report() const {
    std::vector<SensitivityReport> lines;
    for (const Candidate &c : candidates_) {
      const auto name = [&](size_t option) -> std::string {
        if (IsInput(c.part)) return option == 0 ? "s8" : "s15";
        return FormatName(c.options[option].format);
      };
      const uint64_t saved =
          IsInput(c.part) ? 0 : PartBytes(c.part, WeightFormat::kW8) - PartBytes(c.part, c.options[0].format);
      lines.push_back({c.layer, PartName(c.part), name(0), name(c.now), c.options[0].loss, saved});
    }
    return lines;
  }

 private:
  /// Of a weight.
  uint64_t PartBytes(Part part, WeightFormat format) const {
    const int64_t hidden = config_.hidden, q = config_.heads * config_.head_dim, kv = config_.kv_heads * config_.head_dim;
    const auto bytes = [&](int64_t n, int64_t k) { return WeightBytes(format, options_.channel_layouts, n, k); };
    switch (part) {
      case Part::kQkv:
        return bytes(q + 2 * kv, hidden);
      case Part::kO:
        return bytes(hidden, q);
      case Part::kGateUp:
        return bytes(2 * ffn_.padded, hidden);
      case Part::kDown:
        return bytes(hidden, ffn_.padded);
      case Part::kHead:
        return bytes(config_.vocab, hidden) * (config_.tied_head ? 1 : 2);
      default:
        return 0;
    }
  }

  /// What raising a part costs, in bytes of weights or in what counts as such.
  double Price(const Candidate &candidate, size_t to, size_t from) const {
    const auto input = [&](Part reader) { return kInputPrice * static_cast<double>(PartBytes(reader, WeightFormat::kW8)); };
    switch (candidate.part) {
      case Part::kAttnIn:
        return input(Part::kQkv);
      case Part::kFfnIn:
        return input(Part::kGateUp);
      case Part::kDownIn:
        return input(Part::kDown);
      default:
        return static_cast<double>(PartBytes(candidate.part, candidate.options[to].format)) -
               static_cast<double>(PartBytes(candidate.part, candidate.options[from].format));
    }
  }

  bool Fits(Candidate *candidate, size_t option, uint64_t limit) {
    const size_t now = candidate->now;
    Set(candidate, option);
    const bool fits = FileBytesNow() <= limit;
    Set(candidate, now);
    return fits;
  }

  void Set(Candidate *candidate, size_t option) {
    candidate->now = option;
    if (IsInput(candidate->part)) {
      InputTypes &inputs = options_.layers[static_cast<size_t>(candidate->layer)].inputs;
      EdgeType &type = candidate->part == Part::kAttnIn  ? inputs.attn_in
                       : candidate->part == Part::kFfnIn ? inputs.ffn_in
                                                         : inputs.down_in;
      type = option == 0 ? EdgeType::kS8 : EdgeType::kS15;
    } else {
      FormatOf(*candidate) = candidate->options[option].format;
    }
  }

  WeightFormat &FormatOf(const Candidate &weight) {
    if (weight.part == Part::kHead) return options_.head_format;
    LayerFormats &layer = options_.layers[static_cast<size_t>(weight.layer)];
    switch (weight.part) {
      case Part::kQkv:
        return layer.qkv;
      case Part::kO:
        return layer.o;
      case Part::kGateUp:
        return layer.gate_up;
      default:
        return layer.down;
    }
  }

  const ModelConfig &config_;
  FfnShape ffn_;
  RecipeOptions options_;
  uint64_t tokenizer_bytes_;
  std::vector<Candidate> candidates_;
  double scale_ = 1;
};

}  // namespace

MixedChoice ChooseMixed(const ModelConfig &config, const RecipeOptions &plain, const Sensitivities &sensitivities,
                        const MixedBudget &budget, uint64_t tokenizer_bytes) {
  Chooser chooser(config, plain, sensitivities, tokenizer_bytes);
  MixedChoice choice;
  choice.plain_loss = chooser.Loss();
  if (budget.file_bytes != 0) {
    while (chooser.Raise(budget.file_bytes)) {
    }
  } else {
    const double limit = chooser.LossOfEightBits() + std::log1p(budget.loss);
    while (chooser.Loss() > limit && chooser.Raise(UINT64_MAX)) {
    }
  }
  choice.options = chooser.options();
  choice.sensitivities = chooser.Report();
  choice.loss = chooser.Loss();
  choice.file_bytes = chooser.FileBytesNow();
  for (const SensitivityReport &part : choice.sensitivities) {
    if (part.chosen != part.tried) ++(part.chosen == "s15" ? choice.raised_inputs : choice.raised_weights);
  }
  return choice;
}

}  // namespace acorn::compiler
