// Raw reads of a file, as fio does them: size, depth, order; bytes per second and latencies of the port's asynchronous reads
// beside a loop of plain pread with O_DIRECT. With --device the port reads at the pace of another machine's storage.
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <memory>
#include <string>
#include <vector>

#if defined(__linux__)
#include <sys/prctl.h>
#endif

#include "acorn_posix.h"
#include "acorn_simulated.h"

namespace acorn {
namespace {

constexpr char kUsage[] =
    "usage: acorn_bench_read FILE [OPTIONS]\n"
    "  --size BYTES     of a read (default 256K)\n"
    "  --depth N        reads under way at once (default 8, at most 64)\n"
    "  --gap-us N       go through memory for so long before reads are submitted, as one who computes between them does: the kernel's\n"
    "                   code and data are no longer in the processor's nearest caches then (default 0)\n"
    "  --order NAME     random or sequential (default random)\n"
    "  --bytes BYTES    read in each round (default 256M)\n"
    "  --rounds N       of all methods in turn; the median is reported (default 5)\n"
    "  --method NAME    io_uring, threads, pread or all (default all)\n"
    "  --buffered       through the page cache, which is emptied of the file before each round\n"
    "  --small-pages    into memory of small pages, which is slower\n"
    "  --device NAME    at the pace of sd, emmc51, ufs22, ufs31, ufs40 or nvme, held back in real time\n"
    "  --make BYTES     writes FILE first, with bytes that do not compress\n"
    "  --seed N         of the offsets (default 1)\n"
    "  --json           one line of JSON for each method\n";

[[noreturn]] void Die(int code, const std::string &message) {
  std::fprintf(stderr, "acorn_bench_read: %s\n", message.c_str());
  std::exit(code);
}
constexpr int kUsageError = 2, kIoError = 5;
constexpr size_t kPlaceAlignment = 16384;  // as slots are
constexpr size_t kLargePage = 2 << 20;
constexpr size_t kSweptBytes = 8 << 20;  // beyond a core's own caches, as the weights of a small model's token are

struct Options {
  std::string file, order = "random", method = "all", device;
  uint64_t size = 256 << 10, depth = 8, bytes = 256 << 20, rounds = 5, make = 0, seed = 1, gap_us = 0;
  bool buffered = false, small_pages = false, json = false;
};

uint64_t ParseNumber(const char *name, const char *text, uint64_t low, uint64_t high) {
  char *end = nullptr;
  errno = 0;
  uint64_t value = std::strtoull(text, &end, 10);
  if (end != text && *end != 0 && end[1] == 0) {
    static constexpr char kUnits[] = "KMG";
    const char *unit = std::strchr(kUnits, *end);
    if (unit != nullptr && value < uint64_t{1} << 32) {
      value <<= 10 * (unit - kUnits + 1);
      ++end;
    }
  }
  if (errno != 0 || end == text || *end != 0 || value < low || value > high) {
    Die(kUsageError, std::string(name) + " wants a number from " + std::to_string(low) + " to " + std::to_string(high) +
                         ", not " + text);
  }
  return value;
}

Options Parse(int argc, char **argv) {
  Options options;
  const struct {
    const char *name;
    uint64_t *value, low, high;
  } numbers[] = {{"--size", &options.size, 512, uint64_t{1} << 30},
                 {"--depth", &options.depth, 1, ACORN_POSIX_READ_DEPTH_MAX},
                 {"--bytes", &options.bytes, 1, UINT64_MAX},
                 {"--rounds", &options.rounds, 1, 1000},
                 {"--gap-us", &options.gap_us, 0, 1000000},
                 {"--make", &options.make, 1, uint64_t{1} << 40},
                 {"--seed", &options.seed, 0, UINT64_MAX}};
  const struct {
    const char *name;
    std::string *value;
  } texts[] = {{"--order", &options.order}, {"--method", &options.method}, {"--device", &options.device}};
  const struct {
    const char *name;
    bool *value;
  } flags[] = {{"--buffered", &options.buffered}, {"--small-pages", &options.small_pages}, {"--json", &options.json}};
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--help" || name == "-h") {
      std::fputs(kUsage, stdout);
      std::exit(0);
    }
    bool known = false;
    for (const auto &flag : flags) {
      if (name == flag.name) *flag.value = known = true;
    }
    const auto next = [&]() -> const char * {
      if (i + 1 == argc) Die(kUsageError, name + " wants a value");
      known = true;
      return argv[++i];
    };
    for (const auto &number : numbers) {
      if (name == number.name) *number.value = ParseNumber(number.name, next(), number.low, number.high);
    }
    for (const auto &text : texts) {
      if (name == text.name) *text.value = next();
    }
    if (!known && name.compare(0, 1, "-") != 0 && options.file.empty()) {
      options.file = name;
      known = true;
    }
    if (!known) Die(kUsageError, "unknown argument " + name);
  }
  if (options.file.empty()) Die(kUsageError, std::string("no file\n") + kUsage);
  if (options.order != "random" && options.order != "sequential") {
    Die(kUsageError, "--order is random or sequential, not " + options.order);
  }
  if (options.method != "all" && options.method != "io_uring" && options.method != "threads" && options.method != "pread") {
    Die(kUsageError, "--method is io_uring, threads, pread or all, not " + options.method);
  }
  if (!options.device.empty() && acorn_device_find(options.device.c_str()) == nullptr) {
    Die(kUsageError, "--device is sd, emmc51, ufs22, ufs31, ufs40 or nvme, not " + options.device);
  }
  return options;
}

// SplitMix64.
uint64_t NextRandom(uint64_t *state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

void MakeFile(const std::string &path, uint64_t bytes) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) Die(kIoError, path + ": " + std::strerror(errno));
  std::vector<uint64_t> block(1 << 17);
  uint64_t state = bytes;
  for (uint64_t done = 0; done < bytes;) {
    for (uint64_t &word : block) word = NextRandom(&state);
    const ssize_t wrote = write(fd, block.data(), std::min<uint64_t>(block.size() * 8, bytes - done));
    if (wrote <= 0) Die(kIoError, path + ": " + std::strerror(errno));
    done += static_cast<uint64_t>(wrote);
  }
  if (fsync(fd) != 0 || close(fd) != 0) Die(kIoError, path + ": " + std::strerror(errno));
}

// What is read: the same for every method of a round.
struct Work {
  std::vector<uint64_t> offsets;
  size_t size;
};

Work MakeWork(const Options &options, uint64_t file_bytes, uint64_t round) {
  const uint64_t places = file_bytes / options.size;
  if (places == 0) Die(kUsageError, options.file + " has " + std::to_string(file_bytes) + " bytes, less than one read of --size");
  Work work{std::vector<uint64_t>(std::max<uint64_t>(options.bytes / options.size, 1)), options.size};
  uint64_t state = options.seed + round * 1000003, at = NextRandom(&state) % places;
  for (uint64_t &offset : work.offsets) {
    offset = at * options.size;
    at = options.order == "random" ? NextRandom(&state) % places : (at + 1) % places;
  }
  return work;
}

struct Round {
  double bytes_per_s = 0;
  std::vector<uint64_t> latencies_ns;
};

void SleepUntil(void *, uint64_t ticks) {
  const timespec until = {static_cast<time_t>(ticks / 1000000000), static_cast<long>(ticks % 1000000000)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
  }
}

// A way to read: the port's, or one after the other.
class Method {
 public:
  Method(const Options &options, const std::string &name) : options_(options), name_(name) {
    posix_ = acorn_posix_create(1);
    if (posix_ == nullptr) Die(kIoError, "no memory");
    acorn_posix_read_options reads = {};
    reads.struct_size = sizeof reads;
    reads.depth = static_cast<uint32_t>(options.depth);
    reads.buffered = options.buffered;
    if (name == "io_uring") reads.method = ACORN_POSIX_READS_URING;
    if (name == "threads") reads.method = ACORN_POSIX_READS_THREADS;
    int error = acorn_posix_set_read_options(posix_, &reads);
    available_ = error != ENOSYS;
    if (!available_) return;
    if (error == 0) error = acorn_posix_set_file(posix_, options.file.c_str());
    if (error != 0) Die(kIoError, options.file + ": " + std::strerror(error));
    acorn_posix_port(posix_, &port_, 1);
    if (!options.device.empty()) Throttle();
    info_.struct_size = sizeof info_;
    (void)acorn_posix_get_read_info(posix_, &info_);
    if (options.size % port_.read_alignment != 0) {
      Die(kUsageError, "--size must be a multiple of " + std::to_string(port_.read_alignment) + " for reads of " + options.file);
    }
    place_bytes_ = (options.size + kPlaceAlignment - 1) / kPlaceAlignment * kPlaceAlignment;
    memory_bytes_ = (place_bytes_ * options.depth + kLargePage - 1) / kLargePage * kLargePage;  // as a block has more than these
    memory_ = static_cast<char *>(options.small_pages ? acorn_posix_allocate(memory_bytes_)
                                                      : acorn_posix_allocate_for_reads(memory_bytes_));
    if (memory_ == nullptr) Die(kIoError, "no memory");
    std::memset(memory_, 0, memory_bytes_);
    fd_ = open(options.file.c_str(), O_RDONLY | O_CLOEXEC | (info_.direct ? O_DIRECT : 0));
    if (fd_ < 0) Die(kIoError, options.file + ": " + std::strerror(errno));
  }
  ~Method() {
    acorn_simulated_destroy(simulated_);
    acorn_posix_destroy(posix_);
    acorn_posix_release(memory_, memory_bytes_);
    if (fd_ >= 0) close(fd_);
  }
  Method(const Method &) = delete;
  Method &operator=(const Method &) = delete;

  bool available() const { return available_; }
  const std::string &name() const { return name_; }
  bool direct() const { return info_.direct != 0; }
  std::vector<Round> &rounds() { return rounds_; }

  void Run(const Work &work) {
    if (!info_.direct) (void)posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED);
    Round round;
    round.latencies_ns.reserve(work.offsets.size());
    const uint64_t begin = acorn_posix_ticks();
    if (name_ == "pread") {
      ReadOneByOne(work, &round);
    } else {
      ReadTogether(work, &round);
    }
    const double seconds = static_cast<double>(acorn_posix_ticks() - begin) / 1e9;
    round.bytes_per_s = static_cast<double>(work.size) * static_cast<double>(work.offsets.size()) / seconds;
    rounds_.push_back(std::move(round));
  }

 private:
  void Throttle() {
    acorn_simulated_options options = {};
    options.struct_size = sizeof options;
    options.timing = acorn_device_find(options_.device.c_str())->timing;
    options.depth = static_cast<uint32_t>(options_.depth);
    options.sleep_until = SleepUntil;
    simulated_ = acorn_simulated_create(&options, &port_);
    if (simulated_ == nullptr) Die(kIoError, "no memory");
    acorn_simulated_port(simulated_, &port_);
  }

  [[noreturn]] void Fail(uint64_t offset, const std::string &what) const {
    Die(kIoError, options_.file + ", offset " + std::to_string(offset) + ", " + name_ + ": " + what);
  }

  void ReadOneByOne(const Work &work, Round *round) {
    for (const uint64_t offset : work.offsets) {
      Idle();
      const uint64_t begin = acorn_posix_ticks();
      if (simulated_ != nullptr) {
        if (port_.read(port_.ctx, memory_, offset, work.size) != 0) Fail(offset, "read failed");
      } else if (pread(fd_, memory_, work.size, static_cast<off_t>(offset)) != static_cast<ssize_t>(work.size)) {
        Fail(offset, "pread failed");
      }
      round->latencies_ns.push_back(acorn_posix_ticks() - begin);
    }
  }

  // A step of the sweep takes a few microseconds.
  void Idle() {
    if (options_.gap_us == 0) return;
    if (swept_.empty()) swept_.resize(kSweptBytes / sizeof swept_[0], 1);
    constexpr size_t kStep = 64 * 1024 / sizeof(uint64_t), kLine = 64 / sizeof(uint64_t);
    for (const uint64_t until = acorn_posix_ticks() + options_.gap_us * 1000; acorn_posix_ticks() < until;) {
      for (size_t i = 0; i < kStep; i += kLine) sum_ = sum_ + swept_[sweep_at_ + i];
      sweep_at_ = (sweep_at_ + kStep) % swept_.size();
    }
  }

  // The id of a read is its place in the memory.
  void ReadTogether(const Work &work, Round *round) {
    std::vector<uint64_t> began(options_.depth), free;
    for (uint64_t i = options_.depth; i-- > 0;) free.push_back(i);
    size_t submitted = 0;
    while (submitted < work.offsets.size() || free.size() < options_.depth) {
      std::vector<acorn_read_request> requests;
      Idle();
      while (!free.empty() && submitted < work.offsets.size()) {
        const uint64_t id = free.back();
        free.pop_back();
        requests.push_back({memory_ + id * place_bytes_, work.offsets[submitted++], work.size, id});
        began[id] = acorn_posix_ticks();
      }
      size_t accepted = 0;
      if (port_.read_submit(port_.ctx, requests.data(), requests.size(), &accepted) != 0 || accepted != requests.size()) {
        Fail(requests.empty() ? 0 : requests[0].offset, "read_submit failed");
      }
      acorn_read_result results[ACORN_POSIX_READ_DEPTH_MAX];
      size_t count = 0;
      if (port_.read_wait(port_.ctx, results, std::size(results), UINT64_MAX, &count) != 0) Fail(0, "read_wait failed");
      const uint64_t now = acorn_posix_ticks();
      for (size_t i = 0; i < count; ++i) {
        if (results[i].error != 0) Fail(0, std::strerror(results[i].error));
        if (results[i].bytes != work.size) Fail(0, "a short read");
        round->latencies_ns.push_back(now - began[results[i].id]);
        free.push_back(results[i].id);
      }
    }
  }

  const Options &options_;
  std::string name_;
  acorn_posix *posix_ = nullptr;
  acorn_simulated *simulated_ = nullptr;
  acorn_port port_ = {};
  acorn_posix_read_info info_ = {};
  char *memory_ = nullptr;  // [depth, place_bytes_]
  size_t place_bytes_ = 0, memory_bytes_ = 0;
  std::vector<Round> rounds_;
  std::vector<uint64_t> swept_;
  size_t sweep_at_ = 0;
  volatile uint64_t sum_ = 0;  // computed, whoever wants it
  int fd_ = -1;
  bool available_ = false;
};

// Median of the rounds, and latencies of all of them together.
void Report(const Options &options, Method *method) {
  std::vector<double> speeds;
  std::vector<uint64_t> latencies;
  for (const Round &round : method->rounds()) {
    speeds.push_back(round.bytes_per_s / 1e6);
    latencies.insert(latencies.end(), round.latencies_ns.begin(), round.latencies_ns.end());
  }
  std::sort(speeds.begin(), speeds.end());
  std::sort(latencies.begin(), latencies.end());
  const double speed = speeds[speeds.size() / 2];
  const double median_us = static_cast<double>(latencies[latencies.size() / 2]) / 1e3;
  const double mean_us = std::accumulate(latencies.begin(), latencies.end(), 0.0) / static_cast<double>(latencies.size()) / 1e3;
  const double p99_us = static_cast<double>(latencies[latencies.size() * 99 / 100]) / 1e3;
  const uint64_t depth = method->name() == "pread" ? 1 : options.depth;
  const auto whole = [](uint64_t value) { return static_cast<unsigned long long>(value); };
  const double reads = speed * 1e6 / static_cast<double>(options.size);
  if (!options.json) {
    std::printf("%-9s %-8s %3llu deep %8.1f MB/s (%.1f to %.1f) %8.0f reads/s  mean %8.1f us  median %8.1f us  p99 %8.1f us\n",
                method->name().c_str(), method->direct() ? "direct" : "buffered", whole(depth), speed, speeds.front(),
                speeds.back(), reads, mean_us, median_us, p99_us);
    return;
  }
  std::printf("{\"method\":\"%s\",\"device\":\"%s\",\"direct\":%s,\"small_pages\":%s,\"order\":\"%s\",", method->name().c_str(),
              options.device.c_str(), method->direct() ? "true" : "false", options.small_pages ? "true" : "false",
              options.order.c_str());
  std::printf("\"size_bytes\":%llu,\"depth\":%llu,\"rounds\":%llu,", whole(options.size), whole(depth), whole(options.rounds));
  std::printf("\"mb_per_s\":%.1f,\"mb_per_s_min\":%.1f,\"mb_per_s_max\":%.1f,\"reads_per_s\":%.0f,", speed, speeds.front(),
              speeds.back(), reads);
  std::printf("\"mean_us\":%.1f,\"median_us\":%.1f,\"p99_us\":%.1f}\n", mean_us, median_us, p99_us);
}

int Main(int argc, char **argv) {
  const Options options = Parse(argc, argv);
#if defined(__linux__)
  (void)prctl(PR_SET_TIMERSLACK, 1);  // 50 us are much beside a read
#endif
  if (options.make != 0) MakeFile(options.file, options.make);
  struct stat status;
  if (stat(options.file.c_str(), &status) != 0) Die(kIoError, options.file + ": " + std::strerror(errno));
  std::vector<std::unique_ptr<Method>> methods;
  for (const char *name : {"io_uring", "threads", "pread"}) {
    if (options.method != "all" && options.method != name) continue;
    auto method = std::make_unique<Method>(options, name);
    if (method->available()) {
      methods.push_back(std::move(method));
    } else if (options.method == "all") {
      std::fprintf(stderr, "acorn_bench_read: no io_uring in this build or kernel\n");
    } else {
      Die(kIoError, "no io_uring in this build or kernel");
    }
  }
  for (uint64_t round = 0; round < options.rounds; ++round) {
    const Work work = MakeWork(options, static_cast<uint64_t>(status.st_size), round);
    for (const auto &method : methods) method->Run(work);
  }
  for (const auto &method : methods) Report(options, method.get());
  return 0;
}

}  // namespace
}  // namespace acorn

int main(int argc, char **argv) { return acorn::Main(argc, argv); }
