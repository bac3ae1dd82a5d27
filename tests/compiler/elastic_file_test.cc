// Files of several rates: at each of them they compute, to the bit, what a file does that holds nothing else.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <random>

#include "passes/elastic.h"
#include "tests/compiler/conversion_error.h"
#include "tests/support/shared_data.h"

namespace acorn::compiler {
namespace {

/// A model of random weights in the family of another one, wide enough to be cut.
class RandomModel final : public SourceModel {
 public:
  RandomModel(const SourceModel &family, ModelConfig config) : SourceModel(family, config) {}
  Matrix LoadRows(TensorRole role, int64_t layer, int64_t first, int64_t count) const override {
    const TensorShape shape = RoleShape(config(), role);
    std::mt19937 random(static_cast<uint32_t>(1000 * layer + static_cast<int64_t>(role)));
    std::normal_distribution<float> normal;
    Matrix all(shape.n, shape.k);
    for (int64_t i = 0; i < all.size(); ++i) all.data()[i] = normal(random);
    if (shape.n > 1) {
      // Some rows count for more than others.
      for (int64_t row = 0; row < shape.n; ++row) all.row(row) *= (1 + static_cast<float>(row * 7 % 13) / 6) / 3;
      if (role != TensorRole::kSsmConv) all /= std::sqrt(static_cast<float>(shape.k));
    } else if (role == TensorRole::kSsmDecay) {
      all = -all.cwiseAbs().array() - 0.1f;
    } else {
      all = 0.1f * all.array() + (role == TensorRole::kSsmStepBias ? -2.0f : 1.0f);
    }
    return all.middleRows(first, count);
  }
};

ModelConfig Widened(ModelConfig config) {
  config.hidden = 96;
  if (config.ffn != 0) config.ffn = 384;
  if (config.experts != 0) config.expert_ffn = 224;
  if (config.HasAttention()) {
    config.heads = 6;
    config.kv_heads = 3;
    config.head_dim = config.rotary_dims = 64;
  }
  if (config.HasStateSpace()) {
    config.ssm.heads = 16;
    config.ssm.head_dim = 32;
    config.ssm.groups = 1;
    config.ssm.state = 64;
  }
  return config;
}

std::vector<int32_t> Ids(const ModelConfig &config) { return SomeWindows(config, 1, kErrorWindow).ids; }

QuantizedMatrix Part(const QuantizedMatrix &matrix, const std::vector<IndexRun> &rows, int64_t k) {
  QuantizedMatrix part;
  part.format = matrix.format;
  part.k = k;
  const int64_t group = matrix.group();
  for (const IndexRun &run : rows) {
    for (int64_t n = run.first; n < int64_t{run.first} + run.count; ++n) {
      const auto weights = matrix.weights.begin() + n * matrix.k;
      part.weights.insert(part.weights.end(), weights, weights + k);
      if (group != 0) {
        const auto multipliers = matrix.multipliers.begin() + n * (matrix.k / group);
        part.multipliers.insert(part.multipliers.end(), multipliers, multipliers + k / group);
      }
      part.scale.push_back(matrix.scale[static_cast<size_t>(n)]);
      ++part.n;
    }
  }
  return part;
}

template <typename Row>
Row Elements(const Row &row, const std::vector<IndexRun> &runs) {
  std::vector<typename Row::value_type> some;
  for (const IndexRun &run : runs) {
    for (uint32_t i = run.first; i < run.first + run.count && row.size() != 0; ++i) some.push_back(*(row.data() + i));
  }
  Row result(static_cast<int64_t>(some.size()));
  std::copy(some.begin(), some.end(), result.data());
  return result;
}

uint32_t U(int64_t value) { return static_cast<uint32_t>(value); }

std::vector<IndexRun> All(const QuantizedMatrix &matrix) { return {{0, U(matrix.n)}}; }

/// Prefix rows [rows, kv_heads, dim], of each head the first `kept`, in heads of `stride`.
std::vector<int8_t> PrefixPart(const std::vector<int8_t> &rows, int64_t dim, int64_t kept, int64_t stride) {
  std::vector<int8_t> part;
  for (size_t head = 0; head < rows.size() / static_cast<size_t>(dim); ++head) {
    const auto first = rows.begin() + static_cast<int64_t>(head) * dim;
    part.insert(part.end(), first, first + kept);
    part.insert(part.end(), static_cast<size_t>(stride - kept), 0);
  }
  return part;
}

void NarrowAttention(const ModelConfig &config, const LayerWidths &whole, const LayerWidths &kept, QuantizedLayer *layer) {
  std::vector<IndexRun> rows;
  for (int64_t head = 0; head < config.heads + config.kv_heads; ++head) rows.push_back({U(head * whole.qk), U(kept.qk)});
  for (int64_t head = 0; head < config.kv_heads; ++head) {
    rows.push_back({U((config.heads + config.kv_heads) * whole.qk + head * whole.v), U(kept.v)});
  }
  layer->qkv = Part(layer->qkv, rows, layer->qkv.k);
  layer->qkv_bias = Elements(layer->qkv_bias, rows);
  const int64_t group = std::max<int64_t>(layer->o.group(), 1);
  layer->o = Part(layer->o, All(layer->o), (config.heads * kept.v + group - 1) / group * group);
  const int64_t stride = std::max(kept.qk, kept.v);
  layer->prefix_k = PrefixPart(layer->prefix_k, config.head_dim, kept.qk, stride);
  layer->prefix_v = PrefixPart(layer->prefix_v, config.head_dim, kept.v, stride);
  std::vector<uint8_t> pairs;
  for (int64_t head = 0; head < config.kv_heads && !layer->order.pairs.empty(); ++head) {
    const auto first = layer->order.pairs.begin() + head * whole.qk / 2;
    pairs.insert(pairs.end(), first, first + kept.qk / 2);
  }
  layer->order.pairs = pairs;
}

/// Of a prefix [.., width] some columns.
template <typename T>
std::vector<T> ColumnsPart(const std::vector<T> &rows, int64_t width, const std::vector<IndexRun> &columns) {
  std::vector<T> part;
  for (size_t row = 0; row < rows.size() / static_cast<size_t>(width); ++row) {
    for (const IndexRun &run : columns) {
      const auto first = rows.begin() + static_cast<int64_t>(row) * width + run.first;
      part.insert(part.end(), first, first + run.count);
    }
  }
  return part;
}

void NarrowStateSpace(const StateSpaceConfig &config, const LayerWidths &whole, const LayerWidths &kept, QuantizedLayer *layer) {
  const int64_t inner = config.heads * whole.channels;
  const uint32_t kept_inner = U(config.heads * kept.channels);
  std::vector<IndexRun> columns = {{0, kept_inner}};
  for (int64_t group = 0; group < 2 * config.groups; ++group) columns.push_back({U(inner + group * whole.state), U(kept.state)});
  std::vector<IndexRun> rows = {{0, kept_inner}};
  for (const IndexRun &run : columns) rows.push_back({U(inner) + run.first, run.count});
  rows.push_back({U(2 * inner + 2 * config.groups * whole.state), U(config.heads)});
  layer->qkv = Part(layer->qkv, rows, layer->qkv.k);
  layer->o = Part(layer->o, All(layer->o), kept_inner);
  QuantizedStateSpace &ssm = layer->ssm;
  Matrix conv(kept_inner + 2 * config.groups * kept.state, ssm.conv.cols());
  int64_t at = 0;
  for (const IndexRun &run : columns) {
    conv.middleRows(at, run.count) = ssm.conv.middleRows(run.first, run.count);
    at += run.count;
  }
  ssm.conv = conv;
  ssm.conv_bias = Elements(ssm.conv_bias, columns);
  ssm.norm = Elements(ssm.norm, {{0, kept_inner}});
  ssm.prefix_conv = ColumnsPart(ssm.prefix_conv, inner + 2 * config.groups * whole.state, columns);
  ssm.prefix_state = ColumnsPart(ssm.prefix_state, whole.state, {{0, U(kept.state)}});
  ssm.prefix_state = ColumnsPart(ssm.prefix_state, whole.channels * kept.state, {{0, U(kept.channels * kept.state)}});
  ssm.scales = layer->profiles[0].ssm;  // chosen by the caller
  std::vector<double> units;
  for (const IndexRun &run : columns) {
    units.insert(units.end(), ssm.scales.conv_in16.begin() + run.first, ssm.scales.conv_in16.begin() + run.first + run.count);
  }
  ssm.scales.conv_in16 = units;
}

/// Everything that rate `profile` leaves out is gone.
QuantizedModel Narrowed(QuantizedModel model, const ModelConfig &config, size_t profile) {
  model.frame.writer.rates.clear();
  for (QuantizedLayer &layer : model.layers) {
    layer.profiles = {layer.profiles[profile]};
    const LayerWidths whole = layer.widths, kept = layer.profiles[0].widths;
    if (layer.ssm.empty()) {
      NarrowAttention(config, whole, kept, &layer);
    } else {
      NarrowStateSpace(config.ssm, whole, kept, &layer);
    }
    if (layer.experts.empty() && layer.down.n != 0) {
      const std::vector<IndexRun> rows = {{0, U(kept.ffn)}, {U(whole.ffn), U(kept.ffn)}};
      layer.gate_up = Part(layer.gate_up, rows, layer.gate_up.k);
      layer.gate_up_bias = Elements(layer.gate_up_bias, rows);
      layer.down = Part(layer.down, All(layer.down), kept.ffn);
    }
    for (ExpertMatrices &expert : layer.experts.experts) {
      expert.gate = Part(expert.gate, {{0, U(kept.ffn)}}, expert.gate.k);
      expert.up = Part(expert.up, {{0, U(kept.ffn)}}, expert.up.k);
      expert.down = Part(expert.down, All(expert.down), kept.ffn);
    }
    // What is left is still summed of its slices.
    std::vector<int64_t> &slices = layer.experts.slices;
    for (int64_t rest = whole.ffn; !layer.experts.empty() && rest > kept.ffn; slices.pop_back()) rest -= slices.back();
    layer.scales = layer.profiles[0].scales;
    layer.widths = kept;
    layer.profiles.clear();
  }
  return model;
}

void Write(const QuantizedModel &model, const ModelConfig &config, const std::string &path) {
  FileSink sink(config, path, model.frame.writer.rates);
  WriteModel(model, &sink);
  ModelFacts facts;
  facts.vocab_size = static_cast<uint32_t>(config.vocab);
  facts.max_context = 256;
  sink.Finish(facts);
}

struct Case {
  const char *family;
  WeightFormat format;
  std::vector<int32_t> prefix;
};

void PrintTo(const Case &c, std::ostream *out) {
  *out << c.family << ' ' << static_cast<int>(c.format) << ' ' << c.prefix.size();
}

class ElasticFile : public testing::TestWithParam<Case> {};

TEST_P(ElasticFile, ComputesAtEachRateWhatAFileOfThatRateDoes) {
  Progress::Silence();
  const test::TempFolder folder;
  const auto family = OpenSourceModel(test::DataPath(GetParam().family));
  const RandomModel source(*family, Widened(family->config()));
  const ModelConfig &config = source.config();
  const CalibrationWindows windows = SomeWindows(config, 6, kErrorWindow);
  ElasticOptions options;
  options.rates = {10, 25, 40};
  ElasticPlan plan = PlanElastic(source, windows.ids, windows.window, options);
  RecipeOptions recipe;
  recipe.body_format = GetParam().format;
  recipe.profiles = plan.profiles;
  recipe.most_block = plan.block;
  recipe.prefix_tokens = GetParam().prefix;
  const SortedModel sorted(source, plan.layers);
  QuantizedModel model;
  KeepingSink sink(&model);
  QuantizeModel(sorted, windows, recipe, &sink);
  Write(model, config, folder.File("elastic.acorn"));
  const Matrix whole = DeviceLogits(folder.File("elastic.acorn"), Ids(config), config.vocab);
  for (size_t i = 0; i < options.rates.size(); ++i) {
    const std::string narrow = folder.File(std::to_string(i) + ".acorn");
    Write(Narrowed(model, config, i), config, narrow);
    const Matrix want = DeviceLogits(narrow, Ids(config), config.vocab);
    const Matrix got = DeviceLogits(folder.File("elastic.acorn"), Ids(config), config.vocab, static_cast<uint32_t>(options.rates[i]));
    EXPECT_TRUE(got == want) << options.rates[i] << ": " << (got - want).cwiseAbs().maxCoeff();
    EXPECT_FALSE(got == whole) << options.rates[i];
  }
}

INSTANTIATE_TEST_SUITE_P(Families, ElasticFile,
                         testing::Values(Case{"small_llama", WeightFormat::kW4G32, {}}, Case{"small_llama", WeightFormat::kW8, {5, 3}},
                                         Case{"small_llama", WeightFormat::kW4, {}}, Case{"small_llama", WeightFormat::kW4G64, {}},
                                         Case{"small_gemma", WeightFormat::kW4G32, {}},
                                         Case{"small_stablelm", WeightFormat::kW4G32, {}},
                                         Case{"small_mixtral", WeightFormat::kW4G32, {}},
                                         Case{"small_qwen3_moe", WeightFormat::kW8, {}},
                                         Case{"small_mamba2", WeightFormat::kW4G32, {}},
                                         Case{"small_mamba2", WeightFormat::kW8, {}}, Case{"small_mamba2", WeightFormat::kW8, {5}},
                                         Case{"small_mamba2", WeightFormat::kW4G32, {5, 3}},
                                         Case{"small_bamba", WeightFormat::kW4G32, {}}, Case{"small_bamba", WeightFormat::kW8, {5, 3}},
                                         Case{"small_granite_h_dense", WeightFormat::kW8, {}},
                                         Case{"small_granite_h_dense", WeightFormat::kW4G32, {5}}));

}  // namespace
}  // namespace acorn::compiler
