/* Reads by io_uring: one system call for all that are submitted together, none to look. */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>

#include "reads.h"

/* How long a wait only looks before it sleeps: a sleep and its end cost about 50 us on the machines measured, as much as half a read
 * of 100 KB from a fast disk (bench/results, "Experts from storage"). */
#define LOOK_NS 150000u

/* Completions wait until the caller's thread enters the kernel, and a flag in memory says so: on a thread that computes or looks
 * they would cost an interrupt from the other core, some 10 us a read of 100 KB. Before Linux 5.19 there is no such flag. */
static int open_ring(unsigned entries, struct io_uring *ring) {
#if defined(IORING_SETUP_TASKRUN_FLAG)
  const int error = -io_uring_queue_init(entries, ring, IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG);
  if (error != EINVAL) return error;
#endif
  return -io_uring_queue_init(entries, ring, 0);
}

struct state {
  struct io_uring ring;
  acorn_read_list done;
};

static int start(acorn_reads *reads) {
  struct state *state = calloc(1, sizeof *state);
  if (state == NULL) return ENOMEM;
  /* Room for each read and a cancel of each. */
  const int error = open_ring(2 * reads->depth, &state->ring);
  if (error == 0 && (state->ring.features & IORING_FEAT_EXT_ARG) != 0) {
    reads->state = state;
    return 0;
  }
  /* Before Linux 5.11 a wait with a timeout takes an entry of its own, and reads may be missing: threads do as well there. */
  if (error == 0) io_uring_queue_exit(&state->ring);
  free(state);
  return error == 0 ? ENOSYS : error;
}

static void stop(acorn_reads *reads) {
  struct state *state = reads->state;
  io_uring_queue_exit(&state->ring);
  free(state);
  reads->state = NULL;
}

/* The ring is full only where the kernel has refused to take entries, for lack of memory. */
static struct io_uring_sqe *take_entry(struct state *state) {
  struct io_uring_sqe *sqe;
  while ((sqe = io_uring_get_sqe(&state->ring)) == NULL) (void)io_uring_submit(&state->ring);
  return sqe;
}

static void push(acorn_reads *reads, acorn_read *read) {
  struct io_uring_sqe *sqe = take_entry(reads->state);
  io_uring_prep_read(sqe, reads->fd, (char *)read->request.to + read->done, (unsigned)acorn_read_step(read),
                     read->request.offset + read->done);
  io_uring_sqe_set_data(sqe, read);
}

/* What the kernel has no memory or no room for now stays in the ring and goes with the next call. */
static int only_later(int error) { return error == EAGAIN || error == EBUSY || error == EINTR || error == ETIME ? 0 : error; }

static int flush(acorn_reads *reads) {
  struct state *state = reads->state;
  const int submitted = io_uring_submit(&state->ring);
  return submitted >= 0 ? 0 : only_later(-submitted);
}

/* Enters the kernel only where it has something. */
static int has_completions(struct state *state) {
  struct io_uring_cqe *cqe;
  return io_uring_peek_cqe(&state->ring, &cqe) == 0;
}

/* Takes in what the kernel has finished. */
static int reap(acorn_reads *reads) {
  struct state *state = reads->state;
  unsigned head, seen = 0, again = 0;
  struct io_uring_cqe *cqe;
  (void)has_completions(state);
  io_uring_for_each_cqe(&state->ring, head, cqe) {
    ++seen;
    acorn_read *read = io_uring_cqe_get_data(cqe);
    if (read == NULL) continue; /* a cancel's own */
    if (acorn_read_advance(reads, read, cqe->res)) {
      acorn_read_list_add(&state->done, read);
    } else {
      push(reads, read);
      ++again;
    }
  }
  io_uring_cq_advance(&state->ring, seen);
  return again == 0 ? 0 : flush(reads);
}

static int pop(acorn_reads *reads, uint64_t deadline_ns, acorn_read **read) {
  struct state *state = reads->state;
  uint64_t now = deadline_ns == 0 ? 0 : acorn_posix_ticks();
  const uint64_t sleep_ns = now + LOOK_NS;
  for (*read = NULL;;) {
    int error = reap(reads);
    if (error != 0) return error;
    *read = acorn_read_list_take(&state->done);
    if (*read != NULL) return 0;
    if (now >= deadline_ns) return flush(reads);
    if (now < sleep_ns) {
      error = flush(reads);
      if (error != 0) return error;
      while (!has_completions(state) && now < sleep_ns && now < deadline_ns) now = acorn_posix_ticks();
      continue;
    }
    const uint64_t left = deadline_ns - now;
    struct __kernel_timespec timeout = {(int64_t)(left / 1000000000u), (long long)(left % 1000000000u)};
    struct io_uring_cqe *first;
    error = io_uring_submit_and_wait_timeout(&state->ring, &first, 1, deadline_ns == UINT64_MAX ? NULL : &timeout, NULL);
    if (error < 0 && only_later(-error) != 0) return -error;
    now = acorn_posix_ticks();
  }
}

static void cancel(acorn_reads *reads, acorn_read *read) {
  struct io_uring_sqe *sqe = take_entry(reads->state);
  io_uring_prep_cancel(sqe, read, 0);
  io_uring_sqe_set_data(sqe, NULL);
  (void)flush(reads); /* a failure shows at the next wait */
}

const acorn_read_backend acorn_read_uring = {"io_uring", start, stop, push, flush, pop, cancel};
