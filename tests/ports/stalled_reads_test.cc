// What the POSIX port does where the system is hostile: a device that hangs, a kernel that forbids io_uring.
#include <gtest/gtest.h>

#if defined(__linux__)
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "acorn_posix.h"
#include "tests/support/temp_folder.h"

namespace acorn {
namespace {

constexpr size_t kPage = 65536;  // at least a page of every system
constexpr size_t kThreads = 16;  // that the port reads with, at most

// Memory that whoever writes to it waits for, until it is let go: to a reading thread, a device that does not answer.
class HangingMemory {
 public:
  explicit HangingMemory(size_t bytes) : bytes_(bytes) {
    memory_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    fd_ = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC));
    uffdio_api api = {};
    api.api = UFFD_API;
    uffdio_register range = {};
    range.range = {reinterpret_cast<uintptr_t>(memory_), bytes};
    range.mode = UFFDIO_REGISTER_MODE_MISSING;
    works_ = fd_ >= 0 && memory_ != MAP_FAILED && ioctl(fd_, UFFDIO_API, &api) == 0 && ioctl(fd_, UFFDIO_REGISTER, &range) == 0;
  }
  ~HangingMemory() {
    if (fd_ >= 0) close(fd_);
    if (memory_ != MAP_FAILED) munmap(memory_, bytes_);
  }
  HangingMemory(const HangingMemory &) = delete;
  HangingMemory &operator=(const HangingMemory &) = delete;

  bool works() const { return works_; }
  char *data() const { return static_cast<char *>(memory_); }
  // Returns when so many writers hang.
  void WaitFor(size_t writers) {
    for (size_t i = 0; i < writers; ++i) {
      uffd_msg message;
      ASSERT_EQ(read(fd_, &message, sizeof message), static_cast<ssize_t>(sizeof message));
      ASSERT_EQ(message.event, UFFD_EVENT_PAGEFAULT);
    }
  }
  void LetGo() {
    uffdio_zeropage zero = {};
    zero.range = {reinterpret_cast<uintptr_t>(memory_), bytes_};
    EXPECT_EQ(ioctl(fd_, UFFDIO_ZEROPAGE, &zero), 0) << std::strerror(errno);
  }

 private:
  void *memory_;
  size_t bytes_;
  int fd_;
  bool works_;
};

std::string Content() {
  std::string content(kPage, 0);
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 7 + i / 251);
  return content;
}

size_t Wait(const acorn_port &port, uint64_t timeout, std::vector<acorn_read_result> *results) {
  results->resize(64);
  size_t count = 0;
  EXPECT_EQ(port.read_wait(port.ctx, results->data(), results->size(), timeout, &count), 0);
  results->resize(count);
  return count;
}

TEST(StalledReads, WaitsEndCancelsReturnAndNothingIsLost) {
  HangingMemory hanging(kThreads * kPage);
  if (!hanging.works()) GTEST_SKIP() << "the system gives no userfaultfd";
  const test::TempFolder folder;
  const std::string content = Content();
  acorn_posix *posix = acorn_posix_create(1);
  acorn_posix_read_options options = {};
  options.struct_size = sizeof options;
  options.method = ACORN_POSIX_READS_THREADS;
  ASSERT_EQ(acorn_posix_set_read_options(posix, &options), 0);
  ASSERT_EQ(acorn_posix_set_file(posix, folder.Write("file", content).c_str()), 0);
  acorn_port port;
  acorn_posix_port(posix, &port, 0);

  // Every thread hangs in one read, so that the four behind them wait for a thread.
  std::vector<char> memory(5 * kPage);
  char *free = memory.data() + (kPage - reinterpret_cast<uintptr_t>(memory.data()) % kPage);
  std::vector<acorn_read_request> requests;
  for (uint64_t i = 0; i < kThreads; ++i) requests.push_back({hanging.data() + i * kPage, 0, kPage, i});
  for (uint64_t i = 0; i < 4; ++i) requests.push_back({free + i * kPage, 0, kPage, 100 + i});
  size_t accepted = 0;
  ASSERT_EQ(port.read_submit(port.ctx, requests.data(), requests.size(), &accepted), 0);
  ASSERT_EQ(accepted, requests.size());
  hanging.WaitFor(kThreads);

  std::vector<acorn_read_result> results;
  EXPECT_EQ(Wait(port, 0, &results), 0u);
  EXPECT_EQ(Wait(port, 1000, &results), 0u);
  for (uint64_t id = 100; id < 103; ++id) EXPECT_EQ(port.read_cancel(port.ctx, id), 0);
  ASSERT_EQ(Wait(port, 0, &results), 3u);
  for (const acorn_read_result &result : results) {
    EXPECT_GE(result.id, 100u);
    EXPECT_EQ(result.error, ACORN_READ_CANCELLED);
  }
  EXPECT_EQ(port.read_cancel(port.ctx, 0), 0);
  EXPECT_EQ(Wait(port, 0, &results), 0u);
  EXPECT_EQ(acorn_posix_stop_reads(posix, 1000), kThreads);  // the fourth of the free ones is taken back here
  EXPECT_EQ(acorn_posix_set_file(posix, folder.File("file").c_str()), EBUSY);

  hanging.LetGo();
  std::set<uint64_t> ended;
  while (ended.size() < kThreads) {
    ASSERT_NE(Wait(port, UINT64_MAX, &results), 0u);
    for (const acorn_read_result &result : results) {
      EXPECT_TRUE(ended.insert(result.id).second);
      EXPECT_LT(result.id, kThreads);
      ASSERT_EQ(result.error, 0);  // whole, though it was cancelled
      EXPECT_EQ(std::memcmp(hanging.data() + result.id * kPage, content.data(), kPage), 0);
    }
  }
  EXPECT_EQ(Wait(port, UINT64_MAX, &results), 0u);
  acorn_posix_destroy(posix);
}

// In a child, since it cannot be taken back: io_uring_setup fails as in most containers.
int ReadWithoutUring(const std::string &path, const std::string &content) {
  sock_filter code[] = {{BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, nr)},
                        {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_io_uring_setup},
                        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | EPERM},
                        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}};
  const sock_fprog program = {4, code};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) return 77;
  acorn_posix *posix = acorn_posix_create(1);
  acorn_posix_read_options options = {};
  options.struct_size = sizeof options;
  options.method = ACORN_POSIX_READS_URING;
  if (acorn_posix_set_read_options(posix, &options) != ENOSYS) return 1;
  if (acorn_posix_set_file(posix, path.c_str()) != 0) return 2;
  acorn_port port;
  acorn_posix_port(posix, &port, 0);
  auto *memory = static_cast<char *>(acorn_posix_allocate(kPage));
  const acorn_read_request request = {memory, 0, kPage, 5};
  size_t accepted = 0, count = 0;
  acorn_read_result result = {};
  if (port.read_submit(port.ctx, &request, 1, &accepted) != 0 || accepted != 1) return 3;
  if (port.read_wait(port.ctx, &result, 1, UINT64_MAX, &count) != 0 || count != 1) return 4;
  if (result.error != 0 || result.bytes != kPage || std::memcmp(memory, content.data(), kPage) != 0) return 5;
  acorn_posix_read_info info = {};
  info.struct_size = sizeof info;
  if (acorn_posix_get_read_info(posix, &info) != 0 || std::strcmp(info.method, "threads") != 0) return 6;
  acorn_posix_release(memory, kPage);
  acorn_posix_destroy(posix);
  return 0;
}

TEST(StalledReads, ThreadsServeWhereTheKernelForbidsUring) {
  const test::TempFolder folder;
  const std::string content = Content(), path = folder.Write("file", content);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(ReadWithoutUring(path, content));
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "the system takes no filter of system calls";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace acorn
#endif
