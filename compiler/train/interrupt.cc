#include "train/interrupt.h"

#include <csignal>

namespace acorn::compiler {
namespace {

volatile std::sig_atomic_t g_asked = 0;
struct sigaction g_before_int, g_before_term;

}  // namespace

Interrupt::Interrupt() {
  g_asked = 0;
  struct sigaction action = {};
  action.sa_handler = [](int) { g_asked = 1; };
  action.sa_flags = static_cast<int>(SA_RESETHAND);  // the second signal finds the default
  sigaction(SIGINT, &action, &g_before_int);
  sigaction(SIGTERM, &action, &g_before_term);
}

Interrupt::~Interrupt() {
  sigaction(SIGINT, &g_before_int, nullptr);
  sigaction(SIGTERM, &g_before_term, nullptr);
}

bool Interrupt::asked() const { return g_asked != 0; }

}  // namespace acorn::compiler
