#include "error.h"

#include <cinttypes>
#include <cstdarg>
#include <cstdio>

namespace acorn::program {

ExitCode CodeOf(acorn_status status) {
  if (status == ACORN_ERR_MEMORY) return ExitCode::kMemory;
  if (status >> 4 == 4) return ExitCode::kIo;
  return status >> 4 == 2 ? ExitCode::kModel : ExitCode::kUsage;
}

void Fail(ExitCode code, const char *format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  // NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): it was started a line before
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  throw Failure{code, text};
}

void Check(acorn_status status, const char *what) {
  if (status != ACORN_OK) Fail(CodeOf(status), "%s: %s", what, acorn_status_text(status));
}

void FailModel(const char *path, const acorn_fault &fault) {
  const char *text = acorn_status_text(fault.status);
  if (fault.section == nullptr || fault.section[0] == 0) Fail(CodeOf(fault.status), "%s: %s", path, text);
  Fail(CodeOf(fault.status), "%s: %s (section %s, index %" PRIu64 ", offset %" PRIu64 ")", path, text, fault.section,
       fault.index, fault.offset);
}

}  // namespace acorn::program
