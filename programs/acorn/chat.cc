// acorn chat: a conversation in the model's chat template. Lines come from the standard input, answers go to the standard
// output; Ctrl-C ends an answer, the end of the input ends the conversation.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "commands.h"
#include "error.h"
#include "sampling.h"
#include "snapshot_file.h"
#include "statistics.h"

namespace acorn::program {
namespace {

acorn_session *volatile interruptible = nullptr;  // read by the signal handler; set while an answer is being made
volatile std::sig_atomic_t interrupted = 0;        // by the handler, since the last line was read

// Ends the answer; with none in the making, the program, as if there were no handler.
void OnInterrupt(int number) {
  if (interruptible != nullptr) {
    interrupted = 1;
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
  const uint64_t begin = acorn_session_position(session);
  StartTime(device, sampling);
  const auto read = [&] { return acorn_session_append_text(session, line.data(), line.size(), ACORN_TEXT_CHAT); };
  acorn_status status = read();
  // Meant for the answer before, which had no step left to hear it.
  if (status == ACORN_ERR_CANCELLED && interrupted == 0) status = read();
  if (status == ACORN_ERR_CONTEXT_FULL) return false;
  if (status == ACORN_ERR_CANCELLED || status == ACORN_ERR_DEADLINE) {
    const acorn_status back = acorn_session_rewind(session, begin);
    const bool half = back == ACORN_ERR_REFILL;  // what it has pushed out of the window does not come back
    if (!half) device->Check(back, "taking half a line back");
    if (status == ACORN_ERR_DEADLINE) {
      TellTimeIsOver(sampling, half ? "the line was read: half of it is part of the conversation"
                                    : "the line was read: it is not part of the conversation");
    } else if (half) {
      std::fprintf(stderr, "stopped: half the line is part of the conversation\n");
    }
    return true;
  }
  device->Check(status, "reading the line");
  const Generated generated = Generate(device, sampling, nullptr, [](const char *text, size_t bytes) {
    std::fwrite(text, 1, bytes, stdout);
    std::fflush(stdout);
  });
  std::fputc('\n', stdout);
  std::fflush(stdout);
  if (generated.stopped == ACORN_ERR_DEADLINE) TellTimeIsOver(sampling, "the answer was");
  return generated.stopped != ACORN_OK || generated.reason != ACORN_STOP_CONTEXT;
}

// A command that may fail and leave the conversation as it was.
template <typename Command>
void Try(const Command &command) {
  try {
    command();
  } catch (const Failure &failure) {
    std::fprintf(stderr, "%s\n", failure.message.c_str());
  }
}

// What stands behind a command and a space; a command alone has nothing there. False: another command.
bool IsCommand(const std::string &line, const std::string &name, std::string *rest) {
  if (line != name && line.compare(0, name.size() + 1, name + " ") != 0) return false;
  *rest = line == name ? "" : line.substr(name.size() + 1);
  return true;
}

// "/save FILE" and "/load FILE".
template <typename Command>
void WithFile(const char *name, const std::string &path, const Command &command) {
  if (path.empty()) {
    std::fprintf(stderr, "%s FILE is wanted\n", name);
  } else {
    Try([&] { command(path); });
  }
}

// "/rate N": the conversation goes on at another rate; at a lower one it is computed anew.
void ChangeRate(Device *device, const std::string &number) {
  char *end = nullptr;
  const unsigned long rate = std::strtoul(number.c_str(), &end, 10);
  if (number.empty() || *end != 0 || number[0] == '-' || rate > 99) {
    std::fprintf(stderr, "/rate PERCENT is wanted, such as /rate 25\n");
    return;
  }
  Try([&] {
    if (!device->SetRate(static_cast<uint32_t>(rate))) {
      std::fprintf(stderr, "stopped after %llu tokens of the conversation\n",
                   static_cast<unsigned long long>(acorn_session_position(device->session())));
    }
  });
}

}  // namespace

void Chat(int argc, char **argv) {
  DeviceOptions options;
  SamplingOptions sampling;
  std::string load, save;
  Arguments arguments("chat FILE [OPTIONS]",
                      "A conversation, line by line. /reset starts anew, /rate PERCENT changes the rate, /save FILE and /load FILE "
                      "keep and bring back a conversation, /quit ends.");
  arguments.Text("--load", &load, "go on with a saved conversation, at its rate unless --rate names another");
  arguments.Text("--save", &save, "save the conversation when it ends");
  AddSamplingOptions(&arguments, &sampling);
  AddLookupOption(&arguments, &sampling);
  AddTimeLimit(&arguments, &sampling);
  AddDeviceOptions(&arguments, &options);
  if (!arguments.Parse(argc, argv)) return;
  CheckSampling(sampling);
  if (!save.empty()) CheckCanSave(save);
  Device device(options, WithLookup({}, sampling));
  CheckLookup(device, sampling);
  device.Open();
  device.RequireText(ACORN_TEXT_CHAT);
  if (!load.empty()) LoadSession(&device, load);

  struct sigaction action = {};
  action.sa_handler = OnInterrupt;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  const bool terminal = isatty(STDIN_FILENO) != 0;
  std::string line, rest;
  for (;;) {
    if (terminal) std::fputs("> ", stderr);
    if (!ReadLine(&line) || line == "/quit") break;
    if (line.empty()) continue;
    if (line == "/reset") {
      acorn_session_reset(device.session());
      continue;
    }
    if (IsCommand(line, "/save", &rest)) {
      WithFile("/save", rest, [&](const std::string &path) { SaveSession(device, path); });
      continue;
    }
    if (IsCommand(line, "/load", &rest)) {
      WithFile("/load", rest, [&](const std::string &path) { LoadSession(&device, path); });
      continue;
    }
    interrupted = 0;
    interruptible = device.session();
    if (IsCommand(line, "/rate", &rest)) {
      ChangeRate(&device, rest);
      interruptible = nullptr;
      continue;
    }
    const bool room = Answer(&device, sampling, line);
    interruptible = nullptr;
    Check(acorn_session_set_deadline(device.session(), ACORN_NO_DEADLINE), "ending the time limit");
    if (!room && device.plan().endless != 0) {
      std::fprintf(stderr, "the line has more than %u tokens, which is what can be read at once\n", device.plan().context_tokens);
    } else if (!room) {
      std::fprintf(stderr, "the context is full (%llu of %u tokens): /reset starts a new conversation\n",
                   static_cast<unsigned long long>(acorn_session_position(device.session())), device.plan().context_tokens);
    }
  }
  if (terminal) std::fputc('\n', stderr);
  const std::string lookup = DescribeLookup(device, sampling);
  if (!lookup.empty()) std::fprintf(stderr, "lookup: %s\n", lookup.c_str());
  if (!save.empty()) SaveSession(device, save);
}

}  // namespace acorn::program
