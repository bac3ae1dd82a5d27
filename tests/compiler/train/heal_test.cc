// Healing: the model that is trained is the float reference, whole and at every width; its gradients are those of what it
// computes; and training makes narrow layers better without making whole ones worse.
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "base/parallel.h"
#include "graph/float_model.h"
#include "passes/healed_model.h"
#include "passes/profiles.h"
#include "tests/compiler/expect_error.h"
#include "tests/compiler/train/small_model.h"
#include "tests/support/shared_data.h"
#include "train/elastic_model.h"
#include "train/float_ops.h"
#include "train/heal.h"
#include "train/teacher.h"

namespace acorn::compiler {
namespace {

using torch::Tensor;

/// A source whose layers are said to stand in elastic order already: weights are random, so that one order is as good as another.
class OrderedModel final : public SourceModel {
 public:
  OrderedModel(const SourceModel &source, ModelConfig config) : SourceModel(source, std::move(config)) {}
  LayerOrder Order(int64_t layer) const override {
    LayerOrder order;
    if (config().IsStateSpace(layer)) {
      order.channel_major = config().ssm.groups == 1;
      return order;
    }
    const int64_t pairs = config().head_dim / 2, rotated = config().rotary_dims / 2;
    for (int64_t i = 0; i < config().kv_heads * pairs; ++i) {
      const int64_t frequency = (3 * i + layer) % pairs;  // another for each pair of a head: 3 divides no width
      order.pairs.push_back(frequency < rotated ? static_cast<uint8_t>(frequency) : LayerOrder::kNotRotated);
    }
    order.rank_major = true;
    return order;
  }
};

/// small_llama's weights as two heads of 32 and one of K and V: wide enough to be cut.
ModelConfig FewWideHeads(ModelConfig config) {
  config.heads = 2;
  config.kv_heads = 1;
  config.head_dim = config.rotary_dims = 32;
  return config;
}

RateProfile WholeProfile(const ModelConfig &config) {
  RateProfile profile;
  for (int64_t layer = 0; layer < config.layers; ++layer) profile.layers.push_back(WholeWidths(config, layer));
  return profile;
}

/// Every width that can be cut in the source's order is, each layer's by another amount.
RateProfile NarrowProfile(const SourceModel &source) {
  const ModelConfig &config = source.config();
  RateProfile profile = WholeProfile(config);
  profile.rate = 25;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    LayerWidths &widths = profile.layers[static_cast<size_t>(layer)];
    widths.ffn -= widths.ffn / 8 * (1 + layer % 2);
    const LayerOrder order = source.Order(layer);
    if (widths.qk > 16 && !order.pairs.empty()) widths.qk = 16;
    if (widths.v > 16 && order.rank_major && layer % 2 == 0) widths.v = 16;
    if (widths.state > 16) widths.state = 16;
    if (widths.channels > 8 && order.channel_major) widths.channels = 8;
  }
  return profile;
}

Matrix ReferenceLogits(const SourceModel &source, const std::vector<int32_t> &ids, const std::vector<LayerWidths> &widths) {
  const auto narrow = [&](int64_t layer, LayerWeights *weights) {
    DropBeyond(source.config(), widths[static_cast<size_t>(layer)], weights);
  };
  return HeadScorer(source).Logits(RunLayers(source, ids, {0, static_cast<int64_t>(ids.size())}, nullptr, {}, narrow));
}

void ExpectLogits(const Matrix &reference, const Tensor &logits) {
  const Eigen::Map<const Matrix> values(logits.data_ptr<float>(), logits.size(0), logits.size(1));
  EXPECT_LT((values - reference).cwiseAbs().maxCoeff(), 1e-4f * reference.cwiseAbs().maxCoeff());
}

void ExpectReference(const SourceModel &source) {
  const std::vector<int32_t> ids = SomeWindows(source.config(), 1, 150).ids;
  const ElasticModel model(source, 150, 2, 1);
  const torch::NoGradGuard no_gradient;
  const std::vector<LayerWidths> whole = WholeProfile(source.config()).layers, narrow = NarrowProfile(source).layers;
  ExpectLogits(ReferenceLogits(source, ids, whole), model.Logits(model.SourceNormed(ids)));
  ExpectLogits(ReferenceLogits(source, ids, whole), model.Logits(model.Normed(ids, whole)));
  ExpectLogits(ReferenceLogits(source, ids, narrow), model.Logits(model.Normed(ids, narrow)));
}

TEST(ElasticModelTest, IsTheFloatReferenceOfModelsAsTheyAre) {
  for (const char *name : {"small_llama", "small_phi3", "small_stablelm", "small_gemma", "small_mamba2", "small_bamba",
                           "small_granite_h_dense"}) {
    SCOPED_TRACE(name);
    ExpectReference(*OpenSourceModel(test::DataPath(name)));
  }
}

TEST(ElasticModelTest, IsTheFloatReferenceAtNarrowWidths) {
  const std::unique_ptr<SourceModel> source = OpenSourceModel(test::DataPath("small_llama"));
  ModelConfig config = FewWideHeads(source->config());
  ExpectReference(OrderedModel(*source, config));
  config.rotary_dims = 12;
  config.sliding_window = 40;
  ExpectReference(OrderedModel(*source, config));
}

TEST(ElasticModelTest, IsTheFloatReferenceOfTheSharedModels) {
  ACORN_NEED_SHARED("models/tiny");
  for (const char *name : {"llama", "qwen2", "mamba2", "bamba"}) {
    SCOPED_TRACE(name);
    const std::unique_ptr<SourceModel> source = OpenSourceModel(test::SharedPath(std::string("models/tiny/") + name));
    ExpectReference(OrderedModel(*source, source->config()));
  }
  // Norms of heads: Q and K stay whole, in the source's order.
  ExpectReference(*OpenSourceModel(test::SharedPath("models/tiny/qwen3")));
}

TEST(ElasticModelTest, AdditionsGoIntoTheSourcesOwnTensors) {
  for (const char *name : {"small_llama", "small_phi3", "small_bamba"}) {  // phi3 has a factor in its Q and K
    SCOPED_TRACE(name);
    const std::unique_ptr<SourceModel> source = OpenSourceModel(test::DataPath(name));
    const std::vector<int32_t> ids = SomeWindows(source->config(), 1, 30).ids;
    const ElasticModel model(*source, 30, 2, 1);
    const torch::NoGradGuard no_gradient;
    torch::manual_seed(1);
    for (Tensor parameter : model.parameters()) parameter.copy_(0.05 * torch::randn_like(parameter));
    const HealedModel healed(*source, model.Additions());
    const std::vector<LayerWidths> narrow = NarrowProfile(*source).layers;
    ExpectLogits(ReferenceLogits(healed, ids, narrow), model.Logits(model.Normed(ids, narrow)));
  }
}

/// The derivative of sum(output * weights) in a random direction of all inputs, by gradients and by differences.
void ExpectGradients(const std::function<Tensor(const std::vector<Tensor> &)> &op, std::vector<Tensor> inputs) {
  for (Tensor &input : inputs) input.requires_grad_();
  const Tensor output = op(inputs);
  const Tensor weights = torch::randn_like(output);
  (output * weights).sum().backward();
  const torch::NoGradGuard no_gradient;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Tensor direction = torch::randn_like(inputs[i]);
    const double by_gradient = (inputs[i].grad() * direction).sum().item<double>();
    const auto at = [&](double step) {
      std::vector<Tensor> moved = inputs;
      moved[i] = inputs[i] + step * direction;
      return (op(moved) * weights).to(torch::kDouble).sum().item<double>();
    };
    constexpr double kStep = 2e-3;
    EXPECT_NEAR((at(kStep) - at(-kStep)) / (2 * kStep), by_gradient, 0.01 * std::abs(by_gradient) + 0.02) << "input " << i;
  }
}

TEST(FloatOpsTest, GradientsAreThoseOfWhatIsComputed) {
  torch::manual_seed(2);
  const Tensor weight = torch::randn({9, 20}).narrow(1, 0, 7), bias = torch::randn({9});
  ExpectGradients([&](const std::vector<Tensor> &in) { return LowRankLinear(in[0], weight, bias, in[1], in[2], 0.7); },
                  {torch::randn({5, 7}), torch::randn({2, 7}), torch::randn({9, 2})});
  Rotary rotary = {torch::randn({6, 2, 16}), torch::randn({6, 2, 16}), true};
  ExpectGradients([&](const std::vector<Tensor> &in) { return Rotate(in[0], rotary); }, {torch::randn({6, 4, 16})});
  ExpectGradients([](const std::vector<Tensor> &in) { return CausalAttention(in[0], in[1], in[2], 0.4, 0); },
                  {torch::randn({150, 4, 6}), torch::randn({150, 2, 6}), torch::randn({150, 2, 3})});
  ExpectGradients([](const std::vector<Tensor> &in) { return CausalAttention(in[0], in[1], in[2], 0.4, 5); },
                  {torch::randn({20, 2, 6}), torch::randn({20, 2, 6}), torch::randn({20, 2, 3})});
  const Tensor decay = -torch::rand({4}), skip = torch::randn({4});
  ExpectGradients([&](const std::vector<Tensor> &in) { return Scan(in[0], in[1], in[2], in[3], decay, skip); },
                  {torch::randn({20, 4, 6}), 0.1 + torch::rand({20, 4}), torch::randn({20, 2, 5}), torch::randn({20, 2, 5})});
}

TEST(ElasticModelTest, GradientsReachTheAdditionsAlone) {
  for (const char *name : {"small_llama", "small_granite_h_dense", "small_bamba"}) {
    SCOPED_TRACE(name);
    const std::unique_ptr<SourceModel> source = OpenSourceModel(test::DataPath(name));
    const std::vector<int32_t> ids = SomeWindows(source->config(), 1, 20).ids;
    const ElasticModel model(*source, 20, 2, 1);
    {
      const torch::NoGradGuard no_gradient;
      torch::manual_seed(3);
      for (Tensor parameter : model.parameters()) parameter.copy_(0.1 * torch::randn_like(parameter));
    }
    const Tensor source_before = model.SourceNormed(ids);
    const std::vector<LayerWidths> narrow = NarrowProfile(*source).layers;
    const Tensor target = torch::randn({20, source->config().vocab});
    const auto loss_of = [&](Tensor *logits) { return DivergenceOf(target, ids, logits).kl; };
    const Tensor normed = model.Normed(ids, narrow);
    Tensor logits = model.Logits(normed);
    loss_of(&logits);
    model.BackwardOfLogits(normed, logits);
    // Along the gradient itself the loss changes by its square.
    const torch::NoGradGuard no_gradient;
    double square = 0;
    for (const Tensor &parameter : model.parameters()) {
      ASSERT_TRUE(parameter.grad().defined());
      square += parameter.grad().square().sum().item<double>();
    }
    const double step = 1e-3 / std::sqrt(square);
    const auto loss_at = [&](double distance) {
      for (Tensor parameter : model.parameters()) parameter.add_(parameter.grad(), distance);
      Tensor there = model.Logits(model.Normed(ids, narrow));
      return loss_of(&there);
    };
    const double forth = loss_at(step), back = loss_at(-2 * step);
    EXPECT_NEAR((forth - back) / (2 * step), square, 0.02 * square);
    EXPECT_TRUE(torch::equal(model.SourceNormed(ids), source_before));
  }
}

class HealTest : public testing::Test {
 protected:
  HealTest()
      : source_(OpenSourceModel(test::DataPath("small_llama"))),
        model_(*source_, FewWideHeads(source_->config())),
        profiles_{WholeProfile(model_.config()), NarrowProfile(model_)},
        windows_(SomeWindows(model_.config(), 12, 32)) {
    Progress::Silence();
    SetThreadCount(1);  // more only wait for each other
  }
  ~HealTest() override { SetThreadCount(0); }
  HealOptions Steps(int64_t steps) const {
    HealOptions options;
    options.steps = steps;
    return options;
  }

  std::unique_ptr<SourceModel> source_;
  OrderedModel model_;
  std::vector<RateProfile> profiles_;
  CalibrationWindows windows_;
};

TEST_F(HealTest, MakesTheNarrowModelBetterAndLeavesTheWholeOne) {
  const HealResult result = Heal(model_, profiles_, windows_, Steps(120));
  ASSERT_EQ(result.rates.size(), 2u);
  EXPECT_EQ(result.steps, 120);
  EXPECT_EQ(result.end, TrainingEnd::kAllSteps);
  EXPECT_LT(result.rates[1].loss_after, 0.9 * result.rates[1].loss_before);
  EXPECT_LE(result.rates[0].loss_after, 0.01);
  EXPECT_NEAR(result.rates[0].loss_before, 0, 1e-6);
  // What it returns is what it measured.
  const HealedModel healed(model_, result.additions);
  EXPECT_FALSE(healed.Load(TensorRole::kDown, 1).isApprox(source_->Load(TensorRole::kDown, 1)));
  EXPECT_EQ(healed.Load(TensorRole::kFfnNorm, 1), source_->Load(TensorRole::kFfnNorm, 1));
}

TEST_F(HealTest, SameInputSameResult) {
  const HealResult first = Heal(model_, profiles_, windows_, Steps(8)), second = Heal(model_, profiles_, windows_, Steps(8));
  ASSERT_FALSE(first.additions.empty());
  ASSERT_EQ(first.additions.size(), second.additions.size());
  for (size_t i = 0; i < first.additions.size(); ++i) {
    EXPECT_EQ(first.additions[i].b, second.additions[i].b);
    EXPECT_EQ(first.additions[i].a, second.additions[i].a);
  }
}

TEST_F(HealTest, ATimeThatIsOverBeforeTheFirstStepLeavesTheModel) {
  HealOptions options;
  options.minutes = 1e-9;
  const HealResult result = Heal(model_, profiles_, windows_, options);
  EXPECT_EQ(result.end, TrainingEnd::kTimeLimit);
  EXPECT_EQ(result.steps, 0);
  EXPECT_TRUE(result.additions.empty());
  EXPECT_EQ(result.rates[1].loss_after, result.rates[1].loss_before);
}

TEST_F(HealTest, RefusesWhatItCannotDo) {
  EXPECT_ERROR(Heal(model_, profiles_, SomeWindows(model_.config(), 3, 32), Steps(1)), ExitCode::kUsage, "calibration text");
  EXPECT_ERROR(CheckHealing(*OpenSourceModel(test::DataPath("small_mixtral")), {0, 15}), ExitCode::kUsage, "experts");
  EXPECT_ERROR(CheckHealing(model_, {15, 25}), ExitCode::kUsage, "rate 0");
  EXPECT_ERROR(CheckHealing(model_, {0}), ExitCode::kUsage, "rate 0");
  CheckHealing(model_, {0, 15});
}

}  // namespace
}  // namespace acorn::compiler
