// acorn_port: what the library asks of the machine it runs on. A port fills in one struct; it touches nothing else.
// C99. Every callback takes ctx first; each may be NULL and then: log is silent, ticks count nothing, parallel_for runs on the
// caller's thread, cpu_features 0 means portable scalar kernels, and without read the caller brings the model file to memory.
#ifndef ACORN_PORT_H_
#define ACORN_PORT_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// CPU feature bits. Each means that the CPU and the operating system allow all of:
#define ACORN_CPU_AVX2 (1u << 0)       /* AVX2, FMA, F16C, BMI */
#define ACORN_CPU_AVXVNNI (1u << 1)    /* AVX-VNNI */
#define ACORN_CPU_AVX512VNNI (1u << 2) /* AVX-512 F, BW, DQ, VL, CD and VNNI */
#define ACORN_CPU_GFNI (1u << 3)       /* GFNI beside AVX-512 */
#define ACORN_CPU_NEON (1u << 8)       /* Advanced SIMD */
#define ACORN_CPU_NEONDOT (1u << 9)    /* sdot, udot */
#define ACORN_CPU_I8MM (1u << 10)      /* smmla, usdot */

/// One task of a parallel loop. thread in [0, port.threads): no two tasks run under the same number at the same time.
typedef void (*acorn_task)(void *arg, uint32_t task, uint32_t thread);

typedef struct acorn_port {
  uint32_t struct_size; /* sizeof(acorn_port) of the caller */
  uint32_t cpu_features;
  uint32_t threads; /* largest number of tasks of parallel_for that run at once; 0 means 1 */
  uint32_t reserved;
  void *ctx;
  /// Receives a finished message of `bytes` bytes, without a newline; level 0 error, 1 warning, 2 information.
  void (*log)(void *ctx, uint32_t level, const char *message, size_t bytes);
  /// A monotonic clock of ticks_per_second.
  uint64_t (*ticks)(void *ctx);
  uint64_t ticks_per_second;
  /// Runs task(arg, i, thread) for i in [0, count), returns when all are done. Called by one thread at a time for a model.
  void (*parallel_for)(void *ctx, acorn_task task, void *arg, uint32_t count);
  /// Reads `bytes` bytes of the model file from `offset` on to `to`, which may have any alignment, and returns when they are there.
  /// Returns 0; anything else if not all of them could be had, as past the end. For acorn_image_read.
  int (*read)(void *ctx, void *to, uint64_t offset, size_t bytes);
} acorn_port;

#ifdef __cplusplus
}
#endif

#endif  // ACORN_PORT_H_
