/* Reads by threads that each wait in pread: what every kernel allows. A read that no thread has begun is cancelled at once; one in
 * pread comes back when the storage answers, which no signal shortens for a disk. */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "reads.h"

#define THREADS_MAX 16u          /* more reads than these wait their turn in the queue */
#define STACK_BYTES (128u << 10) /* pread and its locals; what is not touched costs nothing */

struct state {
  pthread_mutex_t mutex; /* of all below */
  pthread_cond_t pushed, ended;
  acorn_read_list queue, done;
  int stop;
  acorn_reads *reads;
  uint32_t threads;
  pthread_t handles[THREADS_MAX];
};

static void read_all(const acorn_reads *reads, acorn_read *read) {
  int64_t got;
  do {
    got = pread(reads->fd, (char *)read->request.to + read->done, acorn_read_step(read),
                (off_t)(read->request.offset + read->done));
    if (got < 0) got = -errno;
  } while (!acorn_read_advance(reads, read, got));
}

static void *work(void *context) {
  struct state *state = context;
  pthread_mutex_lock(&state->mutex);
  for (;;) {
    acorn_read *read = acorn_read_list_take(&state->queue);
    if (read != NULL) {
      pthread_mutex_unlock(&state->mutex);
      read_all(state->reads, read);
      pthread_mutex_lock(&state->mutex);
      acorn_read_list_add(&state->done, read);
      pthread_cond_signal(&state->ended);
    } else if (state->stop) {
      break;
    } else {
      pthread_cond_wait(&state->pushed, &state->mutex);
    }
  }
  pthread_mutex_unlock(&state->mutex);
  return NULL;
}

static void stop(acorn_reads *reads) {
  struct state *state = reads->state;
  pthread_mutex_lock(&state->mutex);
  state->stop = 1;
  pthread_cond_broadcast(&state->pushed);
  pthread_mutex_unlock(&state->mutex);
  for (uint32_t i = 0; i < state->threads; ++i) pthread_join(state->handles[i], NULL);
  pthread_cond_destroy(&state->ended);
  pthread_cond_destroy(&state->pushed);
  pthread_mutex_destroy(&state->mutex);
  free(state);
  reads->state = NULL;
}

static int start(acorn_reads *reads) {
  struct state *state = calloc(1, sizeof *state);
  if (state == NULL) return ENOMEM;
  pthread_condattr_t monotonic;
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_mutex_init(&state->mutex, NULL);
  pthread_cond_init(&state->pushed, NULL);
  pthread_cond_init(&state->ended, &monotonic);
  pthread_condattr_destroy(&monotonic);
  state->reads = reads;
  reads->state = state;
  const uint32_t wanted = reads->depth < THREADS_MAX ? reads->depth : THREADS_MAX;
  pthread_attr_t small;
  pthread_attr_init(&small);
  const size_t least = (size_t)PTHREAD_STACK_MIN;
  (void)pthread_attr_setstacksize(&small, STACK_BYTES > least ? STACK_BYTES : least);
  int error = 0;
  while (error == 0 && state->threads < wanted) {
    error = pthread_create(&state->handles[state->threads], &small, work, state);
    if (error == 0) ++state->threads;
  }
  pthread_attr_destroy(&small);
  if (state->threads != 0) return 0; /* fewer than wanted will do */
  stop(reads);
  return error;
}

static void push(acorn_reads *reads, acorn_read *read) {
  struct state *state = reads->state;
  pthread_mutex_lock(&state->mutex);
  acorn_read_list_add(&state->queue, read);
  pthread_cond_signal(&state->pushed);
  pthread_mutex_unlock(&state->mutex);
}

static int flush(acorn_reads *reads) {
  (void)reads;
  return 0;
}

static int pop(acorn_reads *reads, uint64_t deadline_ns, acorn_read **read) {
  struct state *state = reads->state;
  const struct timespec until = {(time_t)(deadline_ns / 1000000000u), (long)(deadline_ns % 1000000000u)};
  pthread_mutex_lock(&state->mutex);
  int expired = deadline_ns == 0;
  while (state->done.first == NULL && !expired) {
    if (deadline_ns == UINT64_MAX) {
      pthread_cond_wait(&state->ended, &state->mutex);
    } else {
      expired = pthread_cond_timedwait(&state->ended, &state->mutex, &until) != 0;
    }
  }
  *read = acorn_read_list_take(&state->done);
  pthread_mutex_unlock(&state->mutex);
  return 0;
}

/* Off the queue if it is there still. */
static void cancel(acorn_reads *reads, acorn_read *read) {
  struct state *state = reads->state;
  pthread_mutex_lock(&state->mutex);
  acorn_read_list rest = {NULL, NULL};
  for (acorn_read *queued; (queued = acorn_read_list_take(&state->queue)) != NULL;) {
    if (queued == read) {
      read->error = ACORN_READ_CANCELLED;
      acorn_read_list_add(&state->done, read);
    } else {
      acorn_read_list_add(&rest, queued);
    }
  }
  state->queue = rest;
  pthread_mutex_unlock(&state->mutex);
}

const acorn_read_backend acorn_read_threads = {"threads", start, stop, push, flush, pop, cancel};
