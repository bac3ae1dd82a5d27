#include "write/opened_model.h"

#include <algorithm>

#include "base/error.h"
#include "base/parallel.h"

namespace acorn::compiler {
namespace {

constexpr int kMostThreads = 16;  // a decode step has loops of microseconds; the library takes at most 256
constexpr size_t kBlockAlignment = 64;

}  // namespace

OpenedModel::OpenedModel(const MappedFile &file, acorn_options options, int threads)
    : path_(file.path()),
      posix_(acorn_posix_create(static_cast<uint32_t>(threads != 0 ? threads : std::min(ThreadCount(), kMostThreads))),
             acorn_posix_destroy) {
  if (posix_ == nullptr) throw Error(ExitCode::kMemory, "no threads to be had");
  acorn_port port;
  acorn_posix_port(posix_.get(), &port, 0);
  port.log = nullptr;
  static const uint64_t kNothing alignas(64) = 0;  // an empty file is no model, which is for the library to say
  const acorn_image image = {file.size() == 0 ? static_cast<const void *>(&kNothing) : file.data(), file.size()};
  options.struct_size = sizeof options;
  acorn_fault fault = {};
  acorn_memory_plan plan = {};
  // Twice: the model says how long its context is, and a caller may need less of it.
  const uint32_t wanted_tokens = options.context_tokens;
  options.context_tokens = 0;
  Check(acorn_plan(&plan, &fault, &image, &options, &port), fault);
  options.context_tokens = std::min(plan.context_tokens, wanted_tokens);
  Check(acorn_plan(&plan, &fault, &image, &options, &port), fault);
  context_tokens_ = plan.context_tokens;
  block_.resize(plan.block_bytes + kBlockAlignment);
  void *block = block_.data();
  size_t room = block_.size();
  std::align(kBlockAlignment, plan.block_bytes, block, room);
  Check(acorn_model_open(&model_, &fault, &image, &options, &port, block, plan.block_bytes), fault);
  Check(acorn_session_open(&session_, model_), fault);
}

void OpenedModel::Check(acorn_status status, const acorn_fault &fault) const {
  if (status == ACORN_OK) return;
  std::string message = path_ + ": " + acorn_status_text(status);
  if (fault.section != nullptr && fault.section[0] != 0) {
    message += std::string(" (section ") + fault.section + ", index " + std::to_string(fault.index) + ", offset " +
               std::to_string(fault.offset) + ")";
  }
  throw Error(ExitCode::kBadModel, message);
}

}  // namespace acorn::compiler
