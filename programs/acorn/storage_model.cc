#include "storage_model.h"

#include <algorithm>
#include <cstdlib>

#include "error.h"

namespace acorn::program {
namespace {

/// Random reads of some hundred KiB. Rates are what the interface's fastest mode is known to give, latencies what devices in
/// use show; a device of one's own is measured, and given by its figures.
const StorageModel kStorages[] = {
    {"sd", 670, 90, 1},         // SD card of class A1: 1,500 random reads a second; UHS-I gives about 90 MB/s
    {"emmc51", 200, 280, 16},   // eMMC 5.1, HS400: 400 MB/s on the bus, devices read 250 to 300
    {"ufs22", 130, 1000, 32},   // UFS 2.2, two lanes of gear 3
    {"ufs31", 100, 2000, 32},   // UFS 3.1, two lanes of gear 4: 2.9 GB/s on the bus, devices read about 2
    {"ufs40", 80, 4000, 32},    // UFS 4.0, two lanes of gear 5: about 4 GB/s
    {"nvme", 80, 3500, 64},     // PCIe 3.0 x4
};

/// A number of the text that ends with `end`; moves behind it.
bool TakeNumber(const char **text, char end, double *value) {
  char *stop = nullptr;
  *value = std::strtod(*text, &stop);
  if (stop == *text || *stop != end || !(*value >= 0) || *value > 1e9) return false;
  *text = stop + (end == 0 ? 0 : 1);
  return true;
}

}  // namespace

StorageModel FindStorage(const std::string &text) {
  std::string names;
  for (const StorageModel &storage : kStorages) {
    if (storage.name == text) return storage;
    names += storage.name + ", ";
  }
  const char *at = text.c_str();
  double latency_us, mb_per_s, depth;
  if (TakeNumber(&at, ':', &latency_us) && TakeNumber(&at, ':', &mb_per_s) && TakeNumber(&at, 0, &depth) && mb_per_s > 0 &&
      depth >= 1 && depth <= 1024) {
    return {text, latency_us, mb_per_s, static_cast<uint32_t>(depth)};
  }
  Fail(ExitCode::kUsage, "--device %s: %sor LATENCY_US:MB_PER_S:DEPTH is wanted", text.c_str(), names.c_str());
}

double Storage::Read(double now_us, uint64_t bytes) {
  double begin_us = now_us;
  if (landed_us_.size() == model_.depth) {
    begin_us = std::max(begin_us, landed_us_.front());
    landed_us_.pop_front();
  }
  const double first_us = std::max(begin_us + model_.latency_us, idle_us());
  landed_us_.push_back(first_us + static_cast<double>(bytes) / model_.mb_per_s);
  return landed_us_.back();
}

}  // namespace acorn::program
