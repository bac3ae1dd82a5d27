/* acorn_device: how long a storage device takes to read, as integers. Pure: no clock, no memory of its own, no system. For the
 * simulated port, and for whoever predicts how fast a model streams.
 *
 * Reads are served in the order in which they come. At most `depth` are inside the device; a further one begins when the oldest
 * leaves. Inside, reads overlap for latency_ns (finding the pages), then pass the one link to memory after each other: each holds
 * it for overhead_ns and for its bytes. So one small read alone takes latency + overhead + transfer, many at once are bound by
 * 1 / (overhead + transfer), and large ones by bytes_per_second: the three figures that data sheets give. */
#ifndef ACORN_DEVICE_H_
#define ACORN_DEVICE_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ACORN_DEVICE_DEPTH_MAX 64u

typedef struct acorn_device_timing {
  uint64_t latency_ns;       /* at most 2^40 */
  uint64_t overhead_ns;      /* at most 2^40 */
  uint64_t bytes_per_second; /* at least 1000 */
  uint32_t depth;            /* 1 to ACORN_DEVICE_DEPTH_MAX */
} acorn_device_timing;

typedef struct acorn_device_preset {
  const char *name;        /* for command lines: emmc51, ufs22, ... */
  const char *description; /* for people */
  acorn_device_timing timing;
} acorn_device_preset;

/* The presets, slowest first. Returns how many. */
size_t acorn_device_presets(const acorn_device_preset **presets);
/* Returns: NULL if no preset has the name. */
const acorn_device_preset *acorn_device_find(const char *name);

/* The state of a device between reads. */
typedef struct acorn_device {
  acorn_device_timing timing;
  uint64_t finishes[ACORN_DEVICE_DEPTH_MAX]; /* of the last `depth` reads, a ring */
  uint64_t reads;                            /* so far */
  uint64_t link_free;                        /* when the link is free again */
} acorn_device;

typedef struct acorn_device_times {
  uint64_t start;  /* when the device begins the read */
  uint64_t finish; /* when its last byte is in memory */
} acorn_device_times;

/* Returns: 0, or 1 if a value is out of its range. */
int acorn_device_init(acorn_device *device, const acorn_device_timing *timing);
/* Serves one more read, which comes at now_ns. In: bytes at most 2^40. */
acorn_device_times acorn_device_read(acorn_device *device, uint64_t now_ns, uint64_t bytes);

#ifdef __cplusplus
}
#endif

#endif /* ACORN_DEVICE_H_ */
