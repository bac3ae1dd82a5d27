// Training: it lowers the loss on text it never saw, and whatever ends it early, the best so far is kept.
#include <gtest/gtest.h>

#include <csignal>

#include <torch/torch.h>

#include "tests/compiler/expect_error.h"
#include "tests/compiler/train/small_model.h"
#include "tests/support/shared_data.h"
#include "tests/support/temp_folder.h"
#include "train/trainer.h"

namespace acorn::compiler {
namespace {

class Trainer : public testing::Test {
 protected:
  Trainer() : source_(OpenSourceModel(test::DataPath("small_llama"))) {
    Progress::Silence();
    RecipeOptions options;
    options.recipe = Recipe::kRtn;
    options.body_format = WeightFormat::kW4;
    model_ = QuantizeSmall(*source_, options, &unrounded_);
    windows_ = SomeWindows(source_->config(), 12, 32);
  }
  TrainOptions Options(int64_t steps) const {
    TrainOptions options;
    options.steps = steps;
    return options;
  }

  std::unique_ptr<SourceModel> source_;
  QuantizedModel model_;
  std::vector<LayerWeights> unrounded_;
  CalibrationWindows windows_;
};

void ExpectSame(const QuantizedModel &a, const QuantizedModel &b) {
  for (size_t i = 0; i < a.layers.size(); ++i) {
    EXPECT_EQ(a.layers[i].qkv.scale, b.layers[i].qkv.scale);
    EXPECT_EQ(a.layers[i].qkv.weights, b.layers[i].qkv.weights);
    EXPECT_EQ(a.layers[i].down.weights, b.layers[i].down.weights);
    EXPECT_EQ(a.layers[i].down.scale, b.layers[i].down.scale);
    EXPECT_EQ(a.layers[i].attn_norm, b.layers[i].attn_norm);
    EXPECT_EQ(a.layers[i].o_bias, b.layers[i].o_bias);
    EXPECT_EQ(a.layers[i].scales.down_in, b.layers[i].scales.down_in);
    EXPECT_EQ(a.layers[i].scales.v8, b.layers[i].scales.v8);
  }
  EXPECT_EQ(a.head.weight.scale, b.head.weight.scale);
}

TEST_F(Trainer, LowersTheLossOnTextThatItNeverSaw) {
  for (const TrainLoss loss : {TrainLoss::kLogits, TrainLoss::kHidden}) {
    QuantizedModel model = model_;
    TrainOptions options = Options(60);
    options.loss = loss;
    const TrainResult result = Train(*source_, windows_, options, unrounded_, &model);
    EXPECT_LT(result.loss_after, result.loss_before * 0.97);
    EXPECT_EQ(result.steps, 60);
    EXPECT_EQ(result.end, TrainingEnd::kAllSteps);
    EXPECT_GT(result.points.size(), 10u);
  }
}

TEST_F(Trainer, LearnsForACacheOf4Bits) {
  RecipeOptions recipe;
  recipe.body_format = WeightFormat::kW8;  // so that the cache is what there is to learn for
  recipe.kv_bits = 4;
  std::vector<LayerWeights> unrounded;
  QuantizedModel model = QuantizeSmall(*source_, recipe, &unrounded);
  const LayerScales before = model.layers.front().scales;
  const TrainResult result = Train(*source_, windows_, Options(60), unrounded, &model);
  EXPECT_LT(result.loss_after, result.loss_before * 0.97);
  EXPECT_NE(model.layers.front().scales.k8, before.k8);
  EXPECT_NE(model.layers.front().scales.v8, before.v8);
}

TEST_F(Trainer, LearnsForStateSpaceLayers) {
  RecipeOptions recipe;
  recipe.recipe = Recipe::kRtn;
  recipe.body_format = WeightFormat::kW4;
  for (const char *name : {"small_mamba2", "small_bamba"}) {  // without FFNs; with them, and with a layer of attention
    const auto source = OpenSourceModel(test::DataPath(name));
    std::vector<LayerWeights> unrounded;
    QuantizedModel model = QuantizeSmall(*source, recipe, &unrounded);
    const QuantizedLayer before = model.layers.front();
    const TrainResult result = Train(*source, SomeWindows(source->config(), 12, 32), Options(60), unrounded, &model);
    EXPECT_LT(result.loss_after, result.loss_before * 0.97) << name;
    const QuantizedLayer &layer = model.layers.front();
    EXPECT_NE(layer.qkv.weights, before.qkv.weights) << name;
    EXPECT_NE(layer.o.weights, before.o.weights) << name;
    EXPECT_NE(layer.ssm.norm, before.ssm.norm) << name;
    EXPECT_NE(layer.ssm.decay, before.ssm.decay) << name;
    EXPECT_NE(layer.ssm.skip, before.ssm.skip) << name;
    EXPECT_NE(layer.scales.attn_out, before.scales.attn_out) << name;
    EXPECT_EQ(layer.qkv_bias.size(), layer.qkv.n) << name;
  }
}

TEST_F(Trainer, TrainsWithoutTheWeightsBeforeRounding) {
  QuantizedModel model = model_;
  const TrainResult result = Train(*source_, windows_, Options(60), {}, &model);
  EXPECT_LT(result.loss_after, result.loss_before);
  for (const TrainingPoint &point : result.points) EXPECT_NE(point.stage, "scales, clipping, ranges");
}

TEST_F(Trainer, SameInputSameResult) {
  QuantizedModel first = model_, second = model_;
  Train(*source_, windows_, Options(8), unrounded_, &first);
  Train(*source_, windows_, Options(8), unrounded_, &second);
  ExpectSame(first, second);
}

TEST_F(Trainer, GoesOnFromACheckpointAsIfNothingHadHappened) {
  QuantizedModel whole = model_;
  Train(*source_, windows_, Options(60), unrounded_, &whole);
  for (const int64_t stop_at : {3, 30, 50}) {  // in each stage
    const test::TempFolder folder;
    TrainOptions options = Options(60);
    options.checkpoint = folder.File("c");
    options.on_step = [&](int64_t steps) {
      if (steps == stop_at) std::raise(SIGINT);
    };
    QuantizedModel stopped = model_, resumed = model_;
    const TrainResult first = Train(*source_, windows_, options, unrounded_, &stopped);
    ASSERT_EQ(first.end, TrainingEnd::kInterrupted);
    ASSERT_EQ(first.steps, stop_at);
    options.on_step = nullptr;
    const TrainResult second = Train(*source_, windows_, options, unrounded_, &resumed);
    EXPECT_EQ(second.end, TrainingEnd::kAllSteps);
    EXPECT_EQ(second.steps, 60);
    ExpectSame(whole, resumed);
  }
}

TEST_F(Trainer, ACheckpointOfAnotherRunIsRefused) {
  const test::TempFolder folder;
  TrainOptions options = Options(2);
  options.checkpoint = folder.File("c");
  options.checkpoint_minutes = 0;
  QuantizedModel model = model_;
  Train(*source_, windows_, options, unrounded_, &model);
  options.steps = 3;
  model = model_;
  EXPECT_ERROR(Train(*source_, windows_, options, unrounded_, &model), ExitCode::kUsage, "remove it");
  folder.Write("c", "no checkpoint");
  EXPECT_ERROR(Train(*source_, windows_, options, unrounded_, &model), ExitCode::kIo, "remove it");
}

TEST_F(Trainer, TooFewWindowsAndUnwritableCheckpoints) {
  QuantizedModel model = model_;
  EXPECT_ERROR(Train(*source_, SomeWindows(source_->config(), 3, 32), Options(1), unrounded_, &model), ExitCode::kUsage, "calibration text");
  TrainOptions options = Options(2);
  options.checkpoint = "/nowhere/c";
  options.checkpoint_minutes = 0;
  EXPECT_ERROR(Train(*source_, windows_, options, unrounded_, &model), ExitCode::kIo, "/nowhere/c");
}

TEST_F(Trainer, ALossThatIsNoNumberEndsItWithTheBestSoFar) {
  QuantizedModel model = model_;
  // A weight scale beyond all bounds makes logits that float cannot hold.
  TrainOptions options = Options(5);
  for (double &scale : model.head.weight.scale) scale = 1e38;
  const TrainResult result = Train(*source_, windows_, options, unrounded_, &model);
  EXPECT_EQ(result.end, TrainingEnd::kDiverged);
  EXPECT_EQ(result.best_step, 0);
}

}  // namespace
}  // namespace acorn::compiler
