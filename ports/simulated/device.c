#include <string.h>

#include "acorn_device.h"

#define SECOND_NS 1000000000u
#define TIME_MAX (UINT64_C(1) << 40)
#define RATE_MIN 1000u /* 2^40 bytes at it are 2^60 ns */

/* overhead_ns is what the random reads per second of 4 KiB at full depth leave beside the transfer; latency_ns what one read at
 * a time leaves beside both. Sources: eMMC 5.1, UFS 2.1 (2.2 adds a faster way to write and reads alike) and UFS 3.1: Samsung's
 * table of its embedded storage (2015 to 2020); UFS 4.0: Samsung 2022, random reads as measured in PowerInfer-2 (450 MB/s of
 * 4 KiB); NVMe: Samsung 970 EVO Plus 1 TB, data sheet; SD: the least that class A1 (SD specification 5.1) allows, on a UHS-I bus.
 * The makers of eMMC and UFS give no time of a single read: 80 to 100 us are a read of TLC flash and its command. */
static const acorn_device_preset presets[] = {
    /* 1,500 reads/s, one at a time */
    {"sd", "SD card, class A1 (90 MB/s)", {621000, 0, 90000000, 1}},
    /* 11,000 reads/s */
    {"emmc51", "eMMC 5.1 (250 MB/s)", {100000, 74500, 250000000, 32}},
    /* 58,000 reads/s */
    {"ufs22", "UFS 2.2 (1,000 MB/s)", {100000, 13150, 1000000000, 32}},
    /* 100,000 reads/s */
    {"ufs31", "UFS 3.1 (2,100 MB/s)", {90000, 8050, 2100000000, 32}},
    /* 110,000 reads/s */
    {"ufs40", "UFS 4.0 (4,200 MB/s)", {80000, 8120, 4200000000, 32}},
    /* 600,000 reads/s, 19,000 one at a time */
    {"nvme", "NVMe, PCIe 3.0 x4 (3,500 MB/s)", {50960, 500, 3500000000, 64}},
};

size_t acorn_device_presets(const acorn_device_preset **out) {
  *out = presets;
  return sizeof presets / sizeof presets[0];
}

const acorn_device_preset *acorn_device_find(const char *name) {
  for (size_t i = 0; i < sizeof presets / sizeof presets[0]; ++i) {
    if (strcmp(presets[i].name, name) == 0) return &presets[i];
  }
  return NULL;
}

int acorn_device_init(acorn_device *device, const acorn_device_timing *timing) {
  memset(device, 0, sizeof *device);
  device->timing = *timing;
  return timing->latency_ns > TIME_MAX || timing->overhead_ns > TIME_MAX || timing->bytes_per_second < RATE_MIN ||
         timing->depth == 0 || timing->depth > ACORN_DEVICE_DEPTH_MAX;
}

static uint64_t later(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* Rounded up: bytes are never early. Whole seconds apart, so that the product stays below 2^64 for every rate up to 16 GB/s;
 * above, the rate in units of 16 is exact enough (a part in 10^8). */
static uint64_t transfer_ns(uint64_t bytes, uint64_t bytes_per_second) {
  while (bytes_per_second >> 34 != 0) {
    bytes_per_second = (bytes_per_second + 8) / 16;
    bytes = (bytes + 15) / 16;
  }
  const uint64_t rest = bytes % bytes_per_second;
  return bytes / bytes_per_second * SECOND_NS + (rest * SECOND_NS + bytes_per_second - 1) / bytes_per_second;
}

acorn_device_times acorn_device_read(acorn_device *device, uint64_t now_ns, uint64_t bytes) {
  const acorn_device_timing *timing = &device->timing;
  uint64_t *oldest = &device->finishes[device->reads % timing->depth];
  acorn_device_times times;
  times.start = later(now_ns, *oldest); /* 0 while the device has not been full */
  times.finish = later(times.start + timing->latency_ns, device->link_free) + timing->overhead_ns +
                 transfer_ns(bytes, timing->bytes_per_second);
  device->link_free = *oldest = times.finish;
  ++device->reads;
  return times;
}
