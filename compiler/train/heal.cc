#include "train/heal.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <string>

#include "base/error.h"
#include "base/parallel.h"
#include "base/progress.h"
#include "base/random.h"
#include "train/adam.h"
#include "train/elastic_model.h"
#include "train/interrupt.h"
#include "train/teacher.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kWindows = 1024;       // of calibration text, seen and held out
constexpr int64_t kWindowTokens = 256;   // of a step: for the same time, many small steps get further than few large ones
constexpr int64_t kHeldOutTokens = 2048; // that training never sees
constexpr int64_t kLeastWindows = 4;     // of which one is held out
constexpr int64_t kRank = 8;
constexpr double kRate = 1e-3;           // of Adam
constexpr double kLastRate = 0.02;       // share of it at the end of the cosine
constexpr double kWarmUpSteps = 10;
constexpr double kFavour = 0.1;          // a rate is drawn e^0.1 times as often as the next lower one
constexpr double kTolerance = 0.01;      // nats that a rate may always diverge from the whole model, which rate 0 begins as
constexpr double kShrink = 0.9;          // of what would just bring rate 0 back to it
constexpr int64_t kMeasurements = 12;    // of the held-out windows, evenly over the steps
constexpr double kMeasuringShare = 0.1;  // of the time, where that is what ends it
constexpr double kSmoothing = 0.05;      // of the training loss that is shown
constexpr double kPi = 3.14159265358979323846;

/// Of the held-out windows, at each rate.
struct Measurement {
  std::vector<double> loss, cross_entropy;  // [rates]
};

class Healing {
 public:
  Healing(const SourceModel &source, const std::vector<RateProfile> &profiles, const CalibrationWindows &windows,
          const HealOptions &options)
      : profiles_(profiles),
        options_(options),
        window_(windows.window % kWindowTokens == 0 ? kWindowTokens : windows.window),
        ids_(windows.ids),
        model_(source, window_, kRank, options.seed),
        random_(options.seed) {
    const int64_t count = static_cast<int64_t>(ids_.size()) / window_;
    const int64_t held = std::clamp<int64_t>(kHeldOutTokens / window_, 1, count / kLeastWindows), stride = count / held;
    for (int64_t i = 0; i < count; ++i) {
      const bool out = i % stride == stride / 2 && static_cast<int64_t>(held_out_.size()) < held;
      (out ? held_out_ : seen_).push_back(i);
    }
    teacher_.resize(static_cast<size_t>(count));
    std::vector<torch::Tensor> values;
    for (const torch::Tensor &parameter : model_.parameters()) {
      adam_.New(parameter.numel());
      values.push_back(parameter.detach().flatten());
    }
    adam_.SetValues(values);
  }

  HealResult Run() {
    const bool timed = options_.minutes > 0;
    const bool by_steps = options_.steps != 0;
    Progress progress("healing", by_steps ? options_.steps : static_cast<int64_t>(60 * options_.minutes));
    const Measurement before = Measure();
    best_ = last_ = before;
    HealResult result;
    int64_t step = 0;
    bool measured = true;
    while (true) {
      if (by_steps && step == options_.steps) break;
      if (interrupt_.asked()) result.end = TrainingEnd::kInterrupted;
      const int64_t to_measure = IsWholeLost() ? 2 : 1;
      if (timed && Minutes() + step_minutes_ + to_measure * measure_minutes_ > options_.minutes) {
        result.end = TrainingEnd::kTimeLimit;
      }
      if (result.end != TrainingEnd::kAllSteps) break;
      const double loss = Step(RateAt(step));
      if (!std::isfinite(loss)) {
        std::fprintf(stderr, "acornc: healing: the loss of step %lld is no number: the best state before it is kept\n",
                     static_cast<long long>(step) + 1);
        result.end = TrainingEnd::kDiverged;
        break;
      }
      ++step;
      smoothed_ = std::isnan(smoothed_) ? loss : smoothed_ + kSmoothing * (loss - smoothed_);
      measured = IsTimeToMeasure(step);
      if (measured) MeasureAndKeep(before, step, &result);
      progress.Update(by_steps ? step : static_cast<int64_t>(60 * Minutes()), Note(step));
    }
    if (!measured && result.end != TrainingEnd::kDiverged) MeasureAndKeep(before, step, &result);
    if (IsWholeLost() && result.end != TrainingEnd::kDiverged) {
      // Its divergence grows with the square of the additions, what the other rates win with the additions.
      model_.ScaleAdditions(kShrink * std::sqrt(kTolerance / last_.loss.front()));
      MeasureAndKeep(before, step, &result);
    }
    result.steps = step;
    for (size_t i = 0; i < profiles_.size(); ++i) {
      result.rates.push_back({profiles_[i].rate, before.loss[i], best_.loss[i], std::exp(before.cross_entropy[i]),
                              std::exp(best_.cross_entropy[i])});
    }
    progress.Finish(std::to_string(step) + " steps, best after " + std::to_string(result.best_step));
    return result;
  }

 private:
  std::vector<int32_t> Ids(int64_t window) const {
    return {ids_.begin() + window * window_, ids_.begin() + (window + 1) * window_};
  }

  /// What the whole model says; its states are computed when they are first asked for.
  torch::Tensor TeacherLogits(int64_t window) {
    torch::Tensor &normed = teacher_[static_cast<size_t>(window)];
    if (!normed.defined()) normed = model_.SourceNormed(Ids(window));
    return model_.Logits(normed);
  }

  /// One step at a rate drawn anew. Returns its loss.
  double Step(double adam_rate) {
    const auto start = Now();
    const int64_t window = NextWindow();
    const std::vector<int32_t> ids = Ids(window);
    const torch::Tensor target = TeacherLogits(window);
    const torch::Tensor normed = model_.Normed(ids, profiles_[DrawRate()].layers);
    torch::Tensor logits = model_.Logits(normed);
    const double loss = DivergenceOf(target, ids, &logits).kl;
    if (!std::isfinite(loss)) return loss;
    model_.BackwardOfLogits(normed, logits);
    const std::vector<torch::Tensor> &parameters = model_.parameters();
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (!parameters[i].grad().defined()) continue;
      adam_.SetGradient(i, parameters[i].grad().flatten());
      parameters[i].mutable_grad().reset();
    }
    const torch::NoGradGuard no_gradient;
    adam_.Step(adam_rate);
    for (size_t i = 0; i < parameters.size(); ++i) {
      torch::Tensor parameter = parameters[i];
      parameter.copy_(adam_.value(i).view_as(parameter));
    }
    step_minutes_ = MinutesSince(start);
    return loss;
  }

  int64_t NextWindow() {
    if (left_.empty()) {
      left_ = seen_;
      for (size_t i = left_.size(); i > 1; --i) std::swap(left_[i - 1], left_[NextRandom(&random_) % i]);
    }
    const int64_t next = left_.back();
    left_.pop_back();
    return next;
  }

  /// Index of a profile; of two neighbours the higher rate is e^kFavour times as likely.
  size_t DrawRate() {
    double total = 0;
    for (size_t i = 0; i < profiles_.size(); ++i) total += std::exp(kFavour * static_cast<double>(i));
    double left = total * static_cast<double>(NextRandom(&random_) >> 11) * 0x1p-53;
    for (size_t i = 0; i + 1 < profiles_.size(); ++i) {
      left -= std::exp(kFavour * static_cast<double>(i));
      if (left < 0) return i;
    }
    return profiles_.size() - 1;
  }

  /// A cosine over the steps, or the minutes where steps do not say.
  double RateAt(int64_t step) const {
    const double progress = options_.steps != 0 ? static_cast<double>(step) / static_cast<double>(options_.steps)
                                                : std::min(1.0, Minutes() / options_.minutes);
    const double warm_up = std::min(1.0, static_cast<double>(step + 1) / kWarmUpSteps);
    return kRate * warm_up * (kLastRate + (1 - kLastRate) * 0.5 * (1 + std::cos(kPi * progress)));
  }

  bool IsTimeToMeasure(int64_t step) const {
    if (options_.steps == 0) return MinutesSince(last_measured_) * kMeasuringShare > measure_minutes_;
    return step % std::max<int64_t>(1, options_.steps / kMeasurements) == 0 || step == options_.steps;
  }

  Measurement Measure() {
    const torch::NoGradGuard no_gradient;
    const auto start = Now();
    Measurement result = {std::vector<double>(profiles_.size()), std::vector<double>(profiles_.size())};
    const auto windows = static_cast<double>(held_out_.size());
    for (const int64_t window : held_out_) {
      const std::vector<int32_t> ids = Ids(window);
      const torch::Tensor target = TeacherLogits(window);
      for (size_t i = 0; i < profiles_.size(); ++i) {
        torch::Tensor logits = model_.Logits(model_.Normed(ids, profiles_[i].layers));
        const Divergence divergence = DivergenceOf(target, ids, &logits);
        result.loss[i] += std::max(0.0, divergence.kl) / windows;  // below 0 by rounding only
        result.cross_entropy[i] += divergence.cross_entropy / windows;
      }
    }
    last_measured_ = Now();
    measure_minutes_ = MinutesSince(start);
    return result;
  }

  /// Was rate 0 beyond its tolerance when it was last measured?
  bool IsWholeLost() const { return last_.loss.front() > kTolerance; }

  void MeasureAndKeep(const Measurement &before, int64_t step, HealResult *result) {
    const Measurement now = last_ = Measure();
    double total = 0, best_total = 0;
    for (size_t i = 0; i < profiles_.size(); ++i) {
      if (!(now.loss[i] <= std::max(before.loss[i], kTolerance))) return;
      total += now.loss[i];
      best_total += best_.loss[i];
    }
    if (!(total < best_total)) return;
    best_ = now;
    result->best_step = step;
    result->additions = model_.Additions();
  }

  std::string Note(int64_t step) const {
    char text[64];
    std::snprintf(text, sizeof text, "step %lld, loss %.4f, held out", static_cast<long long>(step), smoothed_);
    std::string note = text;
    for (size_t i = 0; i < profiles_.size(); ++i) {
      std::snprintf(text, sizeof text, " %d %%: %.4f", profiles_[i].rate, best_.loss[i]);
      note += text;
    }
    return note;
  }

  using Time = std::chrono::steady_clock::time_point;
  static Time Now() { return std::chrono::steady_clock::now(); }
  static double MinutesSince(Time start) { return std::chrono::duration<double>(Now() - start).count() / 60; }
  double Minutes() const { return MinutesSince(start_); }

  const Interrupt interrupt_;
  const std::vector<RateProfile> &profiles_;
  HealOptions options_;
  int64_t window_;
  std::vector<int32_t> ids_;
  ElasticModel model_;
  Adam adam_;
  std::vector<torch::Tensor> teacher_;  // [windows] of [tokens, hidden], undefined until asked for
  std::vector<int64_t> held_out_, seen_, left_;
  uint64_t random_;
  const Time start_ = Now();
  Time last_measured_ = start_;
  double step_minutes_ = 0, measure_minutes_ = 0;
  double smoothed_ = NAN;
  Measurement best_, last_;
};

}  // namespace

void CheckHealing(const SourceModel &source, const std::vector<int> &rates) {
  const ModelConfig &config = source.config();
  if (config.experts != 0) {
    // All routed experts would have to be in memory, and each sees too few tokens of a step to learn from.
    throw Error(ExitCode::kUsage, "--heal does not know layers with experts: " + source.path() + " (family " + config.family + ")");
  }
  if (rates.size() < 2 || rates.front() != 0) {
    throw Error(ExitCode::kUsage, "--heal needs rate 0, which it keeps as it is, and a higher one to heal");
  }
}

HealResult Heal(const SourceModel &source, const std::vector<RateProfile> &profiles, const CalibrationWindows &windows,
                const HealOptions &options) {
  torch::set_num_threads(ThreadCount());
  const int64_t count = static_cast<int64_t>(windows.ids.size()) / windows.window;
  if (count < kLeastWindows) {
    throw Error(ExitCode::kUsage, "healing needs " + std::to_string(kLeastWindows) + " windows of " +
                                      std::to_string(windows.window) + " tokens of calibration text, there are " +
                                      std::to_string(count));
  }
  try {
    return Healing(source, profiles, windows, options).Run();
  } catch (const c10::Error &fault) {
    // Its allocator says so in words alone.
    const std::string message = fault.what_without_backtrace();
    if (message.find("allocate memory") == std::string::npos) throw std::runtime_error("LibTorch: " + message);
    throw Error(ExitCode::kMemory, "out of memory while healing");
  }
}

HealResult HealOnTexts(const SourceModel &source, const std::vector<RateProfile> &profiles, CalibrationOptions texts,
                       const HealOptions &options) {
  texts.windows = kWindows;
  HealResult result = Heal(source, profiles, MakeCalibration(source, texts), options);
  for (const HealedRate &rate : result.rates) {
    std::fprintf(stderr,
                 "acornc: healing: rate %d, on text it never saw: divergence %.4f, before %.4f; perplexity %.3f, before %.3f\n",
                 rate.rate, rate.loss_after, rate.loss_before, rate.perplexity_after, rate.perplexity_before);
  }
  return result;
}

}  // namespace acorn::compiler
