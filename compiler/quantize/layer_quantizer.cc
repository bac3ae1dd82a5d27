#include "quantize/layer_quantizer.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>
#include <string>

#include "base/parallel.h"
#include "passes/equalise.h"
#include "quantize/cached.h"
#include "quantize/edge_ranges.h"
#include "quantize/grid.h"
#include "quantize/sparse_layer.h"
#include "quantize/state_space_layer.h"
#include "write/op_integers.h"

namespace acorn::compiler {
namespace {

constexpr double kHeadroom16 = 2.0;    // 16-bit edges: room for what calibration did not see
constexpr double kKeyHeadroom = 1.05;  // a key that saturates costs far more than a coarser step
constexpr double kDamping = 0.01;      // of GPTQ, relative to the mean of the diagonal
constexpr int64_t kRangeWindows = 32;  // fast: windows that ranges are measured on
constexpr int64_t kSampleRows = 512;   // of a linear input, for choosing its range
constexpr int64_t kWindowsAtOnce = 8;  // of the pass that collects moments
constexpr int64_t kWideWindows = 8;    // that are carried on with keys and values of 8 bits as well

Matrix PadRows(const Matrix &m, int64_t rows) {
  if (m.rows() == rows) return m;
  Matrix padded = Matrix::Zero(rows, m.cols());
  padded.topRows(m.rows()) = m;
  return padded;
}

Matrix PadColumns(const Matrix &m, int64_t columns) {
  if (m.cols() == columns) return m;
  Matrix padded = Matrix::Zero(m.rows(), columns);
  padded.leftCols(m.cols()) = m;
  return padded;
}

RowVector PadVector(const RowVector &v, int64_t size) {
  if (v.size() == 0 || v.size() == size) return v;
  RowVector padded = RowVector::Zero(size);
  padded.head(v.size()) = v;
  return padded;
}

Matrix Stack(std::initializer_list<const Matrix *> parts) {
  int64_t rows = 0;
  for (const Matrix *part : parts) rows += part->rows();
  Matrix all(rows, (*parts.begin())->cols());
  int64_t row = 0;
  for (const Matrix *part : parts) {
    all.middleRows(row, part->rows()) = *part;
    row += part->rows();
  }
  return all;
}

/// One bias for stacked weights; absent parts count as zero, and all absent gives an empty one.
RowVector StackBias(std::initializer_list<std::pair<const RowVector *, int64_t>> parts) {
  int64_t size = 0;
  bool any = false;
  for (const auto &[bias, width] : parts) {
    size += width;
    any = any || bias->size() != 0;
  }
  if (!any) return {};
  RowVector all = RowVector::Zero(size);
  int64_t first = 0;
  for (const auto &[bias, width] : parts) {
    if (bias->size() != 0) all.segment(first, width) = *bias;
    first += width;
  }
  return all;
}

/// Step of an edge of `limit` units; never 0.
double StepFor(double largest, double limit) { return std::max(largest, 1e-6) / limit; }

double Step16(double largest) { return StepFor(largest * kHeadroom16, 32767); }

std::vector<double> HeadSteps(const std::vector<double> &largest) {
  std::vector<double> steps;
  steps.reserve(largest.size());
  for (const double value : largest) steps.push_back(StepFor(value, 127));
  return steps;
}

/// Largest magnitudes of each head of prefix rows.
void IncludeRows(std::vector<double> *largest, const Matrix &rows, int64_t head_dim) {
  for (size_t h = 0; h < largest->size() && rows.rows() > 0; ++h) {
    const double value = rows.middleCols(static_cast<int64_t>(h) * head_dim, head_dim).cwiseAbs().maxCoeff();
    (*largest)[h] = std::max((*largest)[h], value);
  }
}

/// Rows of whole steps, as integers.
std::vector<int8_t> PrefixIntegers(const Matrix &rows, int64_t head_dim, const std::vector<double> &steps) {
  std::vector<int8_t> integers;
  for (int64_t r = 0; r < rows.rows(); ++r) {
    for (int64_t c = 0; c < rows.cols(); ++c) {
      integers.push_back(static_cast<int8_t>(std::lround(rows(r, c) / steps[static_cast<size_t>(c / head_dim)])));
    }
  }
  return integers;
}

/// What a layer's parts add to the stream, times `factor`.
void ScaleBranches(float factor, LayerWeights *w, ExpertList *experts) {
  if (factor == 1.0f) return;
  for (Matrix *m : {&w->o, &w->ssm.out, &w->down, &w->shared.down}) *m *= factor;
  for (RowVector *bias : {&w->o_bias, &w->down_bias}) *bias *= factor;
  for (const auto &expert : *experts) expert->down *= factor;
}

void ScaleHeads(Matrix *rows, int64_t head_dim, const std::vector<double> &steps) {
  for (size_t h = 0; h < steps.size(); ++h) {
    rows->middleCols(static_cast<int64_t>(h) * head_dim, head_dim) *= static_cast<float>(steps[h]);
  }
}

/// Evenly spread windows of x, `count` of them.
Matrix SomeWindows(const Matrix &x, int64_t window, int64_t count) {
  const int64_t windows = x.rows() / window;
  Matrix some(count * window, x.cols());
  for (int64_t i = 0; i < count; ++i) some.middleRows(i * window, window) = x.middleRows(i * windows / count * window, window);
  return some;
}

double InputError(const Matrix &samples, const Matrix &weight, double step, double limit) {
  Matrix rounded = samples;
  RoundToStep(rounded, step, limit);
  rounded -= samples;
  Matrix error(samples.rows(), weight.rows()), output(samples.rows(), weight.rows());
  Linear(error, rounded, weight, {});
  Linear(output, samples, weight, {});
  const double norm = static_cast<double>(output.squaredNorm());
  return norm > 0 ? static_cast<double>(error.squaredNorm()) / norm : 0;
}

}  // namespace

/// Everything known of the layer at hand.
struct LayerQuantizer::Work {
  int64_t layer = 0;
  LayerWeights weights;  // float; down already transformed, FFN padded
  Matrix qkv, gate_up;   // stacked
  ExpertList experts;  // of a sparse layer; gate_up and down are then those of its shared expert
  int64_t block = 1;   // of the transform before down
  Equalisation equalisation;
  Matrix prefix_x;     // behind the layer, in float
  LayerPrefix prefix;  // float until the scales are chosen, then rounded
  std::unique_ptr<RangeObserver> ranges;
  ActivationGrid grid;
  ActivationGrid wide_grid;  // with a cache of 8 bits where it has 4, and of a state-space layer
  LayerPrefix wide_prefix;   // the same
  std::unique_ptr<GridObserver> moments;
  LayerFormats formats;
  QuantizedLayer out;
  std::vector<std::unique_ptr<Work>> profiles;  // what the rates beyond 0 leave of it: weights, ranges, grid and scales
  const Matrix &weight(LinearInput input) const {
    const Matrix *const all[kLinearInputs] = {&qkv, &o(), &gate_up, &down()};
    return *all[static_cast<size_t>(input)];
  }
  bool state_space() const { return weights.ssm.out.size() != 0; }
  const Matrix &o() const { return state_space() ? weights.ssm.out : weights.o; }
  bool sparse() const { return !experts.empty(); }
  bool has_ffn() const { return down().size() != 0; }
  const Matrix &down() const { return sparse() ? weights.shared.down : weights.down; }
  const LayerPrefix *prefix_or_null() const { return prefix.empty() ? nullptr : &prefix; }
  /// The farthest that an edge reaches at any rate.
  double ReachOfAll(Edge edge) const {
    double reach = ranges->Reach(edge);
    for (const auto &profile : profiles) reach = std::max(reach, profile->ranges->Reach(edge));
    return reach;
  }
  std::vector<double> LargestOfHeadsOfAll(Edge edge) const {
    std::vector<double> largest = ranges->LargestOfHeads(edge);
    for (const auto &profile : profiles) {
      const std::vector<double> &others = profile->ranges->LargestOfHeads(edge);
      for (size_t head = 0; head < largest.size(); ++head) largest[head] = std::max(largest[head], others[head]);
    }
    return largest;
  }
  void Stack();
};

void LayerQuantizer::Work::Stack() {
  const LayerWeights &w = weights;
  qkv = state_space() ? StackInputs(w.ssm) : compiler::Stack({&w.q, &w.k, &w.v});
  gate_up = sparse() ? ProbeOfInputs(experts, w) : compiler::Stack({&w.gate, &w.up});
}

CacheFormat CacheOf(const RecipeOptions &options, int64_t head_dim) {
  return options.kv_bits == 4 && head_dim != 0 ? CacheFormat{4, HeadBlock(head_dim)} : CacheFormat{};
}

void ReplaceByRounded(const QuantizedLayer &rounded, LayerWeights *weights) {
  LayerWeights &w = *weights;
  const Matrix qkv = Dequantize(rounded.qkv);
  if (rounded.ssm.empty()) {
    w.q = qkv.topRows(w.q.rows());
    w.k = qkv.middleRows(w.q.rows(), w.k.rows());
    w.v = qkv.bottomRows(w.v.rows());
    w.o = Dequantize(rounded.o);
  } else {
    ReplaceLinears(qkv, Dequantize(rounded.o), &w.ssm);
  }
  if (!rounded.experts.empty()) ReplaceExperts(rounded.experts, weights);
  if (rounded.down.n == 0) return;
  const Matrix gate_up = Dequantize(rounded.gate_up);
  Matrix &gate = rounded.experts.empty() ? w.gate : w.shared.gate, &up = rounded.experts.empty() ? w.up : w.shared.up;
  gate = gate_up.topRows(gate_up.rows() / 2);
  up = gate_up.bottomRows(gate_up.rows() / 2);
  (rounded.experts.empty() ? w.down : w.shared.down) = Dequantize(rounded.down);
}

WeightFormat FormatForDepth(WeightFormat wanted, int64_t k) {
  const int64_t group = GroupSize(wanted);
  return group != 0 && k % group != 0 ? WeightFormat::kW8 : wanted;
}

LayerFormats FormatsOf(const RecipeOptions &options, const ModelConfig &config, int64_t ffn, int64_t layer) {
  LayerFormats formats;
  if (options.layers.empty()) {
    for (WeightFormat *format : {&formats.qkv, &formats.o, &formats.gate_up, &formats.down}) *format = options.body_format;
    formats.inputs.down_in = options.down_input == DownInput::kS15 ? EdgeType::kS15 : EdgeType::kS8;
  } else {
    formats = options.layers[static_cast<size_t>(layer)];
  }
  formats.qkv = FormatForDepth(formats.qkv, config.hidden);
  formats.o = FormatForDepth(formats.o, config.IsStateSpace(layer) ? config.ssm.inner() : config.heads * config.head_dim);
  formats.gate_up = FormatForDepth(formats.gate_up, config.hidden);
  formats.down = FormatForDepth(formats.down, ffn);
  return formats;
}

std::vector<WeightFormat> ExpertFormatsOf(const RecipeOptions &options, const ModelConfig &config, int64_t layer) {
  if (!options.expert_formats.empty()) return options.expert_formats[static_cast<size_t>(layer)];
  return std::vector<WeightFormat>(static_cast<size_t>(config.experts), options.body_format);
}

LayerQuantizer::LayerQuantizer(const SourceModel &source, const RecipeOptions &options, FfnShape ffn, int64_t window, Matrix x,
                               Matrix prefix_x)
    : source_(source),
      options_(options),
      ffn_(ffn),
      config_(source.config()),
      window_(window),
      cache_(CacheOf(options, config_.head_dim)),
      rope_(MakeRopeTable(source.config(), window + prefix_x.rows())),
      x_(std::move(x)),
      prefix_x_(std::move(prefix_x)) {
  config_.ffn = ffn.padded;
  if (config_.experts != 0) {
    expert_ = ExpertShapeOf(config_, options);
    shared_ = SharedShapeOf(config_, options);
    config_.expert_ffn = expert_.padded;
    if (config_.shared_ffn != 0) config_.shared_ffn = shared_.padded;
  }
  config_.residual_scale = 1;  // Quantize() folds it into the weights
  if (cache_.bits == 4) x_wide_ = x_.topRows(std::min(x_.rows(), kWideWindows * window));
  for (size_t i = 0; i < options_.profiles.size(); ++i) profile_x_.push_back(SomeWindows(x_, window_, RangeWindows()));
}

int64_t LayerQuantizer::RangeWindows() const {
  const int64_t windows = x_.rows() / window_;
  return options_.recipe == Recipe::kFast ? std::min(windows, kRangeWindows) : windows;
}

QuantizedLayer LayerQuantizer::Quantize(int64_t layer, LayerWeights *unrounded, ConversionReport *report,
                                        LayerProbe *probe) {
  Work work;
  work.layer = layer;
  work.formats = FormatsOf(options_, config_, ffn_.padded, layer);
  work.out.inputs = work.formats.inputs;
  LayerWeights &w = work.weights;
  w = LoadLayer(source_, layer);
  work.out.order = w.order;
  work.out.widths = WholeWidths(config_, layer);
  work.block = config_.IsSparse(layer) ? shared_.block : ffn_.block;
  if (config_.IsSparse(layer)) {
    work.experts = LoadExperts(config_, expert_, shared_, &w);
  } else {
    w.gate = PadRows(w.gate, ffn_.padded);
    w.up = PadRows(w.up, ffn_.padded);
    w.gate_bias = PadVector(w.gate_bias, ffn_.padded);
    w.up_bias = PadVector(w.up_bias, ffn_.padded);
    w.down = PadColumns(w.down, ffn_.padded);
    HadamardRows(w.down, ffn_.block);
  }
  if (work.state_space()) HadamardRows(w.ssm.out, StateBlock(config_));
  ScaleBranches(static_cast<float>(source_.config().residual_scale), &w, &work.experts);
  RunPrefix(&work);
  MeasureRanges(&work);
  if (options_.recipe == Recipe::kFast) Equalise(&work);
  work.Stack();
  MeasureProfiles(&work);
  ChooseScales(&work);
  ChooseProfileScales(&work);
  if (options_.recipe == Recipe::kFast) CollectMoments(&work);
  RoundWeights(&work, report);
  for (RangeReport &row :
       LayerRanges(layer, work.out, cache_.bits, config_, work.ranges.get())) {
    report->ranges.push_back(std::move(row));
  }
  if (unrounded != nullptr) *unrounded = w;
  if (probe != nullptr) {
    const auto round = [&](LinearInput input, WeightFormat format) {
      if (work.moments == nullptr) return RoundToGrid(work.weight(input), format, ScaleRule::kMinMax, {});
      return Gptq(work.weight(input), format, FactorHessian(work.moments->Moments(input), GroupSize(format), kDamping));
    };
    const auto round_experts = [&](WeightFormat format) {
      ExpertRounding rounding = RoundingOf(work);
      rounding.formats.assign(work.experts.size(), format);
      return RoundExperts(work.experts, work.grid, rounding).experts;
    };
    probe->OnLayer({layer, config_, rope_, work.block, &w, work.prefix_or_null(), work.grid, work.out, round, round_experts});
  }
  CarryOn(&work);
  return std::move(work.out);
}

void LayerQuantizer::RunPrefix(Work *work) const {
  if (prefix_x_.rows() == 0) return;
  // Through the transforms that the weights and rotated keys expect.
  const std::unique_ptr<RangeObserver> transform = NewRanges(*work, prefix_x_.rows(), prefix_x_.rows());
  work->prefix_x = prefix_x_;
  work->prefix = compiler::RunPrefix(config_, work->weights, work->layer, work->prefix_x, rope_, transform.get());
}

void LayerQuantizer::MeasureRanges(Work *work) const {
  const int64_t windows = x_.rows() / window_;
  const int64_t used = RangeWindows();
  // Evenly spread, and few enough at a time that the copy stays small.
  work->ranges = NewRanges(*work, used * window_, kSampleRows);
  for (int64_t first = 0; first < used; first += kWindowsAtOnce) {
    const int64_t count = std::min(kWindowsAtOnce, used - first);
    Matrix part(count * window_, x_.cols());
    for (int64_t i = 0; i < count; ++i) {
      part.middleRows(i * window_, window_) = x_.middleRows((first + i) * windows / used * window_, window_);
    }
    RunLayer(config_, work->weights, work->layer, part, EvenBoundaries(part.rows(), window_), rope_, work->prefix_or_null(),
             work->ranges.get());
  }
}

void LayerQuantizer::MeasureProfiles(Work *work) const {
  for (size_t i = 0; i < options_.profiles.size(); ++i) {
    LayerWidths widths = options_.profiles[i].layers[static_cast<size_t>(work->layer)];
    if (widths.ffn == WholeWidths(source_.config(), work->layer).ffn) widths.ffn = work->out.widths.ffn;
    auto view = std::make_unique<Work>();
    view->layer = work->layer;
    view->weights = work->weights;
    view->experts = work->experts;
    view->block = work->block;
    view->prefix = work->prefix;
    DropBeyond(config_, widths, &view->prefix);
    view->formats = work->formats;
    view->out.inputs = work->out.inputs;
    view->out.widths = widths;
    DropBeyond(config_, widths, &view->weights);
    view->Stack();
    Matrix x = profile_x_[i];
    view->ranges = NewRanges(*view, x.rows(), kSampleRows);
    RunLayer(config_, view->weights, view->layer, x, EvenBoundaries(x.rows(), window_), rope_, view->prefix_or_null(),
             view->ranges.get());
    work->profiles.push_back(std::move(view));
  }
}

std::unique_ptr<RangeObserver> LayerQuantizer::NewRanges(const Work &work, int64_t tokens, int64_t sample_rows) const {
  auto ranges = std::make_unique<RangeObserver>(config_, work.block, cache_.head_block, tokens, sample_rows);
  ranges->ExpectOrder(work.weights.order);
  if (work.sparse()) ranges->ExpectExperts(config_.experts, expert_.block);
  return ranges;
}

void LayerQuantizer::Equalise(Work *work) const {
  work->equalisation = EqualiseLayer(config_, &work->weights, *work->ranges, options_.body_format,
                                     CacheLimit(cache_.bits), &work->experts);
  if (!work->equalisation.any()) return;
  RunPrefix(work);
  MeasureRanges(work);
}

void LayerQuantizer::ChooseScales(Work *work) const {
  const RangeObserver &ranges = *work->ranges;
  LayerScales &scales = work->out.scales;
  ActivationGrid &grid = work->grid;
  const bool measured = options_.recipe == Recipe::kFast;
  const InputTypes &types = work->formats.inputs;
  grid.attn_in_limit = EdgeLimit(types.attn_in);
  grid.ffn_in_limit = EdgeLimit(types.ffn_in);
  grid.down_in_limit = EdgeLimit(types.down_in);
  const auto input_step = [&](LinearInput input, EdgeType type, double largest) {
    if (type == EdgeType::kS15) return StepFor(largest * kHeadroom16, EdgeLimit(type));
    return measured ? BestActivationStep(ranges.Samples(input), work->weight(input), largest) : StepFor(largest, 127);
  };
  grid.attn_in = input_step(LinearInput::kQkv, types.attn_in, ranges.Reach(Edge::kAttnIn));
  grid.attn_out =
      input_step(LinearInput::kO, EdgeType::kS8, work->state_space() ? ranges.ReachOfOutInput() : ranges.Reach(Edge::kAttnOut));
  grid.ffn_in = input_step(LinearInput::kGateUp, types.ffn_in, ranges.Reach(Edge::kFfnIn));
  if (work->has_ffn()) grid.down_in = input_step(LinearInput::kDown, types.down_in, ranges.ReachOfDownInput());
  if (work->sparse()) {
    grid.expert_block = expert_.block;
    double narrow_reach = 0;
    for (const auto &view : work->profiles) {
      narrow_reach = std::max(narrow_reach, ExpertRanges::Reach(view->ranges->experts().down_out));
    }
    ChooseExpertScales(ranges, work->experts, measured, narrow_reach, &grid, &work->out.experts.scales);
  }
  if (work->state_space()) {
    work->out.ssm = QuantizeStateSpace(config_.ssm, work->weights.ssm, work->weights.order, ranges, &work->prefix);
    work->wide_grid = grid;
    work->wide_prefix = work->prefix;
  } else {
    ChooseCacheScales(work);
  }

  scales.attn_in = grid.attn_in;
  scales.attn_out = grid.attn_out;
  scales.ffn_in = grid.ffn_in;
  scales.down_in = grid.down_in;
  scales.q8 = grid.q;
  scales.k8 = grid.k;
  scales.v8 = grid.v;
  scales.q16 = Step16(ranges.Reach(Edge::kQ));
  scales.k16 = Step16(ranges.Reach(Edge::kK));
  scales.v16 = Step16(ranges.Reach(Edge::kV));
  if (config_.qk_norm) {
    scales.q_normed16 = Step16(ranges.Reach(Edge::kQNormed));
    scales.k_normed16 = Step16(ranges.Reach(Edge::kKNormed));
  }
  scales.o16 = Step16(ranges.Reach(Edge::kOOut));
  scales.mid16 = Step16(work->ReachOfAll(Edge::kResidualMid));
  scales.gate16 = Step16(ranges.Reach(Edge::kGate));
  scales.up16 = Step16(ranges.Reach(Edge::kUp));
  scales.glu_largest = std::max(ranges.Reach(Edge::kGlu), 1e-6) * kHeadroom16;
  scales.down16 = Step16(ranges.Reach(Edge::kDownOut));
  scales.out16 = Step16(work->ReachOfAll(Edge::kResidualOut));
  if (config_.qkv_limit != 0) {
    // The limit is where 16 bits end: saturation is the clamp.
    const double step = config_.qkv_limit / 32767;
    scales.v16 = step;
    (config_.qk_norm ? scales.q_normed16 : scales.q16) = step;
    (config_.qk_norm ? scales.k_normed16 : scales.k16) = step;
  }
}

// What outlives a chunk, and the residual stream, have one scale for all rates.
void LayerQuantizer::ChooseProfileScales(Work *work) const {
  const LayerScales &all = work->out.scales;
  for (const std::unique_ptr<Work> &view : work->profiles) {
    ChooseScales(view.get());
    LayerScales &own = view->out.scales;
    ActivationGrid &grid = view->grid;
    own.mid16 = all.mid16;
    own.out16 = all.out16;
    view->prefix = work->prefix;
    DropBeyond(config_, view->out.widths, &view->prefix);
    if (work->state_space()) {
      const StateSpaceScales &shared = work->out.ssm.scales;
      StateSpaceScales &scales = view->out.ssm.scales;
      const StateSpaceScales measured = std::move(scales);
      scales = shared;
      scales.gate16 = measured.gate16;
      scales.step16 = measured.step16;
      scales.gated_largest = measured.gated_largest;
      scales.normed16 = measured.normed16;
    } else {
      grid.k = own.k8 = all.k8;
      grid.v = own.v8 = all.v8;
      grid.attn_out = own.attn_out = RaiseToBinadeOf(all.v8, own.attn_out);
    }
    if (work->sparse()) {
      // The experts' integers are made for one scale of their input and output.
      const LayerScales chosen = own;
      own = all;
      own.attn_in = chosen.attn_in;
      own.attn_out = chosen.attn_out;
      own.q16 = chosen.q16;
      own.k16 = chosen.k16;
      own.v16 = chosen.v16;
      own.q8 = chosen.q8;
      own.o16 = chosen.o16;
      grid.ffn_in = all.ffn_in;
      grid.expert_down_in = work->grid.expert_down_in;
    }
    work->out.profiles.push_back({view->out.widths, own, view->out.ssm.scales});
  }
}

void LayerQuantizer::ChooseCacheScales(Work *work) const {
  const RangeObserver &ranges = *work->ranges;
  const int64_t dim = config_.head_dim;
  ActivationGrid &grid = work->grid;
  LayerPrefix &prefix = work->prefix;
  std::vector<double> largest_k = work->LargestOfHeadsOfAll(Edge::kKRotated);
  std::vector<double> largest_v = work->LargestOfHeadsOfAll(Edge::kV);
  IncludeRows(&largest_k, prefix.k, dim);
  IncludeRows(&largest_v, prefix.v, dim);
  for (double &value : largest_k) value *= kKeyHeadroom;
  grid.head_block = cache_.head_block;
  grid.q = HeadSteps(ranges.LargestOfHeads(Edge::kQRotated));
  grid.k = HeadSteps(largest_k);
  grid.v = HeadSteps(largest_v);
  RaiseToOneBinade(&grid.v, grid.attn_out);
  if (cache_.bits == 4) {
    work->wide_grid = grid;
    work->wide_prefix = prefix;
    RoundHeads(work->wide_prefix.k, dim, grid.k, grid.kv_limit);
    RoundHeads(work->wide_prefix.v, dim, grid.v, grid.kv_limit);
    // So few steps are better spent on what is frequent than on what is largest.
    grid.kv_limit = kNibbleLimit;
    grid.k = BestHeadSteps(ranges.HeadSamples(Edge::kKRotated), dim, kNibbleLimit);
    grid.v = BestHeadSteps(ranges.HeadSamples(Edge::kV), dim, kNibbleLimit);
    RaiseToOneBinade(&grid.v, grid.attn_out);
  }
  if (prefix.k.rows() == 0) return;
  if (cache_.bits == 4) {
    prefix.k = RoundForQueries(prefix.k, ranges.HeadSamples(Edge::kQRotated), dim, grid.k, kNibbleLimit);
    ScaleHeads(&prefix.k, dim, grid.k);
  } else {
    RoundHeads(prefix.k, dim, grid.k, grid.kv_limit);
  }
  RoundHeads(prefix.v, dim, grid.v, grid.kv_limit);
  work->out.prefix_k = PrefixIntegers(prefix.k, dim, grid.k);
  work->out.prefix_v = PrefixIntegers(prefix.v, dim, grid.v);
}

void LayerQuantizer::CollectMoments(Work *work) const {
  work->moments = std::make_unique<GridObserver>(config_, work->grid, work->block);
  work->moments->CollectMoments();
  const int64_t windows = x_.rows() / window_;
  for (int64_t first = 0; first < windows; first += kWindowsAtOnce) {
    const int64_t count = std::min(kWindowsAtOnce, windows - first);
    Matrix part = x_.middleRows(first * window_, count * window_);
    RunLayer(config_, work->weights, work->layer, part, EvenBoundaries(part.rows(), window_), rope_, work->prefix_or_null(),
             work->moments.get());
  }
}

void LayerQuantizer::RoundWeights(Work *work, ConversionReport *report) const {
  LayerWeights &w = work->weights;
  QuantizedLayer &out = work->out;
  struct Target {
    const char *name;
    LinearInput input;
    const Matrix *weight;
    WeightFormat format;
    QuantizedMatrix *result;
    double step, limit, largest;
    ScalingPair scaling;
    std::vector<int64_t> depths;  // at which rates beyond 0 end
  };
  const RangeObserver &ranges = *work->ranges;
  const ActivationGrid &grid = work->grid;
  const LayerFormats &formats = work->formats;
  std::vector<int64_t> o_depths, down_depths;
  for (const auto &view : work->profiles) {
    const LayerWidths &widths = view->out.widths;
    o_depths.push_back(work->state_space() ? config_.ssm.heads * widths.channels : config_.heads * widths.v);
    if (!work->sparse()) down_depths.push_back(widths.ffn);  // a shared expert stays whole
  }
  std::vector<Target> targets = {
      {"qkv", LinearInput::kQkv, &work->qkv, formats.qkv, &out.qkv, grid.attn_in, grid.attn_in_limit,
       ranges.Largest(Edge::kAttnIn), ScalingPair::kNormQkv, {}},
      {"o", LinearInput::kO, &work->o(), formats.o, &out.o, grid.attn_out, 127,
       work->state_space() ? ranges.LargestOutInput() : ranges.Largest(Edge::kAttnOut), ScalingPair::kValueOut, o_depths},
  };
  const Matrix gate_up = work->sparse() && work->has_ffn() ? Stack({&w.shared.gate, &w.shared.up}) : Matrix();
  if (work->has_ffn()) {
    targets.push_back({"gate_up", LinearInput::kGateUp, work->sparse() ? &gate_up : &work->gate_up, formats.gate_up, &out.gate_up,
                       grid.ffn_in, grid.ffn_in_limit, ranges.Largest(Edge::kFfnIn), ScalingPair::kNormGateUp, {}});
    targets.push_back({"down", LinearInput::kDown, &work->down(), formats.down, &out.down, grid.down_in, grid.down_in_limit,
                       ranges.LargestDownInput(), ScalingPair::kUpDown, down_depths});
  }
  std::vector<GptqFactor> factors(targets.size());
  if (work->moments != nullptr) {
    ParallelFor(static_cast<int64_t>(targets.size()), [&](int64_t i) {
      const Target &target = targets[static_cast<size_t>(i)];
      Matrix hessian = work->moments->Moments(target.input);
      if (options_.separate_rates) SeparateAt(target.depths, &hessian);
      factors[static_cast<size_t>(i)] = FactorHessian(hessian, GroupSize(target.format), kDamping);
    });
  }
  if (work->state_space()) {
    targets[0].name = "ssm_in";
    targets[1].name = "ssm_out";
  }
  for (size_t i = 0; i < targets.size(); ++i) {
    const Target &target = targets[i];
    WeightReport line;
    if (work->moments != nullptr) {
      *target.result = Gptq(*target.weight, target.format, factors[i]);
      line.weight_error = RelativeOutputError(*target.weight, *target.result, work->moments->Moments(target.input));
    } else {
      *target.result = RoundToGrid(*target.weight, target.format, ScaleRule::kMinMax, {});
      Matrix moments;
      AddSecondMoments(&moments, ranges.Samples(target.input));
      line.weight_error = RelativeOutputError(*target.weight, *target.result, moments);
    }
    line.layer = work->layer;
    line.weight = target.name;
    line.format = FormatName(target.format);
    line.scaling = work->equalisation.strength[static_cast<size_t>(target.scaling)];
    line.input_error = InputError(ranges.Samples(target.input), *target.weight, target.step, target.limit);
    line.input_step = target.step;
    line.input_clip = target.largest > 0 ? std::min(1.0, target.step * target.limit / target.largest) : 1.0;
    line.n = target.result->n;
    line.k = target.result->k;
    line.bytes = target.result->PayloadBytes();
    report->weights.push_back(line);
  }
  if (work->sparse()) RoundSparse(work, report);
  out.attn_norm = w.attn_norm;
  out.ffn_norm = w.ffn_norm;
  out.attn_norm_bias = w.attn_norm_bias;
  out.ffn_norm_bias = w.ffn_norm_bias;
  out.q_norm = w.q_norm;
  out.k_norm = w.k_norm;
  out.qkv_bias = StackBias({{&w.q_bias, w.q.rows()}, {&w.k_bias, w.k.rows()}, {&w.v_bias, w.v.rows()}});
  if (!work->sparse()) out.gate_up_bias = StackBias({{&w.gate_bias, w.gate.rows()}, {&w.up_bias, w.up.rows()}});
  out.o_bias = w.o_bias;
  out.down_bias = w.down_bias;
}

ExpertRounding LayerQuantizer::RoundingOf(const Work &work) const {
  ExpertRounding rounding;
  rounding.formats = ExpertFormatsOf(options_, config_, work.layer);
  rounding.moments = work.moments.get();
  rounding.ranges = work.ranges.get();
  rounding.activation = config_.activation;
  for (const auto &view : work.profiles) rounding.depths.push_back(view->out.widths.ffn);
  rounding.separate_rates = options_.separate_rates;
  return rounding;
}

// The router in 8 bits: who is chosen must not depend on a coarse grid. Then the experts.
void LayerQuantizer::RoundSparse(Work *work, ConversionReport *report) const {
  QuantizedExperts &out = work->out.experts;
  const LayerWeights &w = work->weights;
  out.router = RoundToGrid(w.router, WeightFormat::kW8, ScaleRule::kMinMax, {});
  if (w.shared_gate.size() != 0) out.shared_gate = RoundToGrid(Matrix(w.shared_gate), WeightFormat::kW8, ScaleRule::kMinMax, {});
  const ExpertRounding rounding = RoundingOf(*work);
  RoundedExperts rounded = RoundExperts(work->experts, work->grid, rounding);
  out.experts = std::move(rounded.experts);
  out.slices = SlicesOf(rounding.depths, out.experts[0].gate.n);
  const auto line = [&](const char *name, const QuantizedMatrix &first, const std::string &format, double error, uint64_t bytes) {
    WeightReport row;
    row.layer = work->layer;
    row.weight = name;
    row.format = format;
    row.weight_error = error;
    row.n = first.n;
    row.k = first.k;
    row.bytes = bytes;
    report->weights.push_back(row);
  };
  uint64_t in_bytes = 0, down_bytes = 0;
  std::set<std::string> in_formats, down_formats;
  for (size_t e = 0; e < out.experts.size(); ++e) {
    const ExpertMatrices &expert = out.experts[e];
    const uint64_t in = expert.gate.PayloadBytes() + expert.up.PayloadBytes(), down = expert.down.PayloadBytes();
    in_bytes += in;
    down_bytes += down;
    in_formats.insert(FormatName(expert.gate.format));
    down_formats.insert(FormatName(expert.down.format));
    ExpertReport row;
    row.layer = work->layer;
    row.expert = static_cast<int64_t>(e);
    row.format = FormatName(expert.gate.format);
    row.bits = 8 * static_cast<double>(in + down) / static_cast<double>(3 * expert.gate.n * expert.gate.k);
    report->experts.push_back(row);
  }
  const auto joined = [](const std::set<std::string> &names) {
    std::string all;
    for (const std::string &name : names) all += (all.empty() ? "" : "+") + name;
    return all;
  };
  line("router", out.router, FormatName(out.router.format), 0, out.router.PayloadBytes());
  line("experts' gate and up", out.experts[0].gate, joined(in_formats), rounded.in_error, in_bytes);
  line("experts' down", out.experts[0].down, joined(down_formats), rounded.down_error, down_bytes);
}

void LayerQuantizer::CarryOn(Work *work) {
  if (prefix_x_.rows() > 0) prefix_x_ = std::move(work->prefix_x);
  LayerWeights &w = work->weights;
  ReplaceByRounded(work->out, &w);
  GridObserver observer(config_, work->grid, work->block);
  RunLayer(config_, w, work->layer, x_, EvenBoundaries(x_.rows(), window_), rope_, work->prefix_or_null(), &observer);
  for (size_t i = 0; i < work->profiles.size(); ++i) {
    Work &view = *work->profiles[i];
    view.weights = w;
    DropBeyond(config_, view.out.widths, &view.weights);
    GridObserver narrow(config_, view.grid, work->block);
    RunLayer(config_, view.weights, work->layer, profile_x_[i], EvenBoundaries(profile_x_[i].rows(), window_), rope_,
             view.prefix_or_null(), &narrow);
  }
  if (x_wide_.rows() == 0) return;
  GridObserver wide(config_, work->wide_grid, work->block);
  RunLayer(config_, w, work->layer, x_wide_, EvenBoundaries(x_wide_.rows(), window_), rope_,
           work->wide_prefix.empty() ? nullptr : &work->wide_prefix, &wide);
}

}  // namespace acorn::compiler
