// Asynchronous reads of the POSIX port: by io_uring where the kernel allows it and by threads, past the page cache and through it.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "acorn_posix.h"
extern "C" {
#include "ports/posix/reads.h"
}
#include "tests/support/temp_folder.h"

namespace acorn {
namespace {

constexpr size_t kPage = 16384;  // the largest alignment that a port may ask for

std::string Content(size_t bytes) {
  std::string content(bytes, 0);
  for (size_t i = 0; i < bytes; ++i) content[i] = static_cast<char>((i * 2654435761u) >> 13);
  return content;
}

struct Free {
  void operator()(void *memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<char, Free>;
Memory Allocate(size_t bytes) { return Memory(static_cast<char *>(std::aligned_alloc(kPage, bytes))); }

acorn_posix_read_options Options(uint32_t method, uint32_t buffered, uint32_t depth) {
  return {sizeof(acorn_posix_read_options), depth, method, buffered};
}

class Storage {
 public:
  Storage(const std::string &path, const acorn_posix_read_options &options) : posix_(acorn_posix_create(1)) {
    options_error_ = acorn_posix_set_read_options(posix_, &options);
    if (options_error_ != 0) return;
    EXPECT_EQ(acorn_posix_set_file(posix_, path.c_str()), 0);
    acorn_posix_port(posix_, &port_, 1);
  }
  ~Storage() { acorn_posix_destroy(posix_); }
  Storage(const Storage &) = delete;
  Storage &operator=(const Storage &) = delete;

  int options_error() const { return options_error_; }
  acorn_posix *posix() const { return posix_; }
  const acorn_port &port() const { return port_; }
  acorn_posix_read_info info() const {
    acorn_posix_read_info info = {};
    info.struct_size = sizeof info;
    EXPECT_EQ(acorn_posix_get_read_info(posix_, &info), 0);
    return info;
  }

  int Submit(const std::vector<acorn_read_request> &requests, size_t *accepted) {
    return port_.read_submit(port_.ctx, requests.data(), requests.size(), accepted);
  }
  // Everything that has ended, after one wait.
  std::vector<acorn_read_result> Wait(uint64_t timeout = UINT64_MAX, size_t capacity = 64) {
    std::vector<acorn_read_result> results(capacity);
    size_t count = capacity + 1;
    EXPECT_EQ(port_.read_wait(port_.ctx, results.data(), capacity, timeout, &count), 0);
    EXPECT_LE(count, capacity);
    results.resize(count);
    return results;
  }
  // All of the requests, each of which must end exactly once.
  std::map<uint64_t, acorn_read_result> ReadAll(const std::vector<acorn_read_request> &requests) {
    std::map<uint64_t, acorn_read_result> ended;
    for (size_t submitted = 0; ended.size() < requests.size();) {
      size_t accepted = 0;
      EXPECT_EQ(port_.read_submit(port_.ctx, requests.data() + submitted, requests.size() - submitted, &accepted), 0);
      submitted += accepted;
      EXPECT_LE(submitted - ended.size(), port_.read_depth);
      const std::vector<acorn_read_result> results = Wait();
      EXPECT_FALSE(results.empty());
      if (results.empty()) break;
      for (const acorn_read_result &result : results) EXPECT_TRUE(ended.emplace(result.id, result).second) << result.id;
    }
    EXPECT_TRUE(Wait().empty());  // nothing is under way: it comes back at once
    return ended;
  }

 private:
  acorn_posix *posix_;
  acorn_port port_ = {};
  int options_error_;
};

// (method, buffered, depth)
class Reads : public testing::TestWithParam<std::tuple<uint32_t, uint32_t, uint32_t>> {
 protected:
  void SetUp() override {
    content_ = Content(40 * kPage + 1234);
    path_ = folder_.Write("file", content_);
    storage_ = Open(path_);
    if (storage_->options_error() == ENOSYS && std::get<0>(GetParam()) == ACORN_POSIX_READS_URING) {
      GTEST_SKIP() << "no io_uring in this build or kernel";
    }
    ASSERT_EQ(storage_->options_error(), 0);
    memory_ = Allocate(64 * kPage);
  }
  std::unique_ptr<Storage> Open(const std::string &path) const {
    const auto [method, buffered, depth] = GetParam();
    return std::make_unique<Storage>(path, Options(method, buffered, depth));
  }
  acorn_read_request Request(size_t place, uint64_t offset, size_t bytes, uint64_t id) {
    return {memory_.get() + place * kPage, offset, bytes, id};
  }
  // One read of a page into each place, from the page of the same number.
  std::vector<acorn_read_request> Pages(size_t count) {
    std::vector<acorn_read_request> requests;
    for (size_t i = 0; i < count; ++i) requests.push_back(Request(i, i % 40 * kPage, kPage, 100 + i));
    return requests;
  }
  void ExpectBytes(const acorn_read_request &request, const acorn_read_result &result) const {
    const size_t there = request.offset >= content_.size() ? 0 : content_.size() - static_cast<size_t>(request.offset);
    EXPECT_EQ(result.error, 0) << std::strerror(result.error);
    ASSERT_EQ(result.bytes, std::min(there, request.bytes)) << "at " << request.offset;
    if (there == 0) return;
    EXPECT_EQ(std::memcmp(request.to, content_.data() + request.offset, result.bytes), 0);
  }

  test::TempFolder folder_;
  std::string content_, path_;
  std::unique_ptr<Storage> storage_;
  Memory memory_;
};

TEST_P(Reads, EachEndsOnceWithItsBytes) {
  std::vector<acorn_read_request> requests;
  for (size_t i = 0; i < 40; ++i) {
    const size_t page = i * 17 % 40;
    requests.push_back(Request(i, page * kPage, kPage, i));
  }
  for (int repeat = 0; repeat < 3; ++repeat) {
    std::memset(memory_.get(), 0, 64 * kPage);
    const auto ended = storage_->ReadAll(requests);
    ASSERT_EQ(ended.size(), requests.size());
    for (const acorn_read_request &request : requests) ExpectBytes(request, ended.at(request.id));
  }
}

TEST_P(Reads, LongOnesAndShortOnes) {
  const std::vector<acorn_read_request> requests = {Request(0, 0, 40 * kPage, 1), Request(40, kPage, kPage, 2),
                                                    Request(41, 3 * kPage, 20 * kPage, 3)};
  const auto ended = storage_->ReadAll(requests);
  for (const acorn_read_request &request : requests) ExpectBytes(request, ended.at(request.id));
}

TEST_P(Reads, EndOfTheFile) {
  const std::vector<acorn_read_request> requests = {
      Request(0, 40 * kPage, kPage, 1),              // its last 1,234 bytes
      Request(1, 41 * kPage, kPage, 2),              // right behind
      Request(2, uint64_t{1} << 40, kPage, 3),       // far behind
      Request(3, 30 * kPage, 20 * kPage, 4)};        // across
  const auto ended = storage_->ReadAll(requests);
  for (const acorn_read_request &request : requests) ExpectBytes(request, ended.at(request.id));
  EXPECT_EQ(ended.at(1).bytes, 1234u);
  EXPECT_EQ(ended.at(4).bytes, 10 * kPage + 1234);
}

TEST_P(Reads, EndOfAFileOfWholePages) {
  content_ = Content(2 * kPage);
  storage_ = Open(folder_.Write("whole", content_));
  const std::vector<acorn_read_request> requests = {Request(0, 0, 4 * kPage, 1), Request(4, 2 * kPage, kPage, 2)};
  const auto ended = storage_->ReadAll(requests);
  for (const acorn_read_request &request : requests) ExpectBytes(request, ended.at(request.id));
}

TEST_P(Reads, AnEmptyFile) {
  content_.clear();
  storage_ = Open(folder_.Write("empty", content_));
  EXPECT_EQ(storage_->ReadAll({Request(0, 0, kPage, 1)}).at(1).bytes, 0u);
}

TEST_P(Reads, AFileThatBecomesShorter) {
  ASSERT_EQ(truncate(path_.c_str(), 3 * kPage + 100), 0);
  content_.resize(3 * kPage + 100);
  const std::vector<acorn_read_request> requests = {Request(0, 3 * kPage, kPage, 1), Request(1, 20 * kPage, kPage, 2)};
  const auto ended = storage_->ReadAll(requests);
  for (const acorn_read_request &request : requests) ExpectBytes(request, ended.at(request.id));
}

TEST_P(Reads, NoMoreThanTheDepth) {
  const uint32_t depth = std::get<2>(GetParam());
  ASSERT_EQ(storage_->port().read_depth, depth);
  std::vector<acorn_read_request> requests = Pages(depth);
  requests.push_back(Request(0, 0, kPage, 7));  // never begun: the depth is reached
  size_t accepted = 0;
  ASSERT_EQ(storage_->Submit(requests, &accepted), 0);
  EXPECT_EQ(accepted, depth);
  ASSERT_EQ(storage_->Submit(requests, &accepted), 0);
  EXPECT_EQ(accepted, 0u);
  size_t ended = 0;
  while (ended < depth) {
    const std::vector<acorn_read_result> one = storage_->Wait(UINT64_MAX, 1);
    ASSERT_EQ(one.size(), 1u);
    ExpectBytes(requests[one[0].id - 100], one[0]);
    ++ended;
  }
  EXPECT_TRUE(storage_->Wait(0).empty());
}

TEST_P(Reads, ALookTakesOnlyWhatIsThere) {
  EXPECT_TRUE(storage_->Wait(0).empty());
  EXPECT_TRUE(storage_->Wait(1000).empty());
  const std::vector<acorn_read_request> requests = {Request(0, 0, kPage, 5)};
  size_t accepted = 0;
  ASSERT_EQ(storage_->Submit(requests, &accepted), 0);
  std::vector<acorn_read_result> results;
  while (results.empty()) results = storage_->Wait(0);
  ASSERT_EQ(results.size(), 1u);
  ExpectBytes(requests[0], results[0]);
  ASSERT_EQ(storage_->Submit(requests, &accepted), 0);
  for (results.clear(); results.empty();) results = storage_->Wait(1);  // a nanosecond
  ExpectBytes(requests[0], results[0]);
}

TEST_P(Reads, RequestsThatBreakTheRules) {
  const size_t alignment = storage_->port().read_alignment;
  std::vector<acorn_read_request> bad = {Request(0, 0, 0, 1), {nullptr, 0, kPage, 2}, Request(0, UINT64_MAX - kPage + 1, kPage, 3)};
  if (alignment > 1) {
    bad.push_back(Request(0, alignment / 2, kPage, 4));
    bad.push_back(Request(0, 0, alignment + 1, 5));
    bad.push_back({memory_.get() + 1, 0, kPage, 6});
  }
  for (const acorn_read_request &request : bad) {
    size_t accepted = 1;
    EXPECT_EQ(storage_->Submit({request}, &accepted), EINVAL) << request.id;
    EXPECT_EQ(accepted, 0u);
    EXPECT_TRUE(storage_->Wait().empty());
  }
  if (std::get<2>(GetParam()) == 1) return;
  size_t accepted = 0;
  const std::vector<acorn_read_request> requests = {Request(0, 0, kPage, 8), bad[0], Request(1, 0, kPage, 9)};
  EXPECT_EQ(storage_->Submit(requests, &accepted), EINVAL);
  EXPECT_EQ(accepted, 1u);
  ExpectBytes(requests[0], storage_->Wait().at(0));
}

// The one fault that a disk which works can be made to have: memory that nobody may write to.
TEST_P(Reads, AnErrorIsTheReadsOwn) {
  void *forbidden = mmap(nullptr, kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(forbidden, MAP_FAILED);
  const std::vector<acorn_read_request> requests = {Request(0, 0, kPage, 1), {forbidden, 0, kPage, 2}, Request(1, kPage, kPage, 3)};
  if (reinterpret_cast<uintptr_t>(forbidden) % storage_->port().read_alignment == 0) {
    const auto ended = storage_->ReadAll(requests);
    EXPECT_EQ(ended.at(2).error, EFAULT);
    EXPECT_EQ(ended.at(2).bytes, 0u);
    ExpectBytes(requests[0], ended.at(1));
    ExpectBytes(requests[2], ended.at(3));
  }
  munmap(forbidden, kPage);
}

TEST_P(Reads, CancelledOnesEndOnceToo) {
  const uint32_t depth = std::get<2>(GetParam());
  for (int repeat = 0; repeat < 20; ++repeat) {
    const std::vector<acorn_read_request> requests = Pages(depth);
    size_t accepted = 0;
    ASSERT_EQ(storage_->Submit(requests, &accepted), 0);
    const acorn_port &port = storage_->port();
    EXPECT_NE(port.read_cancel(port.ctx, 99), 0);
    for (size_t i = requests.size(); i-- > 0;) {
      for (size_t times = 0; times < i % 3; ++times) EXPECT_EQ(port.read_cancel(port.ctx, requests[i].id), 0);  // twice is once
    }
    std::map<uint64_t, acorn_read_result> ended;
    while (ended.size() < depth) {
      for (const acorn_read_result &result : storage_->Wait()) ASSERT_TRUE(ended.emplace(result.id, result).second);
    }
    for (const acorn_read_request &request : requests) {
      const acorn_read_result &result = ended.at(request.id);
      if (result.error == ACORN_READ_CANCELLED) {
        EXPECT_EQ(result.bytes, 0u);
      } else {
        ExpectBytes(request, result);
      }
      EXPECT_NE(port.read_cancel(port.ctx, request.id), 0);
    }
  }
}

TEST_P(Reads, StopTakesThemAllBackAndReadingGoesOn) {
  size_t accepted = 0;
  ASSERT_EQ(storage_->Submit(Pages(std::get<2>(GetParam())), &accepted), 0);
  EXPECT_EQ(acorn_posix_stop_reads(storage_->posix(), UINT64_MAX), 0u);
  EXPECT_TRUE(storage_->Wait(0).empty());
  const std::vector<acorn_read_request> requests = {Request(0, kPage, kPage, 1)};
  ExpectBytes(requests[0], storage_->ReadAll(requests).at(1));
}

TEST_P(Reads, TheFileStaysWhileReadsAreUnderWay) {
  size_t accepted = 0;
  ASSERT_EQ(storage_->Submit(Pages(1), &accepted), 0);
  const std::string other = folder_.Write("other", "other");
  EXPECT_EQ(acorn_posix_set_file(storage_->posix(), other.c_str()), EBUSY);
  EXPECT_EQ(storage_->Wait().size(), 1u);
  EXPECT_EQ(acorn_posix_set_file(storage_->posix(), other.c_str()), 0);
  content_ = "other";
  const std::vector<acorn_read_request> requests = {Request(0, 0, kPage, 1)};
  acorn_port port;
  acorn_posix_port(storage_->posix(), &port, 1);
  ASSERT_EQ(port.read_submit(port.ctx, requests.data(), 1, &accepted), 0);
  ExpectBytes(requests[0], storage_->Wait().at(0));
}

TEST_P(Reads, DestroyedWithReadsUnderWay) {
  size_t accepted = 0;
  ASSERT_EQ(storage_->Submit(Pages(std::get<2>(GetParam())), &accepted), 0);
  storage_.reset();
  std::memset(memory_.get(), 1, 64 * kPage);  // whatever still wrote here would be the kernel, or a thread that the sanitizers see
}

TEST_P(Reads, InfoSaysWhatBecameOfTheOptions) {
  const auto [method, buffered, depth] = GetParam();
  EXPECT_STREQ(storage_->info().method, "");
  EXPECT_EQ(storage_->info().depth, depth);
  EXPECT_EQ(storage_->info().alignment, storage_->port().read_alignment);
  if (buffered != 0) {
    EXPECT_EQ(storage_->info().direct, 0u);
    EXPECT_EQ(storage_->info().alignment, 1u);
  }
  storage_->ReadAll({Request(0, 0, kPage, 1)});
  EXPECT_STREQ(storage_->info().method, method == ACORN_POSIX_READS_URING ? "io_uring" : "threads");
}

std::string ParamName(const testing::TestParamInfo<std::tuple<uint32_t, uint32_t, uint32_t>> &info) {
  const auto [method, buffered, depth] = info.param;
  return std::string(method == ACORN_POSIX_READS_URING ? "uring" : "threads") + (buffered != 0 ? "_buffered_" : "_direct_") +
         std::to_string(depth);
}

#if defined(ACORN_NO_URING)
const auto kMethods = testing::Values(ACORN_POSIX_READS_THREADS);
TEST(ReadOptions, ABuildWithoutUringSaysSo) {
  acorn_posix *posix = acorn_posix_create(1);
  const acorn_posix_read_options options = Options(ACORN_POSIX_READS_URING, 0, 0);
  EXPECT_EQ(acorn_posix_set_read_options(posix, &options), ENOSYS);
  acorn_posix_destroy(posix);
}
#else
const auto kMethods = testing::Values(ACORN_POSIX_READS_URING, ACORN_POSIX_READS_THREADS);
#endif
INSTANTIATE_TEST_SUITE_P(Posix, Reads, testing::Combine(kMethods, testing::Values(0u, 1u), testing::Values(1u, 3u, 64u)),
                         ParamName);

// What both ways to read make of the system's answers; from io_uring no test can have them.
TEST(ReadAnswers, ShortAndInterruptedReadsGoOnAndOnlyAnEndEnds) {
  acorn_reads reads = {};
  reads.direct = 1;
  reads.alignment = 4096;
  const auto read_of = [](size_t bytes) {
    acorn_read read = {};
    read.request.bytes = bytes;
    return read;
  };
  acorn_read read = read_of(16384);
  for (const int answer : {-EINTR, 4096, -EAGAIN, 8192, -EINTR}) EXPECT_EQ(acorn_read_advance(&reads, &read, answer), 0) << answer;
  EXPECT_EQ(acorn_read_step(&read), 4096u);
  EXPECT_EQ(acorn_read_advance(&reads, &read, 4096), 1);
  EXPECT_EQ(read.done, 16384u);
  EXPECT_EQ(read.error, 0);
  for (const int end : {0, 100}) {  // of the file
    read = read_of(16384);
    EXPECT_EQ(acorn_read_advance(&reads, &read, 4096), 0);
    EXPECT_EQ(acorn_read_advance(&reads, &read, end), 1) << end;
    EXPECT_EQ(read.done, 4096u + static_cast<size_t>(end));
    EXPECT_EQ(read.error, 0);
  }
  read = read_of(16384);
  EXPECT_EQ(acorn_read_advance(&reads, &read, -EIO), 1);
  EXPECT_EQ(read.error, EIO);
  for (const int answer : {4096, -EINTR, -ECANCELED}) {
    read = read_of(16384);
    read.cancelled = 1;
    EXPECT_EQ(acorn_read_advance(&reads, &read, answer), 1) << answer;
    EXPECT_EQ(read.error, ACORN_READ_CANCELLED);
  }
}

TEST(ReadOptions, AreChecked) {
  acorn_posix *posix = acorn_posix_create(1);
  acorn_posix_read_options bad[] = {Options(0, 0, ACORN_POSIX_READ_DEPTH_MAX + 1), Options(3, 0, 1), Options(0, 2, 1), {}};
  for (const acorn_posix_read_options &options : bad) EXPECT_EQ(acorn_posix_set_read_options(posix, &options), EINVAL);
  acorn_posix_read_info info = {};
  info.struct_size = sizeof info;
  EXPECT_EQ(acorn_posix_get_read_info(posix, &info), EINVAL);  // no file
  EXPECT_EQ(acorn_posix_stop_reads(posix, UINT64_MAX), 0u);
  const test::TempFolder folder;
  ASSERT_EQ(acorn_posix_set_file(posix, folder.Write("file", "x").c_str()), 0);
  EXPECT_EQ(acorn_posix_get_read_info(posix, &info), 0);
  EXPECT_EQ(info.depth, 32u);
  info.struct_size = 4;
  EXPECT_EQ(acorn_posix_get_read_info(posix, &info), EINVAL);
  acorn_posix_destroy(posix);
}

TEST(ReadOptions, TheBestMethodIsTakenWhereNoneIsAskedFor) {
  const test::TempFolder folder;
  const std::string path = folder.Write("file", Content(kPage));
  Storage best(path, Options(ACORN_POSIX_READS_ANY, 0, 0));
  const bool uring = Storage(path, Options(ACORN_POSIX_READS_URING, 0, 0)).options_error() == 0;
  const Memory memory = Allocate(kPage);
  best.ReadAll({{memory.get(), 0, kPage, 1}});
  EXPECT_STREQ(best.info().method, uring ? "io_uring" : "threads");
}

#if defined(__linux__)
// Files of /proc are regular and take no direct reads anywhere.
TEST(ReadOptions, WithoutDirectReadsThePageCacheServesAndIsNamedOnce) {
  const std::string path = "/proc/version";
  testing::internal::CaptureStderr();
  {
    Storage storage(path, Options(ACORN_POSIX_READS_THREADS, 0, 2));
    EXPECT_EQ(storage.info().direct, 0u);
    const Memory memory = Allocate(kPage);
    for (uint64_t id = 1; id < 4; ++id) {
      const acorn_read_result result = storage.ReadAll({{memory.get(), 0, kPage, id}}).at(id);
      EXPECT_EQ(result.error, 0);
      EXPECT_EQ(std::string(memory.get(), result.bytes), test::ReadFile(path));
    }
    Storage asked(path, Options(ACORN_POSIX_READS_THREADS, 1, 2));
    asked.ReadAll({{memory.get(), 0, kPage, 1}});
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "acorn: warning: " + path + ": the file system takes no direct reads; reading through the page cache\n");
}
#endif

}  // namespace
}  // namespace acorn
