// acorn_port: what the library asks of the machine it runs on. A port fills in one struct; it touches nothing else.
// C99. Every callback takes ctx first; each may be NULL and then: log is silent, ticks count nothing, parallel_for runs on the
// caller's thread, cpu_features 0 means portable scalar kernels, without read the caller brings the model file to memory, and
// without read_submit reads are made with read, one after the other.
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

/// A read of the model file that runs beside the caller. `to`, `offset` and `bytes` are multiples of port.read_alignment; bytes is
/// not 0. From read_submit on until its result is handed out, the memory at `to` is the port's.
typedef struct acorn_read_request {
  void *to;
  uint64_t offset;
  size_t bytes;
  uint64_t id; /* of the caller's choice; no two reads under way may have the same */
} acorn_read_request;

#define ACORN_READ_CANCELLED (-1) /* read_cancel came before the bytes did */

/// How a read ended.
typedef struct acorn_read_result {
  uint64_t id;
  size_t bytes;  /* that are at `to`, from its start on. Fewer than asked for with error 0 (a short read): the file ends there. */
  int32_t error; /* 0; ACORN_READ_CANCELLED; else a fault of the storage, a number of the port's (errno). Then bytes is 0. */
} acorn_read_result;

typedef struct acorn_port {
  uint32_t struct_size; /* sizeof(acorn_port) of the caller */
  uint32_t cpu_features;
  uint32_t threads; /* largest number of tasks of parallel_for that run at once, at most 256; 0 means 1 */
  uint32_t reserved;
  void *ctx;
  /// Receives a finished message of `bytes` bytes, without a newline; level 0 error, 1 warning, 2 information.
  void (*log)(void *ctx, uint32_t level, const char *message, size_t bytes);
  /// A monotonic clock of ticks_per_second. Called by one thread at a time, from inside a task too.
  uint64_t (*ticks)(void *ctx);
  uint64_t ticks_per_second;
  /// Runs task(arg, i, thread) for i in [0, count), returns when all are done. Called by one thread at a time for a model.
  void (*parallel_for)(void *ctx, acorn_task task, void *arg, uint32_t count);
  /// Reads `bytes` bytes of the model file from `offset` on to `to`, which may have any alignment, and returns when they are there.
  /// Returns 0; anything else if not all of them could be had, as past the end. For acorn_image_read.
  int (*read)(void *ctx, void *to, uint64_t offset, size_t bytes);

  /// Reads that run while the caller computes. read_submit and read_wait go together; read_cancel may be NULL beside them. Called
  /// by one thread at a time, the one that runs the model, never from inside a task.
  uint32_t read_depth;     /* reads that may be under way at once; 0 where there is no read_submit */
  uint32_t read_alignment; /* of memory, offset and length: a power of two, at most 16384; 0 means 1 */
  /// Starts reads, the first of them first. Returns at once, whatever the storage does.
  /// Returns: 0; anything else if the port cannot read at all. Either way the first *accepted requests are under way: fewer than
  ///          count where read_depth are reached, and the caller comes again after read_wait
  int (*read_submit)(void *ctx, const acorn_read_request *requests, size_t count, size_t *accepted);
  /// Waits until a read has ended, or for timeout_ticks: 0 only looks, UINT64_MAX waits as long as it takes. Each submitted read
  /// ends exactly once, in any order. A read on which the storage stalls does not end; the caller's timeout is the deadline.
  /// Returns: 0, and in results[*count], *count <= capacity, reads that have ended; 0 of them after the timeout, or at once if no
  ///          read is under way. Anything else if the port can read no more; *count is valid then too
  int (*read_wait)(void *ctx, acorn_read_result *results, size_t capacity, uint64_t timeout_ticks, size_t *count);
  /// Asks for the end of a read; returns at once. The result comes all the same, from the next read_wait on if the storage has not
  /// begun the read (with ACORN_READ_CANCELLED); one that it has begun may come as if nothing had been, when the storage answers.
  /// Returns: 0; anything else if no such read is under way
  int (*read_cancel)(void *ctx, uint64_t id);
} acorn_port;

#ifdef __cplusplus
}
#endif

#endif  // ACORN_PORT_H_
