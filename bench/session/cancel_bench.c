/* How long a call goes on after a request to cancel: from acorn_session_cancel on another thread to the return of the call, many
   times, at random moments of a prefill and of a generation. A call that was cancelled is gone on with, so that the moments are those
   of all of its chunks. With a device and a cache, experts stream as from that storage, and moments are those of waits too.
     acorn_bench_cancel FILE [CANCELS [TOKENS [THREADS [DEVICE CACHE_MIB]]]]     defaults: 2000 2048 2; devices: sd, emmc51, ufs22, … */
#define _POSIX_C_SOURCE 200809L  // clock_nanosleep

#include <acorn.h>
#include <acorn_posix.h>
#include <acorn_simulated.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/median.h"

enum { kDefaultCancels = 2000, kDefaultTokens = 2048, kDefaultThreads = 2, kMostCancels = 100000, kPauseNs = 40000000, kMostNs = 300000000 };

static acorn_session *session;

static void Check(acorn_status status) {
  if (status == ACORN_OK) return;
  fprintf(stderr, "acorn_bench_cancel: %s\n", acorn_status_text(status));
  exit(1);
}

static uint64_t Load(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }
static void Store(uint64_t *word, uint64_t value) { __atomic_store_n(word, value, __ATOMIC_SEQ_CST); }

static void SleepUntil(void *ctx, uint64_t ticks) {
  (void)ctx;
  const struct timespec at = {(time_t)(ticks / 1000000000), (long)(ticks % 1000000000)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) != 0) continue;
}

static uint64_t Random(uint64_t below) { /* xorshift64 */
  static uint64_t state = 88172645463325252u;
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return state % below;
}

/* The thread that cancels: at the time that is asked for, once for each. */
static uint64_t cancel_at, cancelled_at; /* 0: nothing is asked for; not done yet */
static uint64_t ready, over;

static void *Cancel(void *unused) {
  (void)unused;
  /* Under a real-time policy the threads that compute leave the others no core. */
  struct sched_param param;
  int policy;
  if (pthread_getschedparam(pthread_self(), &policy, &param) == 0 && policy == SCHED_FIFO) {
    ++param.sched_priority;
    (void)pthread_setschedparam(pthread_self(), policy, &param);
  }
  Store(&ready, 1);
  while (!Load(&over)) {
    const uint64_t at = Load(&cancel_at);
    if (at == 0) {
      SleepUntil(NULL, acorn_posix_ticks() + 20000);
      continue;
    }
    SleepUntil(NULL, at);
    Store(&cancel_at, 0);
    const uint64_t now = acorn_posix_ticks();
    acorn_session_cancel(session);
    Store(&cancelled_at, now);
  }
  return NULL;
}

/* One more piece of the work, which begins anew where it has come to its end. Returns the status of the call. */
typedef acorn_status (*Piece)(const int32_t *tokens, size_t count);

static acorn_status Prefill(const int32_t *tokens, size_t count) {
  if (acorn_session_position(session) == count) acorn_session_reset(session);
  const size_t done = acorn_session_position(session);
  return acorn_session_prefill(session, tokens + done, count - done);
}

static acorn_status Generate(const int32_t *tokens, size_t count) {
  const int32_t *logits;
  acorn_generation generation = {.struct_size = sizeof generation, .sampling = {.struct_size = sizeof generation.sampling}};
  if (acorn_session_position(session) == count || acorn_session_logits(session, &logits) != ACORN_OK) {
    acorn_session_reset(session);
    const acorn_status status = acorn_session_prefill(session, tokens, 64);
    if (status != ACORN_OK) return status;
  }
  generation.max_tokens = (uint32_t)(count - acorn_session_position(session));
  return acorn_session_generate(session, NULL, NULL, &generation);
}

static void Measure(const char *name, Piece piece, const int32_t *tokens, size_t count, int cancels, uint64_t most_ns) {
  static double us[kMostCancels];
  for (int got = 0; got < cancels;) {
    SleepUntil(NULL, acorn_posix_ticks() + kPauseNs); /* Linux stops a real-time process that takes all of a second */
    Store(&cancelled_at, 0);
    Store(&cancel_at, acorn_posix_ticks() + 1 + Random(most_ns));
    acorn_status status;
    do status = piece(tokens, count);
    while (status == ACORN_OK && Load(&cancelled_at) == 0);
    const uint64_t returned = acorn_posix_ticks();
    while (Load(&cancelled_at) == 0) continue; /* between the request and its time */
    if (status == ACORN_ERR_CANCELLED) {
      us[got++] = (double)(returned - Load(&cancelled_at)) / 1e3;
    } else {
      Check(status);
      acorn_session_reset(session); /* it came too late for the last call */
    }
  }
  const double median = Median(us, cancels);
  printf("%-9s %6d cancels  p50 %7.3f ms  p99 %7.3f ms  p99.9 %7.3f ms  max %7.3f ms\n", name, cancels, median / 1e3,
         us[(size_t)cancels * 99 / 100] / 1e3, us[(size_t)cancels * 999 / 1000] / 1e3, us[cancels - 1] / 1e3);
}

int main(int argc, char **argv) {
  const int cancels = argc > 2 ? atoi(argv[2]) : kDefaultCancels, count = argc > 3 ? atoi(argv[3]) : kDefaultTokens;
  const int threads = argc > 4 ? atoi(argv[4]) : kDefaultThreads;
  const uint64_t cache = argc > 6 ? (uint64_t)atoi(argv[6]) << 20 : 0;
  acorn_posix *posix = acorn_posix_create((uint32_t)threads);
  acorn_posix_file file, start;
  if (argc < 2 || argc == 6 || cancels < 1 || cancels > kMostCancels || count < 65 || threads < 1 || posix == NULL ||
      (argc > 6 && (cache == 0 || acorn_device_find(argv[5]) == NULL)) ||
      acorn_posix_open_part(&start, argv[1], ACORN_POSIX_COPY, ACORN_HEADER_BYTES) != 0) {
    fprintf(stderr, "usage: acorn_bench_cancel FILE [CANCELS [TOKENS [THREADS [DEVICE CACHE_MIB]]]]\n");
    return 2;
  }
  acorn_port port;
  uint64_t resident = UINT64_MAX;
  acorn_posix_port(posix, &port, 0);
  acorn_simulated *storage = NULL;
  if (cache != 0) {
    Check(acorn_image_resident(&resident, start.data, start.bytes));
    if (acorn_posix_set_file(posix, argv[1]) != 0) return 1;
    acorn_posix_port(posix, &port, 0);
    acorn_simulated_options device = {.struct_size = sizeof device, .timing = acorn_device_find(argv[5])->timing, .sleep_until = SleepUntil};
    storage = acorn_simulated_create(&device, &port);
    if (storage == NULL) return 1;
    acorn_simulated_port(storage, &port);
  }
  if (acorn_posix_open_part(&file, argv[1], ACORN_POSIX_MAP, resident) != 0) return 1;
  const acorn_image image = {file.data, file.bytes};
  acorn_options options = {.struct_size = sizeof options, .context_tokens = (uint32_t)count, .expert_cache_bytes = cache};
  acorn_memory_plan plan = {.struct_size = sizeof plan};
  Check(acorn_plan(&plan, NULL, &image, &options, &port));
  void *block = acorn_posix_allocate_for_reads(plan.block_bytes);
  acorn_model *model;
  Check(block == NULL ? ACORN_ERR_MEMORY : acorn_model_open(&model, NULL, &image, &options, &port, block, plan.block_bytes));
  Check(acorn_session_open(&session, model));
  int32_t *tokens = malloc((size_t)count * sizeof *tokens);
  if (tokens == NULL) return 1;
  for (int i = 0; i < count; ++i) tokens[i] = 7 + i * 31 % 200;

  const uint64_t begin = acorn_posix_ticks();
  Check(acorn_session_prefill(session, tokens, (size_t)count));
  const uint64_t chunk_ns = (acorn_posix_ticks() - begin) / ((uint64_t)count / plan.chunk_tokens + 1);
  printf("%d tokens, chunks of %u: %.1f ms each, %u threads\n", count, plan.chunk_tokens, (double)chunk_ns / 1e6, plan.threads);
  pthread_t other;
  if (pthread_create(&other, NULL, Cancel, NULL) != 0) return 1;
  while (!Load(&ready)) SleepUntil(NULL, acorn_posix_ticks() + 1000000);
  Measure("prefill", Prefill, tokens, (size_t)count, cancels, 3 * chunk_ns < kMostNs ? 3 * chunk_ns : kMostNs);
  Measure("generate", Generate, tokens, (size_t)count, cancels, chunk_ns < kMostNs ? chunk_ns : kMostNs);
  Store(&over, 1);
  pthread_join(other, NULL);
  if (storage != NULL) acorn_simulated_destroy(storage);
  acorn_posix_destroy(posix);
  return 0;
}
