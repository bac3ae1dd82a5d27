// acornc synth: a model file of a known geometry with random weights, for load tests.
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include "base/error.h"
#include "commands/commands.h"
#include "quantize/grid.h"
#include "quantize/recipe.h"
#include "synth/geometry.h"
#include "synth/random_model.h"
#include "write/device_limits.h"
#include "write/reference_run.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kMostExperts = 1024;           // of a layer, as the format allows
constexpr int64_t kMostLayers = 1024;
constexpr uint64_t kMostForReference = uint64_t{256} << 20;  // bytes; above it the portable kernels would take minutes

struct Options {
  std::string like, output, weights = "w4", head = "w8";
  int64_t experts = 0, layers = 0;
  uint64_t seed = 1;
};

ModelFacts MakeFacts(const ModelConfig &config, const RecipeOptions &recipe, const Options &options) {
  ModelFacts facts;
  facts.name = std::filesystem::path(options.like).stem().string() + ", random weights";
  facts.family = config.family;
  facts.vocab_size = static_cast<uint32_t>(config.vocab);
  const int64_t context = LongestContext(config);
  facts.max_context = static_cast<uint32_t>(context);
  facts.provenance = {
      {"compiler", "acornc 0.1"},
      {"synth", options.like},
      {"weights", FormatName(recipe.body_format)},
      {"head", FormatName(recipe.head_format)},
      {"seed", std::to_string(options.seed)},
  };
  return facts;
}

void Run(const Options &options) {
  const ModelConfig config = FindGeometry(options.like, options.experts, options.layers);
  if (config.HasStateSpace()) {
    throw Error(ExitCode::kBadModel, options.like + ": architecture " + config.architecture +
                                         " has state-space layers, of which synth draws none");
  }
  CheckDeviceLimits(config, options.like);
  RecipeOptions recipe;
  recipe.body_format = options.weights == "w8" ? WeightFormat::kW8 : WeightFormat::kW4G32;
  recipe.head_format = options.head == "w4" ? WeightFormat::kW4G32 : WeightFormat::kW8;
  FileSink sink(config, options.output);
  MakeRandomModel(config, recipe, options.seed, &sink);
  const uint64_t bytes = sink.Finish(MakeFacts(config, recipe, options));
  const bool has_run = bytes <= kMostForReference;
  if (has_run) RecordReferenceRun(options.output, options.output);
  std::printf("%s: %.1f MB of random weights, %s head %s, %lld layers", options.output.c_str(), static_cast<double>(bytes) / 1e6,
              FormatName(recipe.body_format).c_str(), FormatName(recipe.head_format).c_str(), static_cast<long long>(config.layers));
  if (config.experts != 0) {
    std::printf(" of %lld experts, %lld a token", static_cast<long long>(config.experts),
                static_cast<long long>(config.experts_per_token));
  }
  std::printf("%s\n", has_run ? "" : "; too large for a reference run (acornc record makes one)");
}

}  // namespace

void AddSynthCommand(CLI::App *app) {
  CLI::App *command = app->add_subcommand("synth", "Write a model file of a known geometry with random weights, for load tests");
  const auto o = std::make_shared<Options>();
  std::string names;
  for (const std::string &name : GeometryNames()) names += name + ", ";
  command->add_option("--like", o->like, names + "or the path of a config.json")->required();
  command->add_option("-o,--output", o->output, "file to write")->required();
  command->add_option("--experts", o->experts, "experts of a layer (default: as many as the geometry has)")
      ->check(CLI::Range(int64_t{1}, kMostExperts));
  command->add_option("--layers", o->layers, "layers (default: the same)")->check(CLI::Range(int64_t{1}, kMostLayers));
  command->add_option("--weights", o->weights, "bits of the weights; w4: in groups of 32")
      ->check(CLI::IsMember({"w4", "w8"}))
      ->capture_default_str();
  command->add_option("--head", o->head, "w8, or w4 in groups of 32")
      ->check(CLI::IsMember({"w8", "w4"}))
      ->capture_default_str();
  command->add_option("--seed", o->seed, "of the weights")->capture_default_str();
  command->callback([o] { Run(*o); });
}

}  // namespace acorn::compiler
