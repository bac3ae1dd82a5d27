#include "commands/elastic.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>

#include "base/error.h"
#include "model/graph.h"
#include "passes/elastic.h"
#include "passes/layer_rates.h"
#include "quantize/grid.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kImportanceWindows = 128;  // that the order of channels is found on

[[noreturn]] void Refuse(const std::string &message) { throw Error(ExitCode::kUsage, "convert: " + message); }

}  // namespace

std::vector<int> ParseRates(const std::string &text) {
  std::vector<int> rates;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    const bool digits = !part.empty() && part.size() <= 2 && std::all_of(part.begin(), part.end(), [](unsigned char c) {
      return std::isdigit(c) != 0;
    });
    const int rate = digits ? std::atoi(part.c_str()) : -1;
    if (rate < 0 || rate > kHighestElasticRate) {
      Refuse("--profiles " + text + ": rates from 0 to " + std::to_string(kHighestElasticRate) + " are wanted, such as 0,15,25");
    }
    rates.push_back(rate);
    begin = end + 1;
  }
  std::sort(rates.begin(), rates.end());
  rates.erase(std::unique(rates.begin(), rates.end()), rates.end());
  if (rates.front() == 0) rates.erase(rates.begin());
  if (rates.empty()) Refuse("--profiles " + text + ": a rate beyond 0 is wanted, which every file has");
  if (rates.size() >= kMaxProfiles) {
    Refuse("--profiles " + text + ": at most " + std::to_string(kMaxProfiles - 1) + " rates beyond 0 are wanted");
  }
  return rates;
}

void LeaveOut(const std::vector<std::string> &parts, ElasticOptions *options) {
  for (const std::string &part : parts) {
    if (part == "sort") options->parts.sort = false;
    if (part == "svd") options->parts.svd = false;
    if (part == "rates") options->layer_rates = false;
    if (part == "shares") options->mixer_shares = false;
  }
}

ElasticSource MakeElastic(const SourceModel &source, const ElasticRequest &request, const CalibrationWindows &windows,
                         RecipeOptions *recipe) {
  std::vector<int> rates = request.rates;
  rates.insert(rates.begin(), 0);
  const bool heals = request.heal.minutes > 0;
  if (heals) CheckHealing(source, rates);
  const int64_t used = std::min<int64_t>(windows.ids.size(), kImportanceWindows * windows.window);
  const std::vector<int32_t> ids(windows.ids.begin(), windows.ids.begin() + used);
  ElasticOptions options;
  options.rates = rates;
  options.least_block = std::max<int64_t>(GroupSize(recipe->body_format), 32);
  LeaveOut(request.without, &options);
  recipe->separate_rates = std::count(request.without.begin(), request.without.end(), "segments") == 0;
  ElasticPlan plan = PlanElastic(source, ids, windows.window, options);
  recipe->profiles.assign(plan.profiles.begin() + 1, plan.profiles.end());
  recipe->most_block = plan.block;
  ElasticSource elastic;
  for (const RateProfile &profile : recipe->profiles) {
    const double realised = RealisedRate(source.config(), plan.steps, profile);
    if (realised <= 0) {
      Refuse("--profiles: " + source.path() + " (family " + source.config().family + ") has nothing that rate " +
             std::to_string(profile.rate) + " could leave out");
    }
    char text[64];
    std::snprintf(text, sizeof text, "%s%d (%.1f %% left out)", elastic.summary.empty() ? "" : ", ", profile.rate, 100 * realised);
    elastic.summary += text;
  }
  elastic.sorted = std::make_unique<SortedModel>(source, std::move(plan.layers));
  std::vector<LowRankAddition> additions;
  if (heals) {
    HealResult healed = HealOnTexts(*elastic.sorted, plan.profiles, request.calibration, request.heal);
    additions = std::move(healed.additions);
    if (!additions.empty()) elastic.healed = std::move(healed.rates);
    char text[64];
    std::snprintf(text, sizeof text, "; healed for %.3g minutes", request.heal.minutes);
    elastic.summary += additions.empty() ? "; healing made nothing better" : text;
  }
  elastic.model = std::make_unique<HealedModel>(*elastic.sorted, std::move(additions));
  return elastic;
}

}  // namespace acorn::compiler
