#include "train/trainer.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/parallel.h"
#include "base/progress.h"
#include "train/checkpoint.h"
#include "train/interrupt.h"
#include "train/mobilequant.h"
#include "train/model_twin.h"
#include "train/parameters.h"
#include "train/rounding.h"
#include "train/shaping.h"
#include "train/teacher.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kHeldOut = 8;         // windows that training never sees
constexpr int64_t kLeastWindows = 4;    // of which one is held out
constexpr double kStageEnds[] = {0.08, 0.8, 1};  // shares of the steps, or of the time, by which each stage is done
constexpr double kShapingRate = 5e-3;   // of Adam, for the logarithms of equivalent scales
constexpr double kTuningRate = 5e-4;    // in the units of parameters.h
constexpr double kFinalRate = 1e-4;     // the same, of the last stage: the one before has cooled down
constexpr double kLastRate = 0.05;      // share of the rate at the end of a stage's cosine
constexpr double kWarmUpSteps = 20;
constexpr int64_t kMeasurements = 24;   // of the held-out windows, evenly over the steps
constexpr double kSmoothing = 0.05;     // of the training loss that is shown
constexpr double kPi = 3.14159265358979323846;
constexpr int64_t kLastStage = 2;
const char *const kStages[] = {"scales, clipping, ranges", "rounding", "integers fixed"};

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

/// Share of a stage's rate after `step` of its steps.
double RateAt(int64_t step, int64_t steps) {
  const double progress = static_cast<double>(step) / static_cast<double>(steps);
  const double warm_up = std::min(1.0, static_cast<double>(step + 1) / kWarmUpSteps);
  return warm_up * (kLastRate + (1 - kLastRate) * 0.5 * (1 + std::cos(kPi * progress)));
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
  Training(const SourceModel &source, const CalibrationWindows &windows, const TrainOptions &options,
           std::vector<LayerWeights> unrounded, QuantizedModel *model)
      : config_(source.config()),
        options_(options),
        unrounded_(std::move(unrounded)),
        model_(model),
        teacher_(source, windows.ids, windows.window),
        twin_(source.config(), model, windows.window) {
    const int64_t count = teacher_.windows(), held = std::min(kHeldOut, count / kLeastWindows), stride = count / held;
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
    result_.float_perplexity = FloatPerplexity();
    const HeldOut closed_form = Measure();
    result_.loss_before = closed_form.loss;
    result_.perplexity_before = closed_form.perplexity;
    const std::unique_ptr<Archive> resumed = Resume();
    const int64_t left = stage_;  // where the checkpoint was left
    const auto of_stage = [&](int64_t stage) { return left == stage ? resumed.get() : nullptr; };
    if (stage_ == 0) Shape(closed_form, of_stage(0));
    if (stage_ == 1) Round(of_stage(1));
    Tune(of_stage(2));
    result_.steps = step_;
    for (const int64_t window : held_out_) {
      const std::vector<int32_t> ids = teacher_.Ids(window);
      result_.held_out.insert(result_.held_out.end(), ids.begin(), ids.end());
    }
    return std::move(result_);
  }

 private:
  /// Step before which stage_ ends.
  int64_t LastStep() const { return static_cast<int64_t>(static_cast<double>(options_.steps) * kStageEnds[stage_]); }

  /// Scales, clipping and ranges, then GPTQ on what was learned. The best of the closed form and the two stays.
  void Shape(const HeldOut &closed_form, const Archive *resumed) {
    if (unrounded_.empty()) {
      stage_ = 1;
      return;
    }
    shaping_ = std::make_unique<Shaping>(config_, model_, std::move(unrounded_));
    if (LastStep() == 0) {
      stage_ = 1;
      return;
    }
    QuantizedModel best_model = *model_;
    const std::vector<torch::Tensor> start = shaping_->Values();
    bool closed_form_stays = true;
    RunStage(shaping_.get(), 0, kShapingRate, resumed);
    double best = closed_form.loss;
    const auto keep_if_better = [&](const char *what) {
      const double loss = Measure().loss;
      std::fprintf(stderr, "acornc: training: %s: loss %.4f, closed form %.4f\n", what, loss, closed_form.loss);
      if (!(loss < best)) return;
      best = loss;
      best_model = *model_;
      closed_form_stays = false;
    };
    keep_if_better("scales learned, rounded to nearest");
    if (result_.end == TrainingEnd::kAllSteps) {
      std::vector<std::vector<int32_t>> windows;
      const size_t stride = std::max<size_t>(1, order_.all.size() / kClosedFormWindows);
      for (size_t i = 0; i < order_.all.size(); i += stride) windows.push_back(teacher_.Ids(order_.all[i]));
      RoundOnLearnedGrids(*shaping_, windows, &twin_, model_);
      keep_if_better("scales learned, rounded by GPTQ");
    }
    result_.loss_shaped = best;
    if (closed_form_stays) shaping_->SetValues(start);
    Replace(std::move(best_model));
    stage_ = 1;
  }

  /// The integers of the layers' weights, with all that the last stage moves.
  void Round(const Archive *resumed) {
    if (result_.end == TrainingEnd::kAllSteps && step_ < LastStep()) {
      Parameters parameters(config_, model_, true, shaping_.get());
      shaping_.reset();
      RunStage(&parameters, step_, kTuningRate, resumed);
    }
    stage_ = kLastStage;
  }

  void Tune(const Archive *resumed) {
    Parameters parameters(config_, model_, false);
    if (result_.end == TrainingEnd::kAllSteps) {
      RunStage(&parameters, step_, kFinalRate, resumed);
    } else {
      parameters.Apply();
      twin_.Refresh();
    }
    const HeldOut now = Measure();
    result_.loss_after = now.loss;
    result_.perplexity_after = now.perplexity;
  }

  /// Steps of all from `first`, or from where a checkpoint left the stage. The best state of them is in the model at the end.
  void RunStage(Learner *learner, int64_t first, double rate, const Archive *resumed) {
    best_ = learner->Values();
    if (stage_ > 0) stage_start_ = *model_;
    best_loss_ = INFINITY;
    if (resumed != nullptr) first = resumed->GetOne<int64_t>("stage_first");
    stage_first_ = first;
    const int64_t last = LastStep();
    if (resumed != nullptr) {
      Restore(*resumed, learner);
    } else {
      step_ = first;
      Apply(learner);
      smoothed_ = NAN;
      MeasureAndKeep(learner, NAN);
    }
    const int64_t every = std::max<int64_t>(1, options_.steps / kMeasurements);
    Progress progress(std::string("training (") + kStages[stage_] + ")", last - first);
    while (step_ < last) {
      if (interrupt_.asked()) result_.end = TrainingEnd::kInterrupted;
      if (options_.time_limit_minutes > 0 && Minutes() > options_.time_limit_minutes * kStageEnds[stage_]) {
        if (stage_ != kLastStage) break;  // the next one goes on
        result_.end = TrainingEnd::kTimeLimit;
      }
      if (result_.end != TrainingEnd::kAllSteps) break;
      const double step_rate = rate * RateAt(step_ - first, last - first);
      const double loss = Step(learner, step_rate);
      if (!std::isfinite(loss)) {
        std::fprintf(stderr, "acornc: training: the loss of step %lld is no number: the best state before it is kept\n",
                     static_cast<long long>(step_) + 1);
        result_.end = TrainingEnd::kDiverged;
        break;
      }
      smoothed_ = std::isnan(smoothed_) ? loss : smoothed_ + kSmoothing * (loss - smoothed_);
      ++step_;
      if (options_.on_step) options_.on_step(step_);
      if (step_ % every == 0 || step_ == last) MeasureAndKeep(learner, step_rate);
      char note[96];
      std::snprintf(note, sizeof note, "loss %.4f, held out %.4f (best %.4f, closed form %.4f)", smoothed_, last_held_out_,
                    best_loss_, result_.loss_before);
      progress.Update(step_ - first, note);
      if (!options_.checkpoint.empty() && Minutes() - saved_ >= options_.checkpoint_minutes) Save(learner);
    }
    if (result_.end == TrainingEnd::kInterrupted || result_.end == TrainingEnd::kTimeLimit) {
      if (!options_.checkpoint.empty()) Save(learner);
      MeasureAndKeep(learner, NAN);  // where it was stopped may be better than at the last measurement
    }
    learner->SetValues(best_);
    Apply(learner);
    char best[64];
    std::snprintf(best, sizeof best, "best held-out loss %.4f", best_loss_);
    progress.Finish(result_.end == TrainingEnd::kAllSteps ? best : TrainingEndText({result_.points, result_.end}));
  }

  void Apply(Learner *learner) {
    if (learner->Apply()) twin_.Repack();
    twin_.Refresh();
  }

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

  void MeasureAndKeep(Learner *learner, double rate) {
    last_held_out_ = Measure().loss;
    result_.points.push_back({kStages[stage_], step_, smoothed_, last_held_out_, rate});
    if (!(last_held_out_ < best_loss_)) return;
    best_loss_ = last_held_out_;
    result_.best_step = step_;
    best_ = learner->Values();
  }

  double Step(Learner *learner, double rate) {
    const int64_t window = order_.Next();
    const std::vector<int32_t> ids = teacher_.Ids(window);
    ModelGradients gradients;
    double loss = 0;
    if (options_.loss == TrainLoss::kLogits) {
      const torch::Tensor target = teacher_.Logits(window);
      loss = twin_.Accumulate(
          ids, [&](torch::Tensor *logits) { return DivergenceOf(target, ids, logits).kl; }, &gradients, learner->WantsWeights());
    } else {
      const torch::Tensor &target = teacher_.Hidden(window);
      loss = twin_.AccumulateHidden(
          ids,
          [&](torch::Tensor *hidden) {
            const double size = target.square().sum().item<double>();
            hidden->sub_(target);
            const double error = hidden->square().sum().item<double>() / size;
            hidden->mul_(2 / size);
            return error;
          },
          &gradients, learner->WantsWeights());
    }
    if (!std::isfinite(loss)) return loss;
    learner->Step(twin_, gradients, rate);
    Apply(learner);
    return loss;
  }

  void Save(Learner *learner) {
    Archive archive;
    archive.PutOne("fingerprint", fingerprint_);
    archive.PutOne("stage", stage_);
    archive.PutOne("step", step_);
    archive.PutOne("stage_first", stage_first_);
    archive.PutOne("smoothed", smoothed_);
    archive.PutOne("last_held_out", last_held_out_);
    archive.PutOne("best_loss", best_loss_);
    archive.PutOne("best_step", result_.best_step);
    archive.PutOne("loss_shaped", result_.loss_shaped);
    archive.PutOne("random", order_.state);
    archive.Put("order", order_.left);
    std::vector<double> points;
    for (const TrainingPoint &point : result_.points) {
      const auto stage = std::find(std::begin(kStages), std::end(kStages), point.stage) - std::begin(kStages);
      points.insert(points.end(), {static_cast<double>(stage), static_cast<double>(point.step), point.training_loss,
                                   point.held_out_loss, point.learning_rate});
    }
    archive.Put("points", points);
    PutTensors(&archive, "values", learner->Values());
    PutTensors(&archive, "best", best_);
    PutTensors(&archive, "state", learner->State());
    // The first stage starts from the closed form, which is computed anew; the others from what those before have made.
    if (stage_ > 0) PutModel(&archive, stage_start_);
    archive.Save(options_.checkpoint);
    saved_ = Minutes();
  }

  /// The checkpoint, if there is one; sets stage_, and in the second stage the model.
  std::unique_ptr<Archive> Resume() {
    if (options_.checkpoint.empty() || access(options_.checkpoint.c_str(), F_OK) != 0) return nullptr;
    auto archive = std::make_unique<Archive>(Archive::Load(options_.checkpoint));
    if (archive->GetOne<uint64_t>("fingerprint") != fingerprint_) {
      throw Error(ExitCode::kUsage, options_.checkpoint + ": of a conversion with other input or options; remove it to start anew");
    }
    stage_ = archive->GetOne<int64_t>("stage");
    if (stage_ < 0 || stage_ > kLastStage) RefuseCheckpoint();
    if (stage_ > 0) Replace(GetModel(*archive));
    return archive;
  }

  /// Part by part: the twin knows where the present weights lie.
  void Replace(QuantizedModel by) {
    const auto same = [](const QuantizedMatrix &a, const QuantizedMatrix &b) {
      return a.format == b.format && a.n == b.n && a.k == b.k;
    };
    if (by.layers.size() != model_->layers.size() || !same(by.head.weight, model_->head.weight)) RefuseCheckpoint();
    for (size_t i = 0; i < by.layers.size(); ++i) {
      const QuantizedLayer &a = by.layers[i], &b = model_->layers[i];
      if (!same(a.qkv, b.qkv) || !same(a.o, b.o) || !same(a.gate_up, b.gate_up) || !same(a.down, b.down)) RefuseCheckpoint();
      model_->layers[i] = std::move(by.layers[i]);
    }
    model_->head = std::move(by.head);
    twin_.Repack();
    twin_.Refresh();
  }

  void Restore(const Archive &archive, Learner *learner) {
    step_ = archive.GetOne<int64_t>("step");
    smoothed_ = archive.GetOne<double>("smoothed");
    last_held_out_ = archive.GetOne<double>("last_held_out");
    best_loss_ = archive.GetOne<double>("best_loss");
    result_.best_step = archive.GetOne<int64_t>("best_step");
    result_.loss_shaped = archive.GetOne<double>("loss_shaped");
    order_.state = archive.GetOne<uint64_t>("random");
    order_.left = archive.Get<int64_t>("order");
    for (const int64_t window : order_.left) {
      if (window < 0 || window >= teacher_.windows()) RefuseCheckpoint();
    }
    const std::vector<double> points = archive.Get<double>("points");
    for (size_t i = 0; i + 4 < points.size(); i += 5) {
      result_.points.push_back(
          {kStages[points[i] < 1 ? 0 : points[i] < 2 ? 1 : 2], static_cast<int64_t>(points[i + 1]), points[i + 2], points[i + 3],
           points[i + 4]});
    }
    std::vector<torch::Tensor> values = learner->Values(), state = learner->State();
    GetTensors(archive, "values", &values);
    GetTensors(archive, "best", &best_);
    GetTensors(archive, "state", &state);
    learner->SetValues(values);
    learner->SetState(state);
    Apply(learner);
    std::fprintf(stderr, "acornc: going on from %s, step %lld\n", options_.checkpoint.c_str(), static_cast<long long>(step_));
  }

  [[noreturn]] void RefuseCheckpoint() const {
    throw Error(ExitCode::kIo, options_.checkpoint + ": damaged; remove it to start anew");
  }

  const Interrupt interrupt_;
  ModelConfig config_;
  TrainOptions options_;
  std::vector<LayerWeights> unrounded_;
  std::unique_ptr<Shaping> shaping_;  // until the next stage starts
  QuantizedModel *model_;
  Teacher teacher_;
  ModelTwin twin_;
  std::vector<int64_t> held_out_;
  Order order_;
  uint64_t fingerprint_ = 0;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  double saved_ = 0;  // minutes
  int64_t stage_ = 0, stage_first_ = 0, step_ = 0;
  double smoothed_ = NAN, last_held_out_ = NAN, best_loss_ = INFINITY;
  std::vector<torch::Tensor> best_;
  QuantizedModel stage_start_;
  TrainResult result_;
};

}  // namespace

TrainResult Train(const SourceModel &source, const CalibrationWindows &windows, const TrainOptions &options,
                  std::vector<LayerWeights> unrounded, QuantizedModel *model) {
  const torch::NoGradGuard no_autograd;
  torch::set_num_threads(ThreadCount());
  const int64_t count = static_cast<int64_t>(windows.ids.size()) / windows.window;
  if (count < kLeastWindows) {
    throw Error(ExitCode::kUsage, "training needs " + std::to_string(kLeastWindows) + " windows of " +
                                      std::to_string(windows.window) + " tokens of calibration text, there are " +
                                      std::to_string(count));
  }
  try {
    return Training(source, windows, options, std::move(unrounded), model).Run();
  } catch (const c10::Error &fault) {
    // Its allocator says so in words alone.
    const std::string message = fault.what_without_backtrace();
    if (message.find("allocate memory") == std::string::npos) throw std::runtime_error("LibTorch: " + message);
    throw Error(ExitCode::kMemory, "out of memory while training");
  }
}

}  // namespace acorn::compiler
