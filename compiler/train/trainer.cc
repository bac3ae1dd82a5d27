#include "train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "base/error.h"
#include "base/parallel.h"
#include "base/progress.h"
#include "train/checkpoint.h"
#include "train/interrupt.h"
#include "train/model_twin.h"
#include "train/parameters.h"
#include "train/teacher.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kHeldOut = 8;         // windows that training never sees
constexpr int64_t kLeastWindows = 4;    // of which one is held out
constexpr double kRate = 5e-4;          // of Adam, in the units of parameters.h
constexpr double kLastRate = 0.05;      // share of it at the end of the cosine
constexpr double kWarmUpSteps = 20;
constexpr int64_t kMeasurements = 24;   // of the held-out windows, evenly over the steps
constexpr double kSmoothing = 0.05;     // of the training loss that is shown
constexpr char kStage[] = "integers fixed";
constexpr double kPi = 3.14159265358979323846;

/// SplitMix64 (Steele, Lea, Flood 2014).
uint64_t NextRandom(uint64_t *state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/// Windows in a new order each time round.
struct Order {
  std::vector<int64_t> all, left;
  uint64_t state = 0;
  int64_t Next() {
    if (left.empty()) {
      left = all;
      for (size_t i = left.size(); i > 1; --i) std::swap(left[i - 1], left[NextRandom(&state) % i]);
    }
    const int64_t next = left.back();
    left.pop_back();
    return next;
  }
};

double RateAt(int64_t step, int64_t steps) {
  const double progress = static_cast<double>(step) / static_cast<double>(steps);
  const double warm_up = std::min(1.0, static_cast<double>(step + 1) / kWarmUpSteps);
  return kRate * warm_up * (kLastRate + (1 - kLastRate) * 0.5 * (1 + std::cos(kPi * progress)));
}

/// FNV-1a over what decides the result: a checkpoint of another run is not gone on with.
class Fingerprint {
 public:
  template <typename T>
  void Add(const T *data, size_t count) {
    const auto *bytes = reinterpret_cast<const uint8_t *>(data);
    for (size_t i = 0; i < count * sizeof(T); ++i) value_ = (value_ ^ bytes[i]) * 0x100000001b3u;
  }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xcbf29ce484222325u;
};

struct HeldOut {
  double loss = 0, perplexity = 0;
};

class Training {
 public:
  Training(const SourceModel &source, const CalibrationWindows &windows, const TrainOptions &options, QuantizedModel *model)
      : options_(options),
        model_(model),
        teacher_(source, windows.ids, windows.window),
        twin_(source.config(), model, windows.window),
        parameters_(source.config(), model) {
    const int64_t count = teacher_.windows();
    if (count < kLeastWindows) {
      throw Error(ExitCode::kUsage, "training needs " + std::to_string(kLeastWindows) + " windows of " +
                                        std::to_string(windows.window) + " tokens of calibration text, there are " +
                                        std::to_string(count));
    }
    const int64_t held = std::min(kHeldOut, count / kLeastWindows), stride = count / held;
    for (int64_t i = 0; i < count; ++i) {
      const bool out = i % stride == stride / 2 && static_cast<int64_t>(held_out_.size()) < held;
      (out ? held_out_ : order_.all).push_back(i);
    }
    order_.state = options.seed;
    Fingerprint fingerprint;
    fingerprint.Add(windows.ids.data(), windows.ids.size());
    fingerprint.Add(model->head.weight.scale.data(), model->head.weight.scale.size());
    for (const QuantizedLayer &layer : model->layers) {
      fingerprint.Add(layer.qkv.scale.data(), layer.qkv.scale.size());
      fingerprint.Add(layer.down.weights.data(), layer.down.weights.size());
    }
    const int64_t numbers[] = {options.steps, static_cast<int64_t>(options.seed), static_cast<int64_t>(options.loss)};
    fingerprint.Add(numbers, 3);
    fingerprint_ = fingerprint.value();
  }

  TrainResult Run() {
    const Interrupt interrupt;
    result_.float_perplexity = FloatPerplexity();
    if (!Resume()) {
      parameters_.Apply();
      twin_.Refresh();
      const HeldOut first = Measure();
      result_.loss_before = result_.loss_after = first.loss;
      result_.perplexity_before = result_.perplexity_after = first.perplexity;
      result_.points.push_back({kStage, 0, first.loss, first.loss, 0});
      best_ = parameters_.Values();
    }
    const int64_t every = std::max<int64_t>(1, options_.steps / kMeasurements);
    Progress progress("training", options_.steps);
    while (step_ < options_.steps) {
      if (interrupt.asked()) result_.end = TrainingEnd::kInterrupted;
      if (options_.time_limit_minutes > 0 && Minutes() > options_.time_limit_minutes) result_.end = TrainingEnd::kTimeLimit;
      if (result_.end != TrainingEnd::kAllSteps) break;
      const double rate = RateAt(step_, options_.steps);
      const double loss = Step(rate);
      if (!std::isfinite(loss)) {
        std::fprintf(stderr, "acornc: training: the loss of step %lld is no number: the best state before it is kept\n",
                     static_cast<long long>(step_ + 1));
        result_.end = TrainingEnd::kDiverged;
        break;
      }
      smoothed_ = step_ == 0 ? loss : smoothed_ + kSmoothing * (loss - smoothed_);
      ++step_;
      if (step_ % every == 0 || step_ == options_.steps) MeasureAndKeep(rate);
      char note[96];
      std::snprintf(note, sizeof note, "loss %.4f, held out %.4f (best %.4f, before %.4f)", smoothed_, last_held_out_,
                    result_.loss_after, result_.loss_before);
      progress.Update(step_, note);
      if (!options_.checkpoint.empty() && Minutes() - saved_ >= options_.checkpoint_minutes) Save();
    }
    if (result_.end == TrainingEnd::kInterrupted || result_.end == TrainingEnd::kTimeLimit) {
      if (!options_.checkpoint.empty()) Save();
      MeasureAndKeep(NAN);  // where it was stopped may be better than at the last measurement
    }
    result_.steps = step_;
    parameters_.SetValues(best_);
    parameters_.Apply();
    progress.Finish(TrainingEndText({result_.points, result_.end}));
    return std::move(result_);
  }

 private:
  double Minutes() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count() / 60;
  }

  double FloatPerplexity() const {
    double sum = 0;
    for (const int64_t window : held_out_) {
      torch::Tensor same = teacher_.Logits(window);
      sum += DivergenceOf(same.clone(), teacher_.Ids(window), &same).cross_entropy;
    }
    return std::exp(sum / static_cast<double>(held_out_.size()));
  }

  HeldOut Measure() {
    HeldOut total;
    double cross_entropy = 0;
    for (const int64_t window : held_out_) {
      const std::vector<int32_t> ids = teacher_.Ids(window);
      torch::Tensor logits = twin_.Logits(ids).to(torch::kFloat) * static_cast<float>(twin_.logit_scale());
      const Divergence divergence = DivergenceOf(teacher_.Logits(window), ids, &logits);
      total.loss += divergence.kl / static_cast<double>(held_out_.size());
      cross_entropy += divergence.cross_entropy / static_cast<double>(held_out_.size());
    }
    total.perplexity = std::exp(cross_entropy);
    return total;
  }

  void MeasureAndKeep(double rate) {
    const HeldOut now = Measure();
    last_held_out_ = now.loss;
    result_.points.push_back({kStage, step_, smoothed_, now.loss, rate});
    if (!(now.loss < result_.loss_after)) return;
    result_.loss_after = now.loss;
    result_.perplexity_after = now.perplexity;
    result_.best_step = step_;
    best_ = parameters_.Values();
  }

  double Step(double rate) {
    const int64_t window = order_.Next();
    const std::vector<int32_t> ids = teacher_.Ids(window);
    ModelGradients gradients;
    double loss = 0;
    if (options_.loss == TrainLoss::kLogits) {
      const torch::Tensor target = teacher_.Logits(window);
      loss = twin_.Accumulate(
          ids, [&](torch::Tensor *logits) { return DivergenceOf(target, ids, logits).kl; }, &gradients, false);
    } else {
      const torch::Tensor target = teacher_.Hidden(window);
      loss = twin_.AccumulateHidden(
          ids,
          [&](torch::Tensor *hidden) {
            const double size = target.square().sum().item<double>();
            hidden->sub_(target);
            const double error = hidden->square().sum().item<double>() / size;
            hidden->mul_(2 / size);
            return error;
          },
          &gradients, false);
    }
    if (!std::isfinite(loss)) return loss;
    parameters_.Step(twin_, gradients, 1, rate);
    parameters_.Apply();
    twin_.Refresh();
    return loss;
  }

  void Save() {
    Archive archive;
    archive.PutOne("fingerprint", fingerprint_);
    archive.PutOne("step", step_);
    archive.PutOne("smoothed", smoothed_);
    archive.PutOne("last_held_out", last_held_out_);
    archive.PutOne("random", order_.state);
    archive.Put("order", order_.left);
    std::vector<double> points;
    for (const TrainingPoint &point : result_.points) {
      points.insert(points.end(), {static_cast<double>(point.step), point.training_loss, point.held_out_loss, point.learning_rate});
    }
    archive.Put("points", points);
    archive.Put<double>("losses", {result_.loss_before, result_.loss_after, result_.perplexity_before, result_.perplexity_after});
    archive.PutOne("best_step", result_.best_step);
    PutTensors(&archive, "values", parameters_.Values());
    PutTensors(&archive, "best", best_);
    PutTensors(&archive, "state", parameters_.State());
    archive.Save(options_.checkpoint);
    saved_ = Minutes();
  }

  bool Resume() {
    if (options_.checkpoint.empty()) return false;
    std::FILE *file = std::fopen(options_.checkpoint.c_str(), "rb");
    if (file == nullptr) return false;
    std::fclose(file);
    const Archive archive = Archive::Load(options_.checkpoint);
    if (archive.GetOne<uint64_t>("fingerprint") != fingerprint_) {
      throw Error(ExitCode::kUsage, options_.checkpoint + ": of a conversion with other input or options; remove it to start anew");
    }
    step_ = archive.GetOne<int64_t>("step");
    smoothed_ = archive.GetOne<double>("smoothed");
    last_held_out_ = archive.GetOne<double>("last_held_out");
    order_.state = archive.GetOne<uint64_t>("random");
    order_.left = archive.Get<int64_t>("order");
    for (const int64_t window : order_.left) {
      if (window < 0 || window >= teacher_.windows()) {
        throw Error(ExitCode::kIo, options_.checkpoint + ": damaged; remove it to start anew");
      }
    }
    const std::vector<double> points = archive.Get<double>("points");
    for (size_t i = 0; i + 3 < points.size(); i += 4) {
      result_.points.push_back({kStage, static_cast<int64_t>(points[i]), points[i + 1], points[i + 2], points[i + 3]});
    }
    const std::vector<double> losses = archive.Get<double>("losses");
    result_.best_step = archive.GetOne<int64_t>("best_step");
    std::vector<torch::Tensor> values = parameters_.Values(), state = parameters_.State();
    best_ = parameters_.Values();
    GetTensors(archive, "values", &values);
    GetTensors(archive, "best", &best_);
    GetTensors(archive, "state", &state);
    if (losses.size() != 4) throw Error(ExitCode::kIo, options_.checkpoint + ": damaged; remove it to start anew");
    result_.loss_before = losses[0];
    result_.loss_after = losses[1];
    result_.perplexity_before = losses[2];
    result_.perplexity_after = losses[3];
    parameters_.SetValues(values);
    parameters_.SetState(state);
    parameters_.Apply();
    twin_.Refresh();
    std::fprintf(stderr, "acornc: going on from %s, step %lld\n", options_.checkpoint.c_str(), static_cast<long long>(step_));
    return true;
  }

  TrainOptions options_;
  QuantizedModel *model_;
  Teacher teacher_;
  ModelTwin twin_;
  Parameters parameters_;
  std::vector<int64_t> held_out_;
  Order order_;
  uint64_t fingerprint_ = 0;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  double saved_ = 0;  // minutes
  int64_t step_ = 0;
  double smoothed_ = 0, last_held_out_ = NAN;
  std::vector<torch::Tensor> best_;
  TrainResult result_;
};

}  // namespace

TrainResult Train(const SourceModel &source, const CalibrationWindows &windows, const TrainOptions &options,
                  QuantizedModel *model) {
  const torch::NoGradGuard no_autograd;
  torch::set_num_threads(ThreadCount());
  return Training(source, windows, options, model).Run();
}

}  // namespace acorn::compiler
