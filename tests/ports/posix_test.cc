// What acorn_port promises, kept by the POSIX port: threads, clock, CPU features, files; and a model on it.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>
#include <vector>

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "acorn_posix.h"
#include "tests/support/model_session.h"
#include "tests/support/temp_folder.h"

namespace acorn {
namespace {

class Pool {
 public:
  explicit Pool(uint32_t threads) : posix_(acorn_posix_create(threads)) { acorn_posix_port(posix_, &port_, 0); }
  ~Pool() { acorn_posix_destroy(posix_); }
  const acorn_port &port() const { return port_; }

 private:
  acorn_posix *posix_;
  acorn_port port_;
};

struct Loop {
  uint32_t threads = 0;
  std::vector<std::atomic<uint32_t>> runs, busy;
  std::atomic<uint32_t> faults{0};
  Loop(uint32_t tasks, uint32_t thread_count) : threads(thread_count), runs(tasks), busy(thread_count) {}
};

void CountTask(void *arg, uint32_t task, uint32_t thread) {
  auto *loop = static_cast<Loop *>(arg);
  if (thread >= loop->threads || task >= loop->runs.size()) {
    ++loop->faults;
    return;
  }
  if (loop->busy[thread].fetch_add(1) != 0) ++loop->faults;  // two tasks under one number
  ++loop->runs[task];
  --loop->busy[thread];
}

TEST(PosixThreads, EveryTaskRunsOnceUnderANumberOfItsOwn) {
  for (const uint32_t threads : {2u, 3u, 5u}) {
    const Pool pool(threads);
    ASSERT_NE(pool.port().parallel_for, nullptr);
    EXPECT_EQ(pool.port().threads, threads);
    for (const uint32_t tasks : {1u, 2u, 7u, 64u, 1000u}) {
      for (int repeat = 0; repeat < 50; ++repeat) {
        Loop loop(tasks, threads);
        pool.port().parallel_for(pool.port().ctx, CountTask, &loop, tasks);
        for (uint32_t task = 0; task < tasks; ++task) ASSERT_EQ(loop.runs[task], 1u) << task << " of " << tasks;
        ASSERT_EQ(loop.faults, 0u);
      }
    }
  }
}

TEST(PosixThreads, OneThreadNeedsNoPool) {
  const Pool pool(1);
  EXPECT_EQ(pool.port().parallel_for, nullptr);
  EXPECT_EQ(pool.port().threads, 1u);
}

TEST(PosixThreads, DefaultIsTheCpusOfTheProcess) {
  const Pool pool(0);
  EXPECT_EQ(pool.port().threads, std::min(16u, acorn_posix_cpus()));
  EXPECT_GE(acorn_posix_cpus(), 1u);
}

TEST(PosixClock, GoesForward) {
  const Pool pool(1);
  const uint64_t first = pool.port().ticks(pool.port().ctx), second = pool.port().ticks(pool.port().ctx);
  EXPECT_LE(first, second);
  EXPECT_EQ(pool.port().ticks_per_second, 1000000000u);
}

#if defined(__x86_64__)
// The kernel's own list of flags.
TEST(PosixFeatures, AreWhatTheSystemSays) {
  std::ifstream in("/proc/cpuinfo");
  std::set<std::string> flags;
  for (std::string line; std::getline(in, line);) {
    if (line.compare(0, 5, "flags") != 0) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    for (std::string word; words >> word;) flags.insert(word);
    break;
  }
  if (flags.empty()) GTEST_SKIP() << "/proc/cpuinfo lists no flags";
  const auto has = [&flags](const char *name) { return flags.count(name) != 0; };
  uint32_t expected = 0;
  if (has("avx2") && has("fma") && has("f16c") && has("bmi1")) expected |= ACORN_CPU_AVX2;
  if (has("avx_vnni")) expected |= ACORN_CPU_AVXVNNI;
  if (has("avx512f") && has("avx512bw") && has("avx512dq") && has("avx512vl") && has("avx512cd") && has("avx512_vnni")) {
    expected |= ACORN_CPU_AVX512VNNI;
    if (has("gfni")) expected |= ACORN_CPU_GFNI;
  }
  EXPECT_EQ(acorn_posix_cpu_features(), expected);
}
#elif defined(__aarch64__)
// The kernel's own word, by the names of its header (under user-mode emulation /proc/cpuinfo is the building machine's).
// Our own detection repeats it; cpuinfo may know more of a CPU than an old kernel does, never less.
TEST(PosixFeatures, AreWhatTheSystemSays) {
  const unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
  uint32_t expected = 0;
  if ((first & HWCAP_ASIMD) != 0) expected |= ACORN_CPU_NEON;
  if ((first & HWCAP_ASIMDDP) != 0) expected |= ACORN_CPU_NEONDOT;
  if ((first & HWCAP_ASIMDDP) != 0 && (second & HWCAP2_I8MM) != 0) expected |= ACORN_CPU_I8MM;
  EXPECT_NE(expected & ACORN_CPU_NEON, 0u);
#if defined(ACORN_OWN_FEATURES)
  EXPECT_EQ(acorn_posix_cpu_features(), expected);
#else
  EXPECT_EQ(acorn_posix_cpu_features() & expected, expected);
#endif
}
#else
TEST(PosixFeatures, OtherMachinesHavePortableKernelsAlone) { EXPECT_EQ(acorn_posix_cpu_features(), 0u); }
#endif

TEST(PosixFiles, MappedAndCopiedAreTheSame) {
  const test::TempFolder folder;
  std::string content(100000, 'x');
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 7);
  const std::string path = folder.Write("file", content);
  for (const uint32_t residency : {ACORN_POSIX_MAP, ACORN_POSIX_MAP_POPULATED, ACORN_POSIX_COPY}) {
    acorn_posix_file file;
    ASSERT_EQ(acorn_posix_open_file(&file, path.c_str(), residency), 0);
    ASSERT_EQ(file.bytes, content.size());
    EXPECT_EQ(std::memcmp(file.data, content.data(), content.size()), 0);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(file.data) % 4096, 0u);
    acorn_posix_close_file(&file);
    EXPECT_EQ(file.bytes, 0u);
  }
}

TEST(PosixFiles, FaultsAreErrnoValues) {
  const test::TempFolder folder;
  acorn_posix_file file;
  EXPECT_EQ(acorn_posix_open_file(&file, (folder.path() + "/none").c_str(), ACORN_POSIX_MAP), ENOENT);
  EXPECT_EQ(acorn_posix_open_file(&file, folder.path().c_str(), ACORN_POSIX_MAP), EISDIR);
  EXPECT_EQ(acorn_posix_open_file(&file, folder.Write("empty", "").c_str(), ACORN_POSIX_MAP), 0);
  EXPECT_EQ(file.bytes, 0u);
  acorn_posix_close_file(&file);
}

TEST(PosixFiles, AFifoIsRefusedAndNotWaitedFor) {
  const test::TempFolder folder;
  const std::string path = folder.File("fifo");
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  acorn_posix_file file;
  EXPECT_EQ(acorn_posix_open_file(&file, path.c_str(), ACORN_POSIX_MAP), EINVAL);
}

TEST(PosixMemory, ForReadsItBeginsWhereALargePageMayAndIsGivenBackWhole) {
  for (const size_t bytes : {size_t{1}, size_t{4096}, size_t{2} << 20, (size_t{5} << 20) + 100}) {
    for (int repeat = 0; repeat < 100; ++repeat) {
      auto *memory = static_cast<char *>(acorn_posix_allocate_for_reads(bytes));
      ASSERT_NE(memory, nullptr);
#if defined(__linux__)
      EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % (size_t{2} << 20), 0u);
#endif
      memory[0] = memory[bytes - 1] = 1;
      acorn_posix_release(memory, bytes);
    }
  }
  EXPECT_EQ(acorn_posix_allocate_for_reads(0), nullptr);
  EXPECT_EQ(acorn_posix_allocate_for_reads(SIZE_MAX), nullptr);
}

TEST(PosixMemory, PeakIsKnown) {
#if defined(__linux__)
  const uint64_t before = acorn_posix_peak_rss_bytes();
  EXPECT_GT(before, 0u);
  constexpr size_t kBytes = size_t{64} << 20;
  void *memory = acorn_posix_allocate(kBytes);
  ASSERT_NE(memory, nullptr);
  std::memset(memory, 1, kBytes);
  EXPECT_GE(acorn_posix_peak_rss_bytes(), before + kBytes / 2);
  acorn_posix_release(memory, kBytes);
#endif
}

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__  // others refuse every model
TEST(PosixModel, ThreadsDoNotChangeALogit) {
  for (const test::ModelSpec &spec : test::VariedSpecs()) {
    const test::AlignedBytes file = test::BuildModel(spec);
    test::Random random(11);
    std::vector<int32_t> tokens(30);
    for (int32_t &token : tokens) token = static_cast<int32_t>(random.Between(0, spec.vocab_size - 1));
    test::ModelSession plain(file);
    const std::vector<int32_t> expected = plain.Score(tokens);
    ASSERT_EQ(plain.status(), ACORN_OK) << spec.name;
    for (const uint32_t threads : {1u, 2u, 3u}) {
      const Pool pool(threads);
      test::ModelSession session(file, {}, &pool.port());
      EXPECT_EQ(session.Score(tokens), expected) << spec.name << ", " << threads << " threads";
    }
  }
}
#endif

}  // namespace
}  // namespace acorn
