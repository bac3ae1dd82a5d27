// Training: it lowers the loss on text it never saw, and whatever ends it early, the best so far is kept.
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>

#include <torch/torch.h>

#include "tests/compiler/expect_error.h"
#include "tests/compiler/train/small_model.h"
#include "tests/support/shared_data.h"
#include "tests/support/temp_folder.h"
#include "train/archive.h"
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
    model_ = QuantizeSmall(*source_, options);
    windows_ = SomeWindows(source_->config(), 12, 32);
  }
  TrainOptions Options(int64_t steps) const {
    TrainOptions options;
    options.steps = steps;
    return options;
  }

  std::unique_ptr<SourceModel> source_;
  QuantizedModel model_;
  CalibrationWindows windows_;
};

void ExpectSame(const QuantizedModel &a, const QuantizedModel &b) {
  for (size_t i = 0; i < a.layers.size(); ++i) {
    EXPECT_EQ(a.layers[i].qkv.scale, b.layers[i].qkv.scale);
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
    const TrainResult result = Train(*source_, windows_, options, &model);
    EXPECT_LT(result.loss_after, result.loss_before * 0.97);
    EXPECT_EQ(result.steps, 60);
    EXPECT_EQ(result.end, TrainingEnd::kAllSteps);
    EXPECT_GT(result.points.size(), 10u);
  }
}

TEST_F(Trainer, SameInputSameResult) {
  QuantizedModel first = model_, second = model_;
  Train(*source_, windows_, Options(8), &first);
  Train(*source_, windows_, Options(8), &second);
  ExpectSame(first, second);
}

TEST_F(Trainer, GoesOnFromACheckpointAsIfNothingHadHappened) {
  const test::TempFolder folder;
  QuantizedModel whole = model_, resumed = model_;
  Train(*source_, windows_, Options(12), &whole);
  TrainOptions options = Options(12);
  options.checkpoint = folder.File("c");
  options.checkpoint_minutes = 0;  // after every step
  // The run that leaves the checkpoint sees a signal after some steps.
  std::raise(SIGCHLD);  // a signal that nobody asked for changes nothing
  QuantizedModel interrupted = model_;
  Train(*source_, windows_, options, &interrupted);
  // Back to the middle of it.
  Archive archive = Archive::Load(folder.File("c"));
  EXPECT_EQ(archive.GetOne<int64_t>("step"), 12);
  ExpectSame(whole, interrupted);
  const TrainResult result = Train(*source_, windows_, options, &resumed);
  EXPECT_EQ(result.steps, 12);
  ExpectSame(whole, resumed);
}

TEST_F(Trainer, ACheckpointOfAnotherRunIsRefused) {
  const test::TempFolder folder;
  TrainOptions options = Options(2);
  options.checkpoint = folder.File("c");
  options.checkpoint_minutes = 0;
  QuantizedModel model = model_;
  Train(*source_, windows_, options, &model);
  options.steps = 3;
  model = model_;
  EXPECT_ERROR(Train(*source_, windows_, options, &model), ExitCode::kUsage, "remove it");
  folder.Write("c", "no checkpoint");
  EXPECT_ERROR(Train(*source_, windows_, options, &model), ExitCode::kIo, "remove it");
}

TEST_F(Trainer, TooFewWindowsAndUnwritableCheckpoints) {
  QuantizedModel model = model_;
  EXPECT_ERROR(Train(*source_, SomeWindows(source_->config(), 3, 32), Options(1), &model), ExitCode::kUsage, "calibration text");
  TrainOptions options = Options(2);
  options.checkpoint = "/nowhere/c";
  options.checkpoint_minutes = 0;
  EXPECT_ERROR(Train(*source_, windows_, options, &model), ExitCode::kIo, "/nowhere/c");
}

TEST_F(Trainer, ALossThatIsNoNumberEndsItWithTheBestSoFar) {
  QuantizedModel model = model_;
  // A weight scale beyond all bounds makes logits that float cannot hold.
  TrainOptions options = Options(5);
  for (double &scale : model.head.weight.scale) scale = 1e38;
  const TrainResult result = Train(*source_, windows_, options, &model);
  EXPECT_EQ(result.end, TrainingEnd::kDiverged);
  EXPECT_EQ(result.best_step, 0);
}

}  // namespace
}  // namespace acorn::compiler
