// acorn chat: a conversation in the model's chat template. Lines come from the standard input, answers go to the standard
// output; Ctrl-C ends an answer, the end of the input ends the conversation.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "commands.h"
#include "error.h"
#include "sampling.h"
#include "statistics.h"

namespace acorn::program {
namespace {

acorn_session *volatile interruptible = nullptr;  // read by the signal handler; set while an answer is being made

// Ends the answer; with none in the making, the program, as if there were no handler.
void OnInterrupt(int number) {
  if (interruptible != nullptr) {
    acorn_session_cancel(interruptible);
  } else {
    std::signal(number, SIG_DFL);
    std::raise(number);
  }
}

bool ReadLine(std::string *line) {
  line->clear();
  for (int c; (c = std::fgetc(stdin)) != EOF;) {
    if (c == '\n') return true;
    *line += static_cast<char>(c);
  }
  return !line->empty();
}

// One turn. Returns false if there was no room for it.
bool Answer(Device *device, const SamplingOptions &sampling, const std::string &line) {
  acorn_session *session = device->session();
  const acorn_status status = acorn_session_append_text(session, line.data(), line.size(), ACORN_TEXT_CHAT);
  if (status == ACORN_ERR_CONTEXT_FULL) return false;
  if (status == ACORN_ERR_CANCELLED) return true;
  Check(status, "reading the line");
  const Generated generated = Generate(device, sampling, nullptr, [](const char *text, size_t bytes) {
    std::fwrite(text, 1, bytes, stdout);
    std::fflush(stdout);
  });
  std::fputc('\n', stdout);
  std::fflush(stdout);
  return generated.cancelled || generated.reason != ACORN_STOP_CONTEXT;
}

// "/rate N": the conversation goes on at another rate; at a lower one it is computed anew.
void ChangeRate(Device *device, const std::string &number) {
  char *end = nullptr;
  const unsigned long rate = std::strtoul(number.c_str(), &end, 10);
  if (number.empty() || *end != 0 || number[0] == '-' || rate > 99) {
    std::fprintf(stderr, "/rate PERCENT is wanted, such as /rate 25\n");
    return;
  }
  try {
    if (!device->SetRate(static_cast<uint32_t>(rate))) {
      std::fprintf(stderr, "stopped after %zu tokens of the conversation\n", acorn_session_position(device->session()));
    }
  } catch (const Failure &failure) {
    std::fprintf(stderr, "%s\n", failure.message.c_str());
  }
}

}  // namespace

void Chat(int argc, char **argv) {
  DeviceOptions options;
  SamplingOptions sampling;
  Arguments arguments("chat FILE [OPTIONS]",
                      "A conversation, line by line. /reset starts anew, /rate PERCENT changes the rate, /quit ends.");
  AddSamplingOptions(&arguments, &sampling);
  AddDeviceOptions(&arguments, &options);
  if (!arguments.Parse(argc, argv)) return;
  Device device(options);
  device.Open();
  device.RequireText(ACORN_TEXT_CHAT);

  struct sigaction action = {};
  action.sa_handler = OnInterrupt;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  const bool terminal = isatty(STDIN_FILENO) != 0;
  std::string line;
  for (;;) {
    if (terminal) std::fputs("> ", stderr);
    if (!ReadLine(&line) || line == "/quit") break;
    if (line.empty()) continue;
    if (line == "/reset") {
      acorn_session_reset(device.session());
      continue;
    }
    interruptible = device.session();
    if (line.compare(0, 6, "/rate ") == 0 || line == "/rate") {
      ChangeRate(&device, line.substr(line.size() < 6 ? line.size() : 6));
      interruptible = nullptr;
      continue;
    }
    const bool room = Answer(&device, sampling, line);
    interruptible = nullptr;
    if (!room) {
      std::fprintf(stderr, "the context is full (%zu of %zu tokens): /reset starts a new conversation\n",
                   acorn_session_position(device.session()), acorn_session_capacity(device.session()));
    }
  }
  if (terminal) std::fputc('\n', stderr);
}

}  // namespace acorn::program
