// How long a storage device takes to answer: enough of it to say when reads land, and no more. For `acorn replay`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>

namespace acorn::program {

/// A read takes the latency, then its bytes follow at the device's rate, one read's after the other's. Up to `depth` reads wait
/// out their latencies together.
struct StorageModel {
  std::string name;
  double latency_us;
  double mb_per_s;  // 10^6 bytes
  uint32_t depth;   // at least 1
};

/// The device of a name, or of figures as LATENCY_US:MB_PER_S:DEPTH.  Throws Failure that tells the names.
StorageModel FindStorage(const std::string &text);

/// A device at work. Reads are served in the order in which they are asked for.
class Storage {
 public:
  explicit Storage(const StorageModel &model) : model_(model) {}

  /// When the bytes of a read issued at `now_us` are there; never before those of the read before it.
  double Read(double now_us, uint64_t bytes);
  /// From when on it has nothing to do.
  double idle_us() const { return landed_us_.empty() ? 0 : landed_us_.back(); }

 private:
  const StorageModel model_;
  std::deque<double> landed_us_;  // of the last `depth` reads
};

}  // namespace acorn::program
