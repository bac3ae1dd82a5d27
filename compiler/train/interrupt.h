// Interrupt: Ctrl-C ends a long computation in order instead of at once.
#pragma once

namespace acorn::compiler {

/// While it lives, the first SIGINT or SIGTERM only makes asked() true; a second one does what it always does.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt &) = delete;
  Interrupt &operator=(const Interrupt &) = delete;
  bool asked() const;
};

}  // namespace acorn::compiler
