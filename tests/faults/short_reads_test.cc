// Reads that a signal interrupts, and that give less than was asked for with more to come: each read of each program, by every way
// that a file is read. Nobody notices.
#include <gtest/gtest.h>

#include <cerrno>
#include <functional>

#include "tests/faults/system_calls.h"
#include "tests/support/temp_folder.h"

namespace acorn::test {
namespace {

using Words = std::vector<std::string>;
using Kind = CallFault::Kind;

std::string ModelPath(const std::string &name) { return std::string(ACORN_SOURCE_DIR) + "/examples/models/" + name; }

/// `check`: what has to be as in the run without a fault; `reads_of`: a part of the file's path.
void Sweep(const Words &words, const std::string &reads_of, const std::function<std::string(const TracedOutcome &)> &check) {
  TracedOutcome undisturbed;
  CallFault fault;
  fault.reads_of = reads_of;
  if (!RunTraced(words, fault, &undisturbed)) GTEST_SKIP() << "nothing can be traced here";
  ASSERT_EQ(undisturbed.code, 0) << undisturbed.err;
  ASSERT_FALSE(undisturbed.calls.empty());
  const std::string expected = check(undisturbed);
  ASSERT_NE(expected, "");
  // Threads make one read more or less from run to run.
  for (bool reached = true; reached;) {
    ++fault.number;
    for (const bool interrupted : {true, false}) {
      fault.kind = interrupted ? Kind::kError : Kind::kShort;
      fault.error = EINTR;
      TracedOutcome outcome;
      ASSERT_TRUE(RunTraced(words, fault, &outcome));
      reached = outcome.calls.size() >= fault.number;
      const std::string where = (interrupted ? "interrupted at read " : "short at read ") + std::to_string(fault.number);
      ASSERT_EQ(outcome.code, 0) << where << ": " << outcome.err;
      ASSERT_EQ(check(outcome), expected) << where;
    }
  }
  testing::Test::RecordProperty("reads", static_cast<int>(fault.number - 1));
}

std::string Said(const TracedOutcome &outcome) { return outcome.out; }

TEST(ShortReads, OfAFileThatIsVerified) { Sweep({ACORN_PROGRAM, "verify", ModelPath("moe.acorn")}, "moe.acorn", Said); }

TEST(ShortReads, OfAFileThatIsCopied) {
  Sweep({ACORN_PROGRAM, "run", ModelPath("home.acorn"), "--residency", "copy", "--chat", "-p", "hi", "-n", "2", "--threads", "1"},
        "home.acorn", Said);
}

TEST(ShortReads, OfExpertsThatStream) {
  Sweep({ACORN_PROGRAM, "run", ModelPath("moe.acorn"), "--expert-cache", "1M", "-p", "hi", "-n", "4", "--threads", "1"},
        "moe.acorn", Said);
}

#if defined(ACORN_COMPILER)
TEST(ShortReads, OfExpertsThatAreWritten) {
  const TempFolder folder;
  const std::string source = std::string(ACORN_SOURCE_DIR) + "/tests/data/small_mixtral.gguf", target = folder.File("target");
  Sweep({ACORN_COMPILER, "convert", source, "-o", target, "--recipe", "rtn", "--threads", "1"}, ".spool",
        [&](const TracedOutcome &) { return ReadFile(target); });
}
#endif

}  // namespace
}  // namespace acorn::test
