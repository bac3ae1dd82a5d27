// Progress: one line on stderr for each step that takes longer than the blink of an eye, with time gone and time left.
// Rewrites its line on a terminal; elsewhere prints a line every few seconds. Never touches stdout.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace acorn::compiler {

class Progress {
 public:
  /// `total` is in any unit that grows evenly with time: layers, windows, tokens.
  Progress(std::string what, int64_t total);
  ~Progress();
  Progress(const Progress &) = delete;
  Progress &operator=(const Progress &) = delete;

  /// `done` of `total`; `note` is appended ("perplexity 28.7").
  void Update(int64_t done, const std::string &note = {});
  /// Prints the final line: what, note, time taken. Called by the destructor when nobody did, unless unwinding.
  void Finish(const std::string &note = {});

  /// No progress line is printed from now on, by any object.
  static void Silence();

 private:
  using Clock = std::chrono::steady_clock;
  void Print(const std::string &text, bool last);

  std::string what_;
  int64_t total_;
  int64_t done_ = 0;
  Clock::time_point start_;
  Clock::time_point printed_;
  size_t width_ = 0;
  bool terminal_ = false;
  bool finished_ = false;
};

/// "1:23" or "2.4 s".
std::string FormatSeconds(double seconds);

}  // namespace acorn::compiler
