// Whatever happens to a program that writes a file, the file under its name is the old one or the new one, whole; and where the
// program can speak, it says what failed and leaves nothing behind.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "tests/faults/system_calls.h"
#include "tests/support/temp_folder.h"

namespace acorn::test {
namespace {

using Words = std::vector<std::string>;
using Kind = CallFault::Kind;

constexpr int kExitIo = 5;

class PowerCut : public testing::Test {
 protected:
  /// `command`: with the word TARGET for the file that it writes.
  void Sweep(const Words &command) {
    words_ = command;
    for (std::string &word : words_) {
      if (word == "TARGET") word = target();
    }
    TracedOutcome undisturbed;
    if (!RunTraced(words_, {}, &undisturbed)) GTEST_SKIP() << "nothing can be traced here";
    ASSERT_EQ(undisturbed.code, 0) << undisturbed.err;
    new_ = ReadFile(target());
    ASSERT_NE(new_, "");
    ASSERT_EQ(Files(), 1u);
    const std::vector<std::string> &calls = undisturbed.calls;
    for (const char *call : {"open", "write", "fsync", "close", "rename"}) {
      EXPECT_NE(std::count(calls.begin(), calls.end(), call), 0) << call;
    }
    for (size_t i = 0; i < calls.size(); ++i) {
      const bool write = calls[i] == "write";
      const bool inner = write && calls[i - 1] == "write" && i + 1 < calls.size() && calls[i + 1] == "write";
      if (inner) continue;  // of writes in a row the first and the last: each program start takes its time
      ExpectError(i + 1, calls[i], ENOSPC);
      if (!write) ExpectError(i + 1, calls[i], EIO);
      if (write) ExpectShort(i + 1);
      ExpectInterrupted(i + 1);
      // Last: what it leaves in the folder the next run must not stumble over.
      ExpectCut(i + 1, calls[i], true);
      if (!write) ExpectCut(i + 1, calls[i], false);
    }
  }

 private:
  std::string target() const { return folder_.File("target"); }
  size_t Files() const {
    size_t count = 0;
    for (const auto &entry : std::filesystem::directory_iterator(folder_.path())) count += entry.exists();
    return count;
  }
  TracedOutcome RunWith(Kind kind, uint64_t number, int error = 0) const {
    TracedOutcome outcome;
    EXPECT_TRUE(RunTraced(words_, {kind, number, error}, &outcome));
    return outcome;
  }
  void PutOld() const { folder_.Write("target", kOld); }
  void ExpectWhole(const std::string &where, bool was_there) const {
    if (!was_there && !std::filesystem::exists(target())) return;
    const std::string found = ReadFile(target());
    EXPECT_TRUE(found == new_ || (was_there && found == kOld)) << where << ": " << found.size() << " bytes";
  }
  void ExpectClean(const std::string &where) const { EXPECT_EQ(Files(), 1u) << where << ": something is left behind"; }

  void ExpectCut(uint64_t number, const std::string &call, bool was_there) const {
    const std::string where = "power cut at " + call + " " + std::to_string(number);
    if (was_there) {
      PutOld();
    } else {
      std::filesystem::remove(target());
    }
    EXPECT_EQ(RunWith(Kind::kPowerCut, number).code, -1) << where;
    ExpectWhole(where, was_there);
    const TracedOutcome next = RunWith(Kind::kNone, 0);
    EXPECT_EQ(next.code, 0) << where << ": " << next.err;
    EXPECT_EQ(ReadFile(target()), new_) << where;
    for (const auto &entry : std::filesystem::directory_iterator(folder_.path())) {
      if (entry.path() != target()) std::filesystem::remove(entry.path());
    }
  }
  void ExpectError(uint64_t number, const std::string &call, int error) const {
    const std::string where = std::string(std::strerror(error)) + " at " + call + " " + std::to_string(number);
    PutOld();
    const TracedOutcome outcome = RunWith(Kind::kError, number, error);
    ExpectWhole(where, true);
    // What could not be removed stays, and what is kept on purpose is named.
    if (call == "unlink" || outcome.err.find("the model without its reference run is in " + target()) != std::string::npos) {
      for (const auto &entry : std::filesystem::directory_iterator(folder_.path())) {
        if (entry.path() != target()) std::filesystem::remove(entry.path());
      }
    } else {
      ExpectClean(where);
    }
    if (outcome.code == 0) {
      EXPECT_EQ(ReadFile(target()), new_) << where;
      EXPECT_TRUE(call == "unlink" || call == "close") << where << " is not noticed";
      return;
    }
    EXPECT_EQ(outcome.code, kExitIo) << where << ": " << outcome.err;
    EXPECT_NE(outcome.err.find(target()), std::string::npos) << where << ": " << outcome.err;
    EXPECT_NE(outcome.err.find(std::strerror(error)), std::string::npos) << where << ": " << outcome.err;
  }
  void ExpectShort(uint64_t number) const {
    PutOld();
    const TracedOutcome outcome = RunWith(Kind::kShort, number);
    EXPECT_EQ(outcome.code, 0) << "short write " << number << ": " << outcome.err;
    EXPECT_EQ(ReadFile(target()), new_) << "short write " << number;
  }
  // What a signal interrupts goes on; opening, which is interrupted on network file systems alone, may fail, and then all of it.
  void ExpectInterrupted(uint64_t number) const {
    PutOld();
    const TracedOutcome outcome = RunWith(Kind::kError, number, EINTR);
    ASSERT_GE(outcome.calls.size(), number);
    const std::string call = outcome.calls[number - 1];  // with an old file there are others than without
    const std::string where = "interrupted at " + call + " " + std::to_string(number);
    const bool must_go_on = call == "write" || call == "fsync" || call == "close";
    EXPECT_TRUE(outcome.code == 0 || (!must_go_on && outcome.code == kExitIo)) << where << ": " << outcome.code << " " << outcome.err;
    ExpectWhole(where, true);
    if (outcome.code == 0) {
      EXPECT_EQ(ReadFile(target()), new_) << where;
    }
    for (const auto &entry : std::filesystem::directory_iterator(folder_.path())) {
      if (entry.path() != target()) std::filesystem::remove(entry.path());
    }
  }

  static constexpr const char *kOld = "the old file";
  TempFolder folder_;
  Words words_;
  std::string new_;
};

TEST_F(PowerCut, AConversationIsSaved) {
  const std::string model = std::string(ACORN_SOURCE_DIR) + "/examples/models/home.acorn";
  Sweep({ACORN_PROGRAM, "run", model, "--chat", "-p", "hi", "-n", "2", "--threads", "1", "--context", "64", "--save", "TARGET"});
}

#if defined(ACORN_COMPILER)
TEST_F(PowerCut, AModelIsConverted) {
  const std::string source = std::string(ACORN_SOURCE_DIR) + "/tests/data/small_mixtral.gguf";
  Sweep({ACORN_COMPILER, "convert", source, "-o", "TARGET", "--recipe", "rtn", "--threads", "1"});
}
#endif

}  // namespace
}  // namespace acorn::test
