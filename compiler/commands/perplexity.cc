// acornc perplexity: the float reference of a source model on a text, whole or at pruning rates.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/parallel.h"
#include "base/progress.h"
#include "commands/commands.h"
#include "commands/elastic.h"
#include "graph/float_model.h"
#include "import/source_model.h"
#include "passes/layer_rates.h"
#include "quantize/calibration.h"
#include "text/source_tokenizer.h"
#include "train/heal.h"
#include "train/mobilequant.h"

namespace acorn::compiler {
namespace {

struct Options {
  std::string source;
  std::string text;
  SourceOptions source_options;
  PerplexityOptions perplexity;
  ElasticOptions elastic;  // without rates: the whole model alone
  std::vector<std::string> without;
  CalibrationOptions calibration;
  HealOptions heal;  // without minutes: no healing
  int threads = 0;
  bool json = false;
};

constexpr int64_t kCalibrationWindows = 64;

/// Checks what belongs to --rate and puts it in order.
void CompleteElastic(Options *options) {
  ElasticOptions &elastic = options->elastic;
  if (elastic.rates.empty()) {
    if (options->calibration.files.empty() && options->without.empty() && options->heal.minutes == 0) return;
    throw Error(ExitCode::kUsage, "--calibration, --elastic-without and --heal need --rate: without it nothing is dropped");
  }
  std::sort(elastic.rates.begin(), elastic.rates.end());
  elastic.rates.erase(std::unique(elastic.rates.begin(), elastic.rates.end()), elastic.rates.end());
  LeaveOut(options->without, &elastic);
}

std::vector<int32_t> TokenizeFile(const SourceModel &source, const std::string &path) {
  const std::unique_ptr<SourceTokenizer> tokenizer = OpenTokenizer(source);
  const MappedFile file(path);
  Progress progress("tokenize " + path, 1);
  std::vector<int32_t> ids = tokenizer->Encode(file.text());
  progress.Finish(std::to_string(ids.size()) + " tokens");
  return ids;
}

/// A perplexity and what it was measured at.
struct Measured {
  std::optional<RateProfile> profile;
  double realised_rate = 0;
  PerplexityResult result;
};

nlohmann::ordered_json WidthsOf(const RateProfile &profile) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const LayerWidths &widths : profile.layers) {
    all.push_back({{"ffn", widths.ffn}, {"qk", widths.qk}, {"v", widths.v}, {"state", widths.state}, {"channels", widths.channels}});
  }
  return all;
}

void Print(const Options &options, const Measured &measured) {
  const PerplexityResult &result = measured.result;
  if (!options.json) {
    if (measured.profile) std::printf("rate %d (%.2f %% dropped): ", measured.profile->rate, 100 * measured.realised_rate);
    std::printf("perplexity %.4f over %lld tokens (%lld windows of %lld, scored from %lld)\n", result.perplexity,
                static_cast<long long>(result.scored_tokens), static_cast<long long>(result.windows),
                static_cast<long long>(options.perplexity.window), static_cast<long long>(options.perplexity.score_from));
    std::fflush(stdout);
    return;
  }
  nlohmann::ordered_json out = {
      {"perplexity", result.perplexity},
      {"tokens", result.scored_tokens},
      {"windows", result.windows},
      {"window", options.perplexity.window},
      {"score_from", options.perplexity.score_from},
      {"mean_loss", result.mean_loss},
      {"threads", ThreadCount()},
  };
  if (measured.profile) {
    out["rate"] = measured.profile->rate;
    out["realised_rate"] = 100 * measured.realised_rate;
    out["layers"] = WidthsOf(*measured.profile);
  }
  std::printf("%s\n", out.dump().c_str());
  std::fflush(stdout);
}

PerplexityResult Measure(const SourceModel &source, const std::vector<int32_t> &ids, const PerplexityOptions &options) {
  std::unique_ptr<Progress> progress;
  PerplexityResult result = Perplexity(source, ids, options, [&](int64_t done, int64_t total) {
    if (!progress) progress = std::make_unique<Progress>("perplexity, layers", total);
    progress->Update(done);
  });
  if (progress) progress->Finish();
  return result;
}

void MeasureRates(const Options &options, const SourceModel &source, const std::vector<int32_t> &ids) {
  if (options.heal.minutes > 0) CheckHealing(source, options.elastic.rates);
  const CalibrationWindows windows = MakeCalibration(source, options.calibration);
  ElasticPlan plan = PlanElastic(source, windows.ids, windows.window, options.elastic);
  const SortedModel sorted(source, std::move(plan.layers));
  std::vector<LowRankAddition> additions;
  if (options.heal.minutes > 0) additions = HealOnTexts(sorted, plan.profiles, options.calibration, options.heal).additions;
  const HealedModel model(sorted, std::move(additions));
  for (const RateProfile &profile : plan.profiles) {
    PerplexityOptions at_rate = options.perplexity;
    at_rate.change = [&](int64_t layer, LayerWeights *weights) {
      DropBeyond(model.config(), profile.layers[static_cast<size_t>(layer)], weights);
    };
    Print(options, {profile, RealisedRate(model.config(), plan.steps, profile), Measure(model, ids, at_rate)});
  }
}

void Run(Options options) {
  CompleteElastic(&options);
  if (options.heal.minutes > 0) PrepareTraining("--heal");
  SetThreadCount(options.threads);
  const std::unique_ptr<SourceModel> source = OpenSourceModel(options.source, options.source_options);
  const int64_t longest = source->config().max_context;
  const bool is_endless = source->config().sliding_window != 0 && source->config().windowed_layers.empty();
  if (options.perplexity.window > longest && !is_endless) {
    std::fprintf(stderr, "acornc: note: windows of %lld tokens, the model was trained for %lld\n",
                 static_cast<long long>(options.perplexity.window), static_cast<long long>(longest));
  }
  const std::vector<int32_t> ids = TokenizeFile(*source, options.text);
  if (!options.elastic.rates.empty()) return MeasureRates(options, *source, ids);
  Print(options, {std::nullopt, 0, Measure(*source, ids, options.perplexity)});
}

}  // namespace

void AddPerplexityCommand(CLI::App *app) {
  CLI::App *command = app->add_subcommand("perplexity", "Float perplexity of a source model on a text");
  const auto options = std::make_shared<Options>();
  options->calibration.windows = kCalibrationWindows;
  command->add_option("SRC", options->source, "Hugging Face folder, GGUF file or llama2.c checkpoint")->required();
  command->add_option("--text", options->text, "UTF-8 text file")->required();
  command->add_option("--tokenizer", options->source_options.tokenizer_path, "tokenizer of a llama2.c checkpoint");
  command->add_option("--window", options->perplexity.window, "tokens of a window")->capture_default_str();
  command->add_option("--attention-window", options->source_options.window,
                      "newest tokens that attention sees, in every layer (default: the model's own)")
      ->check(CLI::PositiveNumber);
  command->add_option("--score-from", options->perplexity.score_from, "first position that is scored")->capture_default_str();
  command->add_option("--windows", options->perplexity.max_windows, "score at most so many windows")
      ->check(CLI::PositiveNumber);
  command->add_option("--rate", options->elastic.rates, "percent of the layers' weights to drop, least important first")
      ->delimiter(',')
      ->check(CLI::Range(0, kHighestElasticRate));
  command->add_option("--calibration", options->calibration.files,
                      "with --rate: UTF-8 text that decides what is important, may be repeated (default: a built-in text)");
  command->add_option("--calibration-windows", options->calibration.windows, "with --rate: windows of 512 tokens of it")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--elastic-without", options->without, "with --rate, to see what it is worth: sort, svd, rates, shares")
      ->delimiter(',')
      ->check(CLI::IsMember({"sort", "svd", "rates", "shares"}));
  CLI::Option *heal =
      command->add_option("--heal", options->heal.minutes, "with --rate: minutes of training that makes up for what is dropped")
          ->check(CLI::Range(0.01, 1e6));
  command->add_option("--heal-steps", options->heal.steps, "end it after so many steps, for the same result on the same machine again")
      ->check(CLI::Range(1, 100000000))
      ->needs(heal);
  command->add_option("--threads", options->threads, "threads (default: all cores)")->check(CLI::Range(1, 1024));
  command->add_flag("--json", options->json, "print one JSON object");
  command->callback([options] { Run(*options); });
}

}  // namespace acorn::compiler
