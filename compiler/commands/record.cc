// acornc record: puts a reference run into a model file that is there already. convert does the same as its last step.
#include <memory>
#include <string>

#include "base/parallel.h"
#include "commands/commands.h"
#include "write/reference_run.h"

namespace acorn::compiler {

void AddRecordCommand(CLI::App *app) {
  struct Options {
    std::string file;
    std::string output;
    int threads = 0;
  };
  CLI::App *command = app->add_subcommand("record", "Put a new reference run into a model file, for acorn selftest");
  const auto options = std::make_shared<Options>();
  command->add_option("FILE", options->file, "model file")->required();
  command->add_option("-o,--output", options->output, "file to write; FILE itself is legal")->required();
  command->add_option("--threads", options->threads, "threads (default: all cores)")->check(CLI::Range(1, 1024));
  command->callback([options] {
    SetThreadCount(options->threads);
    RecordReferenceRun(options->file, options->output);
  });
}

}  // namespace acorn::compiler
