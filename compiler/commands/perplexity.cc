// acornc perplexity: the float reference of a source model on a text.
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/parallel.h"
#include "base/progress.h"
#include "commands/commands.h"
#include "graph/float_model.h"
#include "import/source_model.h"
#include "text/source_tokenizer.h"

namespace acorn::compiler {
namespace {

struct Options {
  std::string source;
  std::string text;
  SourceOptions source_options;
  PerplexityOptions perplexity;
  int threads = 0;
  bool json = false;
};

std::vector<int32_t> TokenizeFile(const SourceModel &source, const std::string &path) {
  const std::unique_ptr<SourceTokenizer> tokenizer = OpenTokenizer(source);
  const MappedFile file(path);
  Progress progress("tokenize " + path, 1);
  std::vector<int32_t> ids = tokenizer->Encode(file.text());
  progress.Finish(std::to_string(ids.size()) + " tokens");
  return ids;
}

void Print(const Options &options, const PerplexityResult &result) {
  if (!options.json) {
    std::printf("perplexity %.4f over %lld tokens (%lld windows of %lld, scored from %lld)\n", result.perplexity,
                static_cast<long long>(result.scored_tokens), static_cast<long long>(result.windows),
                static_cast<long long>(options.perplexity.window), static_cast<long long>(options.perplexity.score_from));
    return;
  }
  const nlohmann::ordered_json out = {
      {"perplexity", result.perplexity},
      {"tokens", result.scored_tokens},
      {"windows", result.windows},
      {"window", options.perplexity.window},
      {"score_from", options.perplexity.score_from},
      {"mean_loss", result.mean_loss},
      {"threads", ThreadCount()},
  };
  std::printf("%s\n", out.dump().c_str());
}

void Run(const Options &options) {
  SetThreadCount(options.threads);
  const std::unique_ptr<SourceModel> source = OpenSourceModel(options.source, options.source_options);
  const int64_t longest = source->config().max_context;
  if (options.perplexity.window > longest) {
    std::fprintf(stderr, "acornc: note: windows of %lld tokens, the model was trained for %lld\n",
                 static_cast<long long>(options.perplexity.window), static_cast<long long>(longest));
  }
  const std::vector<int32_t> ids = TokenizeFile(*source, options.text);
  std::unique_ptr<Progress> progress;
  const PerplexityResult result = Perplexity(*source, ids, options.perplexity, [&](int64_t done, int64_t total) {
    if (!progress) progress = std::make_unique<Progress>("perplexity, layers", total);
    progress->Update(done);
  });
  if (progress) progress->Finish();
  Print(options, result);
}

}  // namespace

void AddPerplexityCommand(CLI::App *app) {
  CLI::App *command = app->add_subcommand("perplexity", "Float perplexity of a source model on a text");
  const auto options = std::make_shared<Options>();
  command->add_option("SRC", options->source, "Hugging Face folder, GGUF file or llama2.c checkpoint")->required();
  command->add_option("--text", options->text, "UTF-8 text file")->required();
  command->add_option("--tokenizer", options->source_options.tokenizer_path, "tokenizer of a llama2.c checkpoint");
  command->add_option("--window", options->perplexity.window, "tokens of a window")->capture_default_str();
  command->add_option("--score-from", options->perplexity.score_from, "first position that is scored")->capture_default_str();
  command->add_option("--windows", options->perplexity.max_windows, "score at most so many windows")
      ->check(CLI::PositiveNumber);
  command->add_option("--threads", options->threads, "threads (default: all cores)")->check(CLI::Range(1, 1024));
  command->add_flag("--json", options->json, "print one JSON object");
  command->callback([options] { Run(*options); });
}

}  // namespace acorn::compiler
