// acornc convert: a source model becomes a model file.
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/parallel.h"
#include "base/progress.h"
#include "commands/commands.h"
#include "commands/elastic.h"
#include "graph/float_model.h"
#include "import/source_model.h"
#include "quantize/calibration.h"
#include "quantize/expert_bits.h"
#include "quantize/file_size.h"
#include "quantize/grid.h"
#include "quantize/layer_quantizer.h"
#include "quantize/mixed.h"
#include "quantize/recipe.h"
#include "quantize/rotation_search.h"
#include "report/report.h"
#include "text/source_tokenizer.h"
#include "train/heal.h"
#include "train/mobilequant.h"
#include "write/device_limits.h"
#include "write/device_perplexity.h"
#include "write/reference_run.h"

namespace acorn::compiler {
namespace {

constexpr double kDefaultBudget = 1.05;          // of the plain file's size, for --mixed
constexpr double kDefaultExpertLoss = 0.02;      // of perplexity, for --expert-bits auto: EdgeMoE's

struct Options {
  std::string source;
  std::string output;
  SourceOptions source_options;
  std::string recipe = "fast";
  std::string weights = "w4";
  std::string group;
  std::string expert_bits;    // 2, 4, 8, auto or nothing
  std::string expert_budget;  // of auto; empty: the default
  std::string expert_ranking;
  std::string head = "w8";
  std::string target = "universal";
  std::string down_input = "hadamard";
  int kv = 8;
  std::string rotate = "none";
  int64_t rotate_seeds = 4;
  bool untie_head = false;
  std::string mixed;   // "auto" or nothing
  std::string budget;  // of --mixed
  std::string profiles;  // rates in percent; empty: none beyond 0
  std::vector<std::string> elastic_without;
  HealOptions heal;      // without minutes: no healing
  CalibrationOptions calibration;
  int64_t context = 0;
  std::string prefix = "auto";  // or none
  int threads = 0;
  std::string report;
  int64_t steps = 0;      // 0: the default
  int64_t own_text = -1;  // windows; -1: as many as are given
  double time_limit = 0;  // minutes, 0: none
  std::string loss = "logits";
  std::string checkpoint;  // empty: beside the output
};

/// Windows that are trained on when --steps does not say: an hour to an hour and a half for 135 M parameters on two cores, with all
/// that comes before.
constexpr int64_t kDefaultSteps = 1500;
/// Different windows that are trained on when --calibration-windows does not say, half of them of the model's own text: with half
/// as many it begins to know them by heart (docs/QUANTISATION.md).
constexpr int64_t kTrainingWindows = 1024;
constexpr int64_t kLeastForOwnText = 8;  // windows; fewer say little of what a text may be about

[[noreturn]] void Refuse(const std::string &message) { throw Error(ExitCode::kUsage, "convert: " + message); }

WeightFormat FourBits(const Options &options) {
  if (options.group == "channel") return WeightFormat::kW4;
  if (options.group == "64") return WeightFormat::kW4G64;
  if (options.group == "128") return WeightFormat::kW4G128;
  return WeightFormat::kW4G32;
}

WeightFormat BodyFormat(const Options &options) {
  if (options.weights == "w4") return FourBits(options);
  if (!options.group.empty() && options.group != "channel" && options.expert_bits != "4" && options.expert_bits != "auto") {
    Refuse("--group " + options.group + " needs --weights w4 or experts of 4 bits");
  }
  return WeightFormat::kW8;
}

/// Of all experts; with auto, of those in four bits.
WeightFormat ExpertFormat(const Options &options) {
  return options.expert_bits == "2" ? WeightFormat::kW2G32 : options.expert_bits == "8" ? WeightFormat::kW8 : FourBits(options);
}

/// What a target's fastest kernels of XNNPACK read.
ChannelLayouts LayoutsOf(const std::string &target) {
  if (target == "x86-256") return {Layout::kX8C8, Layout::kX8C8};
  if (target == "arm-dotprod") return {Layout::kX16C4, Layout::kX16C4};
  if (target == "arm-neon") return {Layout::kX8C2S4, Layout::kX16C1};
  return {};
}

RecipeOptions ToRecipe(const Options &options) {
  RecipeOptions recipe;
  if (!options.mixed.empty() && options.weights == "w8") Refuse("--mixed " + options.mixed + " needs --weights w4");
  if (!options.budget.empty() && options.mixed.empty()) Refuse("--budget " + options.budget + " needs --mixed auto");
  recipe.recipe = options.recipe == "rtn" ? Recipe::kRtn : Recipe::kFast;
  recipe.body_format = BodyFormat(options);
  recipe.head_format = options.head == "w4" ? WeightFormat::kW4G32 : WeightFormat::kW8;
  recipe.down_input = options.down_input == "s15" ? DownInput::kS15 : DownInput::kHadamard;
  recipe.channel_layouts = LayoutsOf(options.target);
  recipe.kv_bits = options.kv;
  if (options.prefix == "none") recipe.prefix_tokens = std::vector<int32_t>();
  return recipe;
}

/// What an embedding costs that no longer shares the head's integers.
std::string EmbeddingSize(const ModelConfig &config, WeightFormat head_format) {
  const WeightFormat format = FormatForDepth(head_format, config.hidden);
  const double group = GroupSize(format);
  const double bits = format == WeightFormat::kW8 ? 8 : group == 0 ? 4 : 4 + 8 / group;
  char text[32];
  std::snprintf(text, sizeof text, "%.3g MB", static_cast<double>(config.vocab * config.hidden) * bits / 8e6);
  return text;
}

RotationOptions ToRotation(const Options &options, const SourceModel &source, const RecipeOptions &recipe) {
  RotationOptions rotation;
  for (const RotationKind kind : {RotationKind::kR2, RotationKind::kR1R2}) {
    if (options.rotate == RotationName(kind)) rotation.kind = kind;
  }
  rotation.seeds = options.rotate_seeds;
  const bool turns_stream = rotation.kind == RotationKind::kR1R2;
  if (options.untie_head && !turns_stream) Refuse("--untie-head is for --rotate r1r2");
  if (rotation.kind == RotationKind::kNone) return rotation;
  const std::string option = "--rotate " + options.rotate;
  if (recipe.recipe == Recipe::kRtn) Refuse(option + " needs a recipe that calibrates: --recipe fast");
  const ModelConfig &config = source.config();
  if (const char *reason = RefusalOf(config, rotation.kind)) {
    Refuse(option + ": " + source.path() + " (family " + config.family + "): " + reason);
  }
  if (turns_stream && config.tied_head && !options.untie_head) {
    Refuse(option + " folds the final norm into the head, which is the embedding in " + source.path() +
           ": with --untie-head the file holds both and is about " + EmbeddingSize(config, recipe.head_format) + " larger");
  }
  return rotation;
}

/// "300M" in bytes; nothing when it is no size.
std::optional<uint64_t> ParseSize(const std::string &text) {
  constexpr char kUnits[] = "KMG";
  size_t digits = 0;
  uint64_t size = 0;
  for (; digits < text.size() && digits < 18 && std::isdigit(static_cast<unsigned char>(text[digits])) != 0; ++digits) {
    size = size * 10 + static_cast<uint64_t>(text[digits] - '0');
  }
  if (digits == 0 || digits + 1 < text.size()) return std::nullopt;
  if (digits == text.size()) return size;
  const char *unit = std::strchr(kUnits, std::toupper(static_cast<unsigned char>(text[digits])));
  if (unit == nullptr || *unit == 0) return std::nullopt;
  const auto shift = static_cast<int>(10 * (unit - kUnits + 1));
  if (size > UINT64_MAX >> shift) return std::nullopt;
  return size << shift;
}

/// "1.5%" as 0.015; nothing when it is no percentage.
std::optional<double> ParsePercent(const std::string &text) {
  if (text.size() < 2 || text.back() != '%') return std::nullopt;
  const std::string number = text.substr(0, text.size() - 1);
  if (number.find_first_not_of("0123456789.") != std::string::npos) return std::nullopt;
  char *end = nullptr;
  const double percent = std::strtod(number.c_str(), &end);
  if (*end != 0) return std::nullopt;
  return percent / 100;
}

/// plain_bytes: of the file without any choice.
MixedBudget BudgetOf(const Options &options, uint64_t plain_bytes) {
  MixedBudget budget;
  if (options.budget.empty()) {
    budget.file_bytes = static_cast<uint64_t>(kDefaultBudget * static_cast<double>(plain_bytes));
  } else if (const auto loss = ParsePercent(options.budget)) {
    budget.loss = *loss;
  } else if (const auto size = ParseSize(options.budget)) {
    if (*size < plain_bytes) {
      Refuse("--budget " + options.budget + ": " + std::to_string(*size) + " bytes are less than the " +
             std::to_string(plain_bytes) + " that the file takes with nothing in more bits");
    }
    budget.file_bytes = *size;
  } else {
    Refuse("--budget " + options.budget + ": a size such as 100M or a loss such as 2% is wanted");
  }
  return budget;
}

uint32_t ContextOf(const Options &options, const ModelConfig &config) {
  const int64_t context = LongestContext(config);
  if (options.context == 0) return static_cast<uint32_t>(context);
  if (options.context > context) {
    Refuse("--context " + std::to_string(options.context) + ": the model reaches " + std::to_string(context) + " tokens");
  }
  return static_cast<uint32_t>(options.context);
}

/// The instructions that this program's numeric code was compiled for: part of what decides the bytes.
const char *InstructionSet() {
#if defined(__AVX512F__)
  return "avx512";
#elif defined(__AVX2__)
  return "avx2";
#elif defined(__aarch64__)
  return "aarch64";
#else
  return "generic";
#endif
}

std::string BaseName(const std::string &path) {
  std::filesystem::path name(path);
  if (!name.has_filename()) name = name.parent_path();
  return name.filename().string();
}

std::string ModelName(const SourceModel &source) {
  if (source.tokenizer().gguf != nullptr) {
    if (const auto name = source.tokenizer().gguf->FindString("general.name")) return std::string(*name);
  }
  return std::filesystem::path(BaseName(source.path())).stem().string();
}

ModelFacts MakeFacts(const SourceModel &source, const Options &options, const RecipeOptions &recipe) {
  const ModelConfig &config = source.config();
  ModelFacts facts;
  facts.name = ModelName(source);
  facts.family = config.family;
  facts.vocab_size = static_cast<uint32_t>(config.vocab);
  facts.max_context = ContextOf(options, config);
  if (HasTokenizer(source)) {
    const std::unique_ptr<SourceTokenizer> tokenizer = OpenTokenizer(source);
    facts.tokenizer = tokenizer->segment();
    if (!tokenizer->chat_warning().empty()) std::fprintf(stderr, "acornc: note: %s\n", tokenizer->chat_warning().c_str());
  }
  if (HasMadeUpTokenizer(source)) {
    std::fprintf(stderr,
                 "acornc: note: %s: no token stands for a single byte, so no text can be read: the model file gets no tokenizer\n",
                 source.path().c_str());
  }
  std::string calibration;
  for (const std::string &file : options.calibration.files) calibration += (calibration.empty() ? "" : ", ") + BaseName(file);
  if (calibration.empty()) calibration = HasTokenizer(source) ? "built-in" : "random tokens";
  facts.provenance = {
      {"compiler", std::string("acornc 0.1, ") + InstructionSet() + ", " + __VERSION__},
      {"source", BaseName(source.path())},
      {"recipe", options.recipe},
      {"weights", FormatName(recipe.body_format)},
      {"head", FormatName(recipe.head_format)},
      {"down_input", options.down_input},
      {"target", options.target},
      {"calibration", calibration},
      {"seed", std::to_string(options.calibration.seed)},
  };
  // The default is left out: a file of it is what it was before there was a choice.
  if (options.kv != 8) facts.provenance.push_back({"kv", std::to_string(options.kv)});
  if (config.chosen_window) facts.provenance.push_back({"window", std::to_string(config.sliding_window)});
  return facts;
}

/// --mixed auto: what `recipe` becomes is in the choice. Adds a line to the facts.
MixedChoice ChooseParts(const SourceModel &source, const Options &options, const CalibrationWindows &windows,
                        const RecipeOptions &recipe, ModelFacts *facts) {
  const ModelConfig &config = source.config();
  const size_t tokenizer_bytes = facts->tokenizer.size();
  const MixedBudget budget = BudgetOf(options, FileBytes(config, FfnShapeOf(config, recipe), recipe, tokenizer_bytes));
  const Sensitivities sensitivities = MeasureSensitivities(source, windows, recipe);
  MixedChoice choice = ChooseMixed(config, recipe, sensitivities, budget, tokenizer_bytes);
  char text[200];
  std::snprintf(text, sizeof text, "%d weights in more bits, %d inputs in 15; estimated loss %.4f nats a token, plain %.4f",
                choice.raised_weights, choice.raised_inputs, choice.loss, choice.plain_loss);
  std::fprintf(stderr, "acornc: mixed: %s\n", text);
  const std::string limit = options.budget.empty() ? "" : ", budget " + options.budget;
  facts->provenance.emplace_back("mixed", options.mixed + limit + ": " + text);
  return choice;
}

/// Name of the model file before its reference run is in it, beside the output. Nobody else's: it holds the process's number.
std::string BarePath(const std::string &output) { return output + ".bare-" + std::to_string(getpid()); }

bool Trains(const Options &options) { return options.recipe == "mobilequant"; }

int64_t StepsOf(const Options &options) { return options.steps == 0 ? kDefaultSteps : options.steps; }

/// Windows of calibration text. Few steps see few of them: no need to compute the others.
int64_t WindowsOf(const Options &options) {
  if (options.calibration.windows != 0) return options.calibration.windows;
  if (!Trains(options)) return kClosedFormWindows;
  const int64_t all = std::min(kTrainingWindows, std::max(StepsOf(options), kClosedFormWindows));
  return options.own_text < 0 ? all - all / 2 : all;
}

/// given: windows of calibration text
int64_t OwnWindowsOf(const Options &options, const SourceModel &source, int64_t given) {
  if (options.own_text >= 0) return options.own_text;
  return HasTokenizer(source) && given >= kLeastForOwnText ? given : 0;
}

TrainOptions ToTraining(const Options &options) {
  TrainOptions train;
  train.steps = StepsOf(options);
  train.scratch = options.output + ".text-" + std::to_string(getpid());
  train.time_limit_minutes = options.time_limit;
  train.seed = options.calibration.seed;
  train.loss = options.loss == "hidden" ? TrainLoss::kHidden : TrainLoss::kLogits;
  train.checkpoint = options.checkpoint.empty() ? options.output + ".checkpoint" : options.checkpoint;
  return train;
}

void CheckTraining(const Options &options) {
  if (Trains(options)) return;
  if (options.steps != 0) Refuse("--steps needs --recipe mobilequant");
  if (options.time_limit != 0) Refuse("--time-limit needs --recipe mobilequant");
  if (options.own_text >= 0) Refuse("--own-text needs --recipe mobilequant");
  if (!options.checkpoint.empty()) Refuse("--checkpoint needs --recipe mobilequant");
}

/// Training looks at windows of calibration text with causal masks alone.
void CheckTrainedWindow(const SourceModel &source) {
  const int64_t window = source.config().sliding_window;
  const int64_t trained = std::min(CalibrationOptions().window, source.config().max_context);
  if (window == 0 || window >= trained) return;
  Refuse("--recipe mobilequant trains on " + std::to_string(trained) + " tokens at once, of which attention in " + source.path() +
         " sees a window of " + std::to_string(window) + ": --recipe fast knows windows");
}

double FloatPerplexity(const SourceModel &source, const std::vector<int32_t> &ids, int64_t window) {
  PerplexityOptions options;
  options.window = window;
  std::unique_ptr<Progress> progress;
  const PerplexityResult result = Perplexity(source, ids, options, [&](int64_t done, int64_t total) {
    if (!progress) progress = std::make_unique<Progress>("perplexity of the source, layers", total);
    progress->Update(done);
  });
  return result.perplexity;
}

/// Completes the rows of `result` with what holds for the whole model.
ConversionReport MakeReport(const SourceModel &source, const ModelFacts &facts, const Options &options,
                            const RecipeResult &result, const std::vector<HealedRate> &healed, int64_t window) {
  ConversionReport report = result.report;
  report.model = facts.name;
  report.file_bytes = std::filesystem::file_size(options.output);
  std::string prefix;
  for (const int32_t id : result.prefix_tokens) prefix += (prefix.empty() ? "" : ", ") + std::to_string(id);
  report.facts = {{"family", facts.family},
                  {"vocabulary", std::to_string(facts.vocab_size)},
                  {"context", std::to_string(facts.max_context) + " tokens"},
                  {"prefix", prefix.empty() ? "none" : "token " + prefix}};
  report.facts.insert(report.facts.end(), facts.provenance.begin(), facts.provenance.end());
  const size_t windows = result.scored_ids.size() / static_cast<size_t>(window);
  report.perplexity.text = std::to_string(windows) + (windows == 1 ? " window of " : " windows of ") + std::to_string(window) +
                           " calibration tokens";
  report.perplexity.source = FloatPerplexity(source, result.scored_ids, window);
  report.perplexity.simulator = result.simulated_perplexity;
  report.perplexity.device = DevicePerplexity(options.output, result.scored_ids, window);
  if (options.profiles.empty()) return report;
  for (const DeviceRate &rate : MeasureRates(options.output, result.scored_ids, window)) {
    RateReport row = {static_cast<int>(rate.rate), rate.left_out, rate.weight_bytes, rate.perplexity, rate.tokens_per_second};
    for (const HealedRate &one : healed) {
      if (one.rate != row.rate) continue;
      row.loss_before_healing = one.loss_before;
      row.loss_after_healing = one.loss_after;
    }
    report.rates.push_back(row);
  }
  return report;
}

ExpertRanking RankingOf(const Options &options) {
  if (options.expert_ranking == "loss") return ExpertRanking::kLoss;
  if (options.expert_ranking == "usage") return ExpertRanking::kUsage;
  return options.expert_ranking == "random" ? ExpertRanking::kRandom : ExpertRanking::kImportance;
}

ExpertBudget ExpertBudgetOf(const Options &options) {
  ExpertBudget budget;
  budget.loss = kDefaultExpertLoss;
  if (!options.expert_budget.empty()) {
    const auto loss = ParsePercent(options.expert_budget);
    const auto bits = loss ? std::nullopt : ParsePercent(options.expert_budget + "%");
    if (!loss && !bits) Refuse("--expert-budget " + options.expert_budget + ": bits such as 3.2 or a loss such as 2% are wanted");
    budget.loss = loss ? *loss : 0;
    budget.bits = bits ? 100 * *bits : 0;
  }
  const ExpertRanking ranking = RankingOf(options);
  if (budget.bits == 0 && (ranking == ExpertRanking::kUsage || ranking == ExpertRanking::kRandom)) {
    Refuse("--expert-ranking " + options.expert_ranking + " measures no loss: it needs --expert-budget in bits");
  }
  return budget;
}

void CheckExpertOptions(const Options &options) {
  for (const auto &[name, value] : {std::pair<const char *, const std::string &>{"--expert-budget ", options.expert_budget},
                                    {"--expert-ranking ", options.expert_ranking}}) {
    if (!value.empty() && options.expert_bits != "auto") Refuse(name + value + " needs --expert-bits auto");
  }
  if (options.expert_bits == "auto") ExpertBudgetOf(options);
}

/// --expert-bits: formats of the routed experts in the recipe, and a line in the facts.
void ChooseExperts(const SourceModel &source, const Options &options, const CalibrationWindows &windows, RecipeOptions *recipe,
                   ModelFacts *facts, std::vector<std::vector<double>> *importance) {
  if (options.expert_bits.empty()) return;
  const ModelConfig &config = source.config();
  const std::vector<WeightFormat> layer(static_cast<size_t>(config.experts), ExpertFormat(options));
  recipe->expert_formats.assign(static_cast<size_t>(config.layers), layer);
  std::string text = FormatName(ExpertFormat(options));
  if (options.expert_bits == "auto") {
    ExpertChoice choice = ChooseExpertBits(source, windows, *recipe, RankingOf(options), ExpertBudgetOf(options),
                                           options.calibration.seed);
    recipe->expert_formats = std::move(choice.formats);
    if (choice.prefix_tokens) recipe->prefix_tokens = choice.prefix_tokens;
    *importance = std::move(choice.importance);
    char line[200];
    std::snprintf(line, sizeof line, "auto: of %lld experts %lld in 2 bits, %lld in 4 (%s), %lld in 8; %.3f bits a weight",
                  static_cast<long long>(choice.experts), static_cast<long long>(choice.in_two),
                  static_cast<long long>(choice.in_four), text.c_str(),
                  static_cast<long long>(choice.experts - choice.in_two - choice.in_four), choice.bits);
    text = line;
    if (choice.loss_of_two > 0) {
      std::snprintf(line, sizeof line, "; estimated loss %.4f nats a token, %.4f with all in 4 bits, %.4f in 2", choice.loss,
                    choice.loss_of_four, choice.loss_of_two);
      text += line;
    }
    std::fprintf(stderr, "acornc: experts: %s\n", text.c_str());
  }
  facts->provenance.emplace_back("experts", text);
}

/// What layers with experts do not have yet, and what needs them.
void CheckExperts(const SourceModel &source, const Options &options) {
  const ModelConfig &config = source.config();
  if (config.experts == 0) {
    if (options.expert_bits.empty()) return;
    Refuse("--expert-bits " + options.expert_bits + ": " + source.path() + " (family " + config.family + ") has no experts");
  }
  if (Trains(options)) Refuse("--recipe mobilequant does not know layers with experts; --recipe fast does");
  if (!options.mixed.empty()) Refuse("--mixed does not know layers with experts");
}

/// The same of state-space layers.
void CheckStateSpace(const SourceModel &source, const Options &options) {
  const ModelConfig &config = source.config();
  if (!config.HasStateSpace()) return;
  if (!options.mixed.empty()) Refuse("--mixed does not know state-space layers");
  if (options.kv != 8 && !config.HasAttention()) {
    Refuse("--kv " + std::to_string(options.kv) + ": " + source.path() + " (family " + config.family + ") has no keys and values");
  }
}

/// What does not go with several rates in one file yet.
void CheckProfiles(const Options &options) {
  if (options.profiles.empty()) {
    if (options.heal.minutes != 0) Refuse("--heal needs --profiles: without them nothing is left out");
    if (!options.elastic_without.empty()) Refuse("--elastic-without needs --profiles: without them nothing is sorted");
    return;
  }
  ParseRates(options.profiles);
  const std::string option = "--profiles " + options.profiles;
  if (Trains(options)) Refuse(option + " needs --recipe fast or rtn");
  if (!options.mixed.empty()) Refuse(option + " does not go with --mixed");
  if (options.kv != 8) Refuse(option + " does not go with --kv " + std::to_string(options.kv) + ": heads of 4 bits are not cut");
}

void Run(const Options &options) {
  CheckTraining(options);
  CheckProfiles(options);
  CheckExpertOptions(options);
  if (Trains(options)) PrepareTraining("--recipe mobilequant");
  if (options.heal.minutes > 0) PrepareTraining("--heal");
  RecipeOptions recipe = ToRecipe(options);
  SetThreadCount(options.threads);
  const std::unique_ptr<SourceModel> source = OpenSourceModel(options.source, options.source_options);
  CheckDeviceLimits(source->config(), source->path());
  if (Trains(options)) CheckTrainedWindow(*source);
  CheckExperts(*source, options);
  CheckStateSpace(*source, options);
  if (!options.report.empty()) CreateReportFolder(options.report);  // not at the end of an hour's work
  const RotationOptions rotate = ToRotation(options, *source, recipe);
  ModelFacts facts = MakeFacts(*source, options, recipe);
  CalibrationOptions calibration = options.calibration;
  calibration.windows = WindowsOf(options);
  const CalibrationWindows windows = MakeCalibration(*source, calibration);
  const RotationChoice rotation = ChooseRotation(*source, windows, rotate, &recipe);
  const SourceModel &unsorted = rotation.model != nullptr ? *rotation.model : *source;
  ElasticSource elastic;
  if (!options.profiles.empty()) {
    elastic = MakeElastic(unsorted, {ParseRates(options.profiles), calibration, options.heal, options.elastic_without}, windows, &recipe);
    facts.provenance.emplace_back("profiles", elastic.summary);
  }
  const SourceModel &model = elastic.model != nullptr ? *elastic.model : unsorted;
  if (rotate.kind != RotationKind::kNone) {
    const std::string seed = rotation.model != nullptr ? "seed " + std::to_string(rotation.seed) : "left out";
    facts.provenance.emplace_back("rotate", options.rotate + ", " + seed);
  }
  std::vector<SensitivityReport> sensitivities;
  if (!options.mixed.empty()) {
    MixedChoice mixed = ChooseParts(model, options, windows, recipe, &facts);
    recipe = std::move(mixed.options);
    sensitivities = std::move(mixed.sensitivities);
  }
  std::vector<std::vector<double>> importance;
  ChooseExperts(model, options, windows, &recipe, &facts, &importance);
  const std::string bare = BarePath(options.output);
  FileSink sink(model.config(), bare, FrameOf(model.config(), recipe).writer.rates);
  TrainOptions train = ToTraining(options);
  train.own_windows = OwnWindowsOf(options, *source, static_cast<int64_t>(windows.ids.size()) / windows.window);
  RecipeResult result = Trains(options) ? MobileQuant(model, windows, recipe, train, &sink)
                                        : QuantizeModel(model, windows, recipe, &sink);
  result.report.sensitivities = std::move(sensitivities);
  for (ExpertReport &row : result.report.experts) {
    if (!importance.empty()) row.importance = importance[static_cast<size_t>(row.layer)][static_cast<size_t>(row.expert)];
  }
  try {
    sink.Finish(facts);
  } catch (...) {
    std::remove(bare.c_str());  // where only the folder could not be written, it is there
    throw;
  }
  try {
    RecordReferenceRun(bare, options.output);
  } catch (...) {
    std::fprintf(stderr, "acornc: the model without its reference run is in %s\n", bare.c_str());
    throw;
  }
  std::remove(bare.c_str());
  if (!options.report.empty()) {
    WriteReport(options.report, MakeReport(model, facts, options, result, elastic.healed, windows.window));
  }
  if (Trains(options) && result.report.training.end == TrainingEnd::kAllSteps) {
    std::remove(ToTraining(options).checkpoint.c_str());
  }
  const std::string expert_bits = options.expert_bits == "auto" ? "auto" : FormatName(ExpertFormat(options));
  const std::string experts = options.expert_bits.empty() ? "" : " experts " + expert_bits;
  std::printf("%s: %.1f MB, %s %s%s head %s, prefix of %zu tokens, perplexity of the calibration text %.4g\n",
              options.output.c_str(), static_cast<double>(std::filesystem::file_size(options.output)) / 1e6,
              options.recipe.c_str(), FormatName(recipe.body_format).c_str(), experts.c_str(),
              FormatName(recipe.head_format).c_str(), result.prefix_tokens.size(), result.simulated_perplexity);
  if (result.perplexity_with_8_bit_kv) {
    std::printf("keys and values of 4 bits: with 8 bits under the same weights that is %.4g, %.1f %% less\n",
                *result.perplexity_with_8_bit_kv, 100 * (1 - *result.perplexity_with_8_bit_kv / result.simulated_perplexity));
  }
}

}  // namespace

void AddConvertCommand(CLI::App *app) {
  CLI::App *command = app->add_subcommand("convert", "Convert a source model to a model file");
  const auto o = std::make_shared<Options>();
  command->add_option("SRC", o->source, "Hugging Face folder, GGUF file or llama2.c checkpoint")->required();
  command->add_option("-o,--output", o->output, "file to write")->required();
  command->add_option("--recipe", o->recipe, "rtn: rounding; fast: calibrated, closed form; mobilequant: trained from there")
      ->check(CLI::IsMember({"rtn", "fast", "mobilequant"}))
      ->capture_default_str();
  command->add_option("--weights", o->weights, "bits of the weights")
      ->check(CLI::IsMember({"w4", "w8"}))
      ->capture_default_str();
  command->add_option("--group", o->group, "weights of a channel that share a 4-bit scale (default 32)")
      ->check(CLI::IsMember({"channel", "32", "64", "128"}));
  command->add_option("--expert-bits", o->expert_bits, "bits of the routed experts (default: as --weights)")
      ->check(CLI::IsMember({"2", "4", "8", "auto"}));
  command->add_option("--expert-budget", o->expert_budget,
                      "of --expert-bits auto: average bits (3.2), or loss of perplexity over 8 bits (2%, the default)");
  command->add_option("--expert-ranking", o->expert_ranking,
                      "of --expert-bits auto: a trial for each expert (importance, the default) or each layer (loss); usage and "
                      "random are there to compare with")
      ->check(CLI::IsMember({"importance", "loss", "usage", "random"}));
  command->add_option("--head", o->head, "w8, or w4 in groups of 32")
      ->check(CLI::IsMember({"w8", "w4"}))
      ->capture_default_str();
  command->add_option("--calibration", o->calibration.files, "UTF-8 text, may be repeated (default: a built-in text)")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false);
  command->add_option("--calibration-windows", o->calibration.windows,
                      "windows of 512 tokens to use (default 128, 512 for training)")
      ->check(CLI::Range(1, 65536));
  command->add_option("--tokenizer", o->source_options.tokenizer_path, "tokenizer of a llama2.c checkpoint");
  command->add_option("--target", o->target, "layout of per-channel weights")
      ->check(CLI::IsMember({"universal", "x86-256", "arm-dotprod", "arm-neon"}))
      ->capture_default_str();
  command->add_option("--down-input", o->down_input, "input of the down projection: 8 bits after a Hadamard transform, or 15")
      ->check(CLI::IsMember({"hadamard", "s15"}))
      ->capture_default_str();
  command->add_option("--kv", o->kv, "bits of a session's keys and values; 4: half the memory")
      ->check(CLI::IsMember({8, 4}))
      ->capture_default_str();
  CLI::Option *rotate =
      command->add_option("--rotate", o->rotate, "rotations merged into the weights: of the values (r2), and the stream (r1r2)")
          ->check(CLI::IsMember({"none", "r2", "r1r2"}))
          ->capture_default_str();
  command->add_option("--rotate-seeds", o->rotate_seeds, "rotations to choose from; 1: that one, without a trial")
      ->check(CLI::Range(1, 64))
      ->needs(rotate)
      ->capture_default_str();
  command->add_flag("--untie-head", o->untie_head, "let --rotate r1r2 write a head that is the embedding as a second matrix")
      ->needs(rotate);
  command->add_option("--mixed", o->mixed, "auto: more bits for the parts of the model that gain most from them")
      ->check(CLI::IsMember({"auto"}));
  command->add_option("--budget", o->budget,
                      "of --mixed: size of the whole file (100M), or loss of perplexity over 8-bit weights (2%); "
                      "default: 1.05 times the plain file");
  command->add_option("--profiles", o->profiles,
                      "pruning rates in percent that a device can choose from, such as 0,15,25,35 (default: 0 alone)");
  command->add_option("--elastic-without", o->elastic_without,
                      "with --profiles, to see what it is worth: sort, svd, rates, shares, segments")
      ->delimiter(',')
      ->check(CLI::IsMember({"sort", "svd", "rates", "shares", "segments"}));
  command->add_option("--context", o->context, "tokens that a session may hold (default: the model's)")
      ->check(CLI::PositiveNumber);
  command->add_option("--window", o->source_options.window,
                      "attention sees the constant prefix and so many of the newest tokens, in every layer: sessions have no end")
      ->check(CLI::Range(1, 65535));
  command->add_option("--prefix", o->prefix, "constant prefix of each session: auto, searched on the calibration text, or none")
      ->check(CLI::IsMember({"auto", "none"}))
      ->capture_default_str();
  command->add_option("--seed", o->calibration.seed, "choice of calibration windows; 0: the first ones")->capture_default_str();
  command->add_option("--report", o->report, "folder for a page about the conversion and the errors of each layer as CSV");
  command->add_option("--steps", o->steps, "windows to train on (default 1500)")->check(CLI::Range(1, 100000000));
  command->add_option("--own-text", o->own_text,
                      "windows of text that the model writes itself, to be trained on beside the calibration text (default: as many)")
      ->check(CLI::Range(0, 65536));
  command->add_option("--time-limit", o->time_limit, "minutes after which training stops with the best so far")
      ->check(CLI::Range(0.01, 1e6));
  command->add_option("--loss", o->loss, "what training lowers: divergence of the logits, or error of the last hidden states")
      ->check(CLI::IsMember({"logits", "hidden"}))
      ->capture_default_str();
  command->add_option("--checkpoint", o->checkpoint, "file that training goes on from (default: OUT.checkpoint)");
  CLI::Option *heal =
      command->add_option("--heal", o->heal.minutes, "of --profiles: minutes of training that makes up for what is dropped")
          ->check(CLI::Range(0.01, 1e6));
  command->add_option("--heal-steps", o->heal.steps, "end it after so many steps, for the same result on the same machine again")
      ->check(CLI::Range(1, 100000000))
      ->needs(heal);
  command->add_option("--threads", o->threads, "threads (default: all cores)")->check(CLI::Range(1, 1024));
  command->callback([o] { Run(*o); });
}

}  // namespace acorn::compiler
