#include "base/progress.h"

#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdio>
#include <exception>

namespace acorn::compiler {
namespace {

std::atomic<bool> g_silent{false};

constexpr double kTerminalInterval = 0.2;  // seconds between two updates of the line
constexpr double kPlainInterval = 10.0;    // seconds between two lines in a log

}  // namespace

std::string FormatSeconds(double seconds) {
  char text[32];
  if (seconds < 60) {
    std::snprintf(text, sizeof text, "%.1f s", seconds);
  } else {
    const long whole = std::lround(seconds);
    std::snprintf(text, sizeof text, "%ld:%02ld", whole / 60, whole % 60);
  }
  return text;
}

Progress::Progress(std::string what, int64_t total)
    : what_(std::move(what)), total_(total), start_(Clock::now()), printed_(start_), terminal_(isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (!finished_ && std::uncaught_exceptions() == 0) Finish();
  if (!finished_ && width_ > 0) std::fputc('\n', stderr);
}

void Progress::Update(int64_t done, const std::string &note) {
  done_ = done;
  const Clock::time_point now = Clock::now();
  const double since = std::chrono::duration<double>(now - printed_).count();
  if (since < (terminal_ ? kTerminalInterval : kPlainInterval)) return;
  printed_ = now;
  const double gone = std::chrono::duration<double>(now - start_).count();
  std::string text = what_ + ": " + std::to_string(done) + "/" + std::to_string(total_);
  if (!note.empty()) text += ", " + note;
  text += ", " + FormatSeconds(gone);
  if (done > 0 && done < total_) {
    text += ", " + FormatSeconds(gone * static_cast<double>(total_ - done) / static_cast<double>(done)) + " left";
  }
  Print(text, false);
}

void Progress::Finish(const std::string &note) {
  if (finished_) return;
  finished_ = true;
  std::string text = what_ + ": ";
  if (!note.empty()) text += note + ", ";
  text += FormatSeconds(std::chrono::duration<double>(Clock::now() - start_).count());
  Print(text, true);
}

void Progress::Silence() { g_silent.store(true); }

void Progress::Print(const std::string &text, bool last) {
  if (g_silent.load()) return;
  if (!terminal_) {
    std::fprintf(stderr, "%s\n", text.c_str());
    return;
  }
  std::string line = text;
  if (line.size() < width_) line.resize(width_, ' ');
  width_ = text.size();
  std::fprintf(stderr, "\r%s%s", line.c_str(), last ? "\n" : "");
  std::fflush(stderr);
}

}  // namespace acorn::compiler
