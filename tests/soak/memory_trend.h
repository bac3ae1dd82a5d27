// MemoryTrend: the process's resident memory over a long run, and whether it grows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace acorn::soak {

/// Resident bytes of this process now; 0 where the system does not say.
uint64_t ResidentBytes();
/// Brings in all that is mapped of files, programs included: code that runs late comes in by 64 KiB, which is no growth.
void TouchMappedFiles();

/// All memory of it is taken at the beginning, so that it does not grow itself.
class MemoryTrend {
 public:
  MemoryTrend();

  /// One sample; when there is no room, every second one goes.
  void Add(uint64_t turn, uint64_t bytes);

  uint64_t first() const { return count_ == 0 ? 0 : samples_[count_ / 4].bytes; }
  uint64_t last() const { return count_ == 0 ? 0 : samples_[count_ - 1].bytes; }
  size_t samples() const { return count_; }
  /// Bytes a turn by least squares, without the first quarter of the samples: pages come in as they are first touched.
  double Slope() const;
  /// What the slope comes to over those samples.
  double Rise() const;
  /// More than a page in a thousand turns and more than `kNoiseBytes` in all, over samples enough to tell.
  bool Grows() const;

  static constexpr size_t kFewestSamples = 40;
  static constexpr double kNoiseBytes = 16 * 4096;
  static constexpr double kMostBytesATurn = 4096.0 / 1000;

 private:
  struct Sample {
    uint64_t turn, bytes;
  };
  std::vector<Sample> samples_;
  size_t count_ = 0, stride_ = 1, skipped_ = 0;
};

}  // namespace acorn::soak
