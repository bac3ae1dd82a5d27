#include "memory_trend.h"

#include <unistd.h>

#include <cstdio>
#include <cstring>

namespace acorn::soak {
namespace {

constexpr size_t kSamples = size_t{1} << 16;

}  // namespace

uint64_t ResidentBytes() {
  std::FILE *file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr) return 0;
  unsigned long long all = 0, resident = 0;
  const int read = std::fscanf(file, "%llu %llu", &all, &resident);
  std::fclose(file);
  return read == 2 ? resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)) : 0;
}

__attribute__((no_sanitize_address)) void TouchMappedFiles() {
  std::FILE *maps = std::fopen("/proc/self/maps", "r");
  if (maps == nullptr) return;
  char line[4608];
  [[maybe_unused]] volatile uint8_t touched = 0;
  while (std::fgets(line, sizeof line, maps) != nullptr) {
    unsigned long begin = 0, end = 0;
    char permissions[5] = {};
    if (std::sscanf(line, "%lx-%lx %4s", &begin, &end, permissions) != 3 || std::strchr(line, '/') == nullptr) continue;
    if (permissions[0] != 'r' || permissions[1] == 'w') continue;
    for (unsigned long at = begin; at < end; at += 4096) touched = *reinterpret_cast<const volatile uint8_t *>(at);
  }
  std::fclose(maps);
}

MemoryTrend::MemoryTrend() : samples_(kSamples, Sample{1, 1}) {}

void MemoryTrend::Add(uint64_t turn, uint64_t bytes) {
  if (++skipped_ < stride_) return;
  skipped_ = 0;
  if (count_ == samples_.size()) {
    count_ /= 2;
    stride_ *= 2;
    for (size_t i = 0; i < count_; ++i) samples_[i] = samples_[2 * i];
  }
  samples_[count_++] = {turn, bytes};
}

double MemoryTrend::Slope() const {
  const size_t begin = count_ / 4;
  const auto n = static_cast<double>(count_ - begin);
  if (n < 2) return 0;
  double turns = 0, bytes = 0;
  for (size_t i = begin; i < count_; ++i) {
    turns += static_cast<double>(samples_[i].turn) / n;
    bytes += static_cast<double>(samples_[i].bytes) / n;
  }
  double products = 0, squares = 0;
  for (size_t i = begin; i < count_; ++i) {
    const double turn = static_cast<double>(samples_[i].turn) - turns;
    products += turn * (static_cast<double>(samples_[i].bytes) - bytes);
    squares += turn * turn;
  }
  return squares == 0 ? 0 : products / squares;
}

double MemoryTrend::Rise() const {
  return count_ == 0 ? 0 : Slope() * static_cast<double>(samples_[count_ - 1].turn - samples_[count_ / 4].turn);
}

bool MemoryTrend::Grows() const { return count_ >= kFewestSamples && Slope() > kMostBytesATurn && Rise() > kNoiseBytes; }

}  // namespace acorn::soak
