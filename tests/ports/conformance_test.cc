// The conformance program against ports that break one promise each: every breach must be found, under its name.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "tests/ports/conformance_block.h"
#include "tests/support/host_features.h"

namespace acorn::test {
namespace {

struct Board {
  std::string log;
  const AlignedBytes *file = nullptr;
  uint64_t now = 0;
  std::vector<acorn_read_request> under_way;
};

void Log(void *ctx, uint32_t, const char *message, size_t bytes) {
  static_cast<Board *>(ctx)->log.append(message, bytes).append("\n");
}

uint64_t Ticks(void *ctx) { return static_cast<Board *>(ctx)->now++ / 4; }
uint64_t StandingTicks(void *) { return 5; }
uint64_t FallingTicks(void *ctx) { return 1000000 - static_cast<Board *>(ctx)->now++; }

constexpr uint32_t kLoopTasks = 1000;  // cells of the check's loops

void Loop(void *, acorn_task task, void *arg, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) task(arg, i, i % 3);
}
void LoopWithoutTheLast(void *, acorn_task task, void *arg, uint32_t count) {
  for (uint32_t i = 0; i + 1 < count; ++i) task(arg, i, 0);
}
void LoopTwice(void *ctx, acorn_task task, void *arg, uint32_t count) {
  Loop(ctx, task, arg, count);
  if (count > 90) task(arg, 90, 0);
}
void LoopWithAThreadTooMany(void *, acorn_task task, void *arg, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) task(arg, i, i % 4);
}
void LoopBeyondTheCount(void *ctx, acorn_task task, void *arg, uint32_t count) {
  Loop(ctx, task, arg, count);
  task(arg, count, 0);
}

// As a port whose caches are not coherent: of what the loop handed out, [runs, in, out] for each task, one word stays as it was.
void LoopThatLosesAWrite(void *ctx, acorn_task task, void *arg, uint32_t count) {
  Loop(ctx, task, arg, count);
  if (count > 90) static_cast<uint32_t *>(arg)[3 * 90 + 2] = 0;
}
// As a port with two threads under the number 0, of which the other is within a task: its mark, behind the tasks' words, is set. (Two
// real threads need not meet, least of all on one processor.)
void LoopUnderOneNumber(void *ctx, acorn_task task, void *arg, uint32_t count) {
  static_cast<uint32_t *>(arg)[3 * kLoopTasks] = 1;
  Loop(ctx, task, arg, count);
}

int Read(void *ctx, void *to, uint64_t offset, size_t bytes) {
  const AlignedBytes &file = *static_cast<Board *>(ctx)->file;
  if (offset > file.size() || bytes > file.size() - offset) return 1;
  std::memcpy(to, file.data() + offset, bytes);
  return 0;
}
int ReadOfBlocks(void *ctx, void *to, uint64_t offset, size_t bytes) { return Read(ctx, to, offset / 512 * 512, bytes); }
int ReadPastTheEnd(void *ctx, void *to, uint64_t offset, size_t bytes) {
  (void)Read(ctx, to, offset, bytes);
  return 0;
}
int ReadTooMuch(void *ctx, void *to, uint64_t offset, size_t bytes) {
  const int failed = Read(ctx, to, offset, bytes);
  if (failed == 0) static_cast<char *>(to)[bytes] = 0;
  return failed;
}

constexpr uint32_t kDepth = 4;

int Submit(void *ctx, const acorn_read_request *requests, size_t count, size_t *accepted) {
  auto &under_way = static_cast<Board *>(ctx)->under_way;
  for (*accepted = 0; *accepted < count && under_way.size() < kDepth;) under_way.push_back(requests[(*accepted)++]);
  return 0;
}
int SubmitOneTooMany(void *ctx, const acorn_read_request *requests, size_t count, size_t *accepted) {
  (void)Submit(ctx, requests, count, accepted);
  if (*accepted < count) static_cast<Board *>(ctx)->under_way.push_back(requests[(*accepted)++]);
  return 0;
}
int SubmitNothing(void *, const acorn_read_request *, size_t, size_t *accepted) {
  *accepted = 0;
  return 0;
}
// The last first.
int Wait(void *ctx, acorn_read_result *results, size_t capacity, uint64_t, size_t *count) {
  auto *board = static_cast<Board *>(ctx);
  for (*count = 0; *count < capacity && !board->under_way.empty(); ++*count) {
    const acorn_read_request request = board->under_way.back();
    board->under_way.pop_back();
    const uint64_t end = board->file->size();
    const size_t there = request.offset >= end ? 0 : static_cast<size_t>(end - request.offset);
    const size_t bytes = there < request.bytes ? there : request.bytes;
    if (bytes != 0) std::memcpy(request.to, board->file->data() + request.offset, bytes);
    results[*count] = {request.id, bytes, 0};
  }
  return 0;
}
int WaitAndRepeat(void *ctx, acorn_read_result *results, size_t capacity, uint64_t timeout, size_t *count) {
  (void)Wait(ctx, results, capacity, timeout, count);
  if (*count == 3) results[2] = results[0];
  return 0;
}
int WaitAndInvent(void *ctx, acorn_read_result *results, size_t capacity, uint64_t timeout, size_t *count) {
  (void)Wait(ctx, results, capacity, timeout, count);
  if (*count == 0) results[(*count)++] = {1, 0, 0};
  return 0;
}
int WaitForTooMuch(void *ctx, acorn_read_result *results, size_t capacity, uint64_t timeout, size_t *count) {
  (void)Wait(ctx, results, capacity, timeout, count);
  for (size_t i = 0; i < *count; ++i) results[i].bytes = 512;
  return 0;
}
int WaitForOtherBytes(void *ctx, acorn_read_result *results, size_t capacity, uint64_t timeout, size_t *count) {
  const std::vector<acorn_read_request> before = static_cast<Board *>(ctx)->under_way;
  (void)Wait(ctx, results, capacity, timeout, count);
  for (const acorn_read_request &request : before) *static_cast<char *>(request.to) ^= 1;
  return 0;
}
int WaitInVain(void *, acorn_read_result *, size_t, uint64_t, size_t *count) {
  *count = 0;
  return 0;
}
int WaitForErrors(void *ctx, acorn_read_result *results, size_t capacity, uint64_t timeout, size_t *count) {
  (void)Wait(ctx, results, capacity, timeout, count);
  for (size_t i = 0; i < *count; ++i) results[i] = {results[i].id, 0, 5};
  return 0;
}
int Cancel(void *ctx, uint64_t id) {
  for (const acorn_read_request &request : static_cast<Board *>(ctx)->under_way) {
    if (request.id == id) return 0;
  }
  return 1;
}
int CancelAnything(void *, uint64_t) { return 0; }
int CancelNothing(void *, uint64_t) { return 1; }

class Conformance : public testing::Test {
 protected:
  Conformance() {
    board_.file = &block_.file();
    port_.struct_size = sizeof port_;
    port_.cpu_features = HostFeatures();
    port_.threads = 3;
    port_.ctx = &board_;
    port_.log = Log;
    port_.ticks = Ticks;
    port_.ticks_per_second = 1000000;
    port_.parallel_for = Loop;
    port_.read = Read;
    port_.read_depth = kDepth;
    port_.read_submit = Submit;
    port_.read_wait = Wait;
    port_.read_cancel = Cancel;
  }
  // Expects one failed check, whose line has `words`.
  void ExpectFailure(const char *words) {
    board_.log.clear();
    EXPECT_EQ(block_.Run(port_), 1u) << board_.log;
    const size_t at = board_.log.find("FAILED");
    ASSERT_NE(at, std::string::npos) << board_.log;
    const size_t begin = board_.log.rfind('\n', at) + 1;
    EXPECT_NE(board_.log.substr(begin, board_.log.find('\n', at) - begin).find(words), std::string::npos) << board_.log;
  }

  ConformanceBlock block_;
  Board board_;
  acorn_port port_ = {};
};

TEST_F(Conformance, AGoodPortPasses) {
  EXPECT_EQ(block_.Run(port_), 0u) << board_.log;
  for (const char *check : {"fields: ok", "log: came back", "ticks: ok", "parallel_for: ok", "read: ok", "read_submit: ok",
                            "model, portable kernels: ok"}) {
    EXPECT_NE(board_.log.find(check), std::string::npos) << check;
  }
}

TEST_F(Conformance, Fields) {
  port_.cpu_features |= 1u << 31;
  ExpectFailure("unknown CPU feature");
  port_.cpu_features = ACORN_CPU_I8MM;
  ExpectFailure("implies");
  port_.cpu_features = 0;
  port_.reserved = 1;
  ExpectFailure("reserved");
  port_.reserved = 0;
  port_.ticks_per_second = 0;
  ExpectFailure("ticks");
  port_.ticks_per_second = 1000;
  port_.parallel_for = nullptr;
  ExpectFailure("parallel_for");
  port_.parallel_for = Loop;
  port_.read_depth = 0;
  ExpectFailure("read_depth");
  port_.read_depth = kDepth;
  port_.read_wait = nullptr;
  ExpectFailure("read_wait");
  port_.read_wait = Wait;
  port_.read_alignment = 3000;
  ExpectFailure("read_alignment");
  port_.read_alignment = 32768;
  ExpectFailure("read_alignment");
  port_.struct_size = 8;
  EXPECT_EQ(block_.Run(port_), 1u);
}

TEST_F(Conformance, Clock) {
  port_.ticks_per_second = 1;
  ExpectFailure("plausible");
  port_.ticks_per_second = 1000000;
  port_.ticks = FallingTicks;
  ExpectFailure("went back");
  port_.ticks = StandingTicks;
  ExpectFailure("stands still");
}

TEST_F(Conformance, Loops) {
  port_.parallel_for = LoopTwice;
  ExpectFailure("exactly once");
  port_.parallel_for = LoopWithoutTheLast;
  ExpectFailure("exactly once");
  port_.parallel_for = LoopWithAThreadTooMany;
  ExpectFailure("out of range");
  port_.parallel_for = LoopBeyondTheCount;
  ExpectFailure("out of range");
}

TEST_F(Conformance, LostWrites) {
  port_.parallel_for = LoopThatLosesAWrite;
  ExpectFailure("what a task read or wrote is not what the caller wrote or reads");
}

TEST_F(Conformance, TwoTasksUnderOneNumber) {
  port_.parallel_for = LoopUnderOneNumber;
  ExpectFailure("two tasks at once under one thread number");
}

TEST_F(Conformance, Read) {
  port_.read = ReadOfBlocks;
  ExpectFailure("other bytes");
  port_.read = ReadPastTheEnd;
  ExpectFailure("past the end");
  port_.read = ReadTooMuch;
  ExpectFailure("beyond its bytes");
}

TEST_F(Conformance, AsynchronousReads) {
  port_.read_cancel = nullptr;
  port_.read_alignment = 16384;
  EXPECT_EQ(block_.Run(port_), 0u) << board_.log;
  port_.read_alignment = 0;
  port_.read_cancel = Cancel;
  const struct {
    decltype(port_.read_wait) wait;
    const char *words;
  } waits[] = {{WaitAndRepeat, "not under way"},   {WaitAndInvent, "without reads finds one"},
               {WaitForTooMuch, "another length"}, {WaitForOtherBytes, "other bytes"},
               {WaitInVain, "read_wait fails"},    {WaitForErrors, "inside the rules fails"}};
  for (const auto &wait : waits) {
    port_.read_wait = wait.wait;
    board_.under_way.clear();
    ExpectFailure(wait.words);
  }
  port_.read_wait = Wait;
  board_.under_way.clear();
  port_.read_submit = SubmitOneTooMany;
  ExpectFailure("read_depth");
  board_.under_way.clear();
  port_.read_submit = SubmitNothing;
  ExpectFailure("read_depth");
  port_.read_submit = Submit;
  port_.read_cancel = CancelAnything;
  ExpectFailure("not there");
  port_.read_cancel = CancelNothing;
  ExpectFailure("unknown");
}

}  // namespace
}  // namespace acorn::test
