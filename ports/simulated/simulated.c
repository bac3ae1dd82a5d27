#include "acorn_simulated.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ALIGNMENT_DEFAULT 4096u
#define ALIGNMENT_MAX 16384u
#define SECOND_NS 1000000000u
#define NOT_YET 0xa5 /* what the memory of a read holds before its bytes are there: whoever looks too early finds other numbers */

/* A read under way, in the order of submission. */
struct entry {
  acorn_read_request request;
  uint64_t submitted, due; /* due: when it ends as things stand */
  uint64_t extra;          /* what jitter and stalls add to the device's time */
  uint32_t fault;
  uint32_t begun;     /* the device has it */
  uint32_t cancelled; /* will end with ACORN_READ_CANCELLED */
  uint32_t landed;    /* the other port has ended it, with the next two */
  int32_t error;
  size_t bytes;
};

struct acorn_simulated {
  acorn_simulated_options options;
  acorn_port inner;
  acorn_device device; /* as it is after the reads that have begun */
  uint64_t now;        /* virtual */
  uint64_t random;
  acorn_simulated_counts counts;
  acorn_simulated_fault faults[ACORN_SIMULATED_FAULTS_MAX];
  uint32_t fault_count;
  struct entry entries[]; /* [options.depth], counts.under_way of them in use */
};

/* SplitMix64. */
static uint64_t next_random(uint64_t *state) {
  uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}

static uint64_t sum(uint64_t a, uint64_t b) { return a > UINT64_MAX - b ? UINT64_MAX : a + b; }

static int is_real(const acorn_simulated *simulated) { return simulated->options.sleep_until != NULL; }

static uint64_t clock_now(const acorn_simulated *simulated) {
  return is_real(simulated) ? simulated->inner.ticks(simulated->inner.ctx) : simulated->now;
}

acorn_simulated *acorn_simulated_create(const acorn_simulated_options *options, const acorn_port *inner) {
  if (options->struct_size != sizeof *options || inner->struct_size != sizeof *inner) return NULL;
  const uint32_t inner_alignment = inner->read_alignment == 0 ? 1 : inner->read_alignment;
  const uint32_t own_alignment = options->file != NULL ? ALIGNMENT_DEFAULT : inner_alignment;
  const uint32_t alignment = options->alignment == 0 ? own_alignment : options->alignment;
  uint32_t depth = options->depth == 0 ? options->timing.depth : options->depth;
  acorn_device device;
  if (acorn_device_init(&device, &options->timing) != 0 || depth > ACORN_SIMULATED_DEPTH_MAX || alignment > ALIGNMENT_MAX ||
      (alignment & (alignment - 1)) != 0 || (options->file == NULL && (inner->read_submit == NULL || alignment < own_alignment)) ||
      (options->sleep_until != NULL && (inner->ticks == NULL || inner->ticks_per_second != SECOND_NS))) {
    return NULL;
  }
  if (options->file == NULL && depth > inner->read_depth) depth = inner->read_depth;
  acorn_simulated *simulated = calloc(1, sizeof *simulated + depth * sizeof simulated->entries[0]);
  if (simulated == NULL) return NULL;
  simulated->options = *options;
  simulated->options.depth = depth;
  simulated->options.alignment = alignment;
  simulated->inner = *inner;
  simulated->device = device;
  simulated->random = options->seed;
  return simulated;
}

int acorn_simulated_add_fault(acorn_simulated *simulated, const acorn_simulated_fault *fault) {
  if (fault->kind == 0 || fault->kind >= ACORN_SIMULATED_KINDS || simulated->fault_count == ACORN_SIMULATED_FAULTS_MAX) return 1;
  simulated->faults[simulated->fault_count++] = *fault;
  return 0;
}

void acorn_simulated_clear_faults(acorn_simulated *simulated) { simulated->fault_count = 0; }

acorn_simulated_counts acorn_simulated_get_counts(const acorn_simulated *simulated) { return simulated->counts; }

void acorn_simulated_advance(acorn_simulated *simulated, uint64_t ns) { simulated->now = sum(simulated->now, ns); }

static uint32_t choose_fault(acorn_simulated *simulated, uint64_t offset, uint64_t bytes) {
  for (uint32_t i = 0; i < simulated->fault_count; ++i) {
    acorn_simulated_fault *fault = &simulated->faults[i];
    if (fault->times == 0 || offset >= sum(fault->offset, fault->bytes) || fault->offset >= sum(offset, bytes)) continue;
    if (fault->times != UINT32_MAX) --fault->times;
    return fault->kind;
  }
  for (uint32_t kind = 1; kind < ACORN_SIMULATED_KINDS; ++kind) {
    const uint32_t chance = simulated->options.chance_q16[kind];
    if (chance != 0 && (next_random(&simulated->random) & 0xffff) < chance) return kind;
  }
  return 0;
}

/* Gives the device what it begins until now, and says of every read when it ends as things stand. */
static void schedule(acorn_simulated *simulated, uint64_t now) {
  acorn_device device = simulated->device;
  int waiting = 0; /* a read before could not begin */
  for (uint32_t i = 0; i < simulated->counts.under_way; ++i) {
    struct entry *entry = &simulated->entries[i];
    if (entry->begun || entry->cancelled) continue;
    const acorn_device_times times = acorn_device_read(&device, entry->submitted, entry->request.bytes);
    entry->due = sum(times.finish, entry->extra);
    if (times.start > now) waiting = 1;
    if (waiting) continue;
    entry->begun = 1;
    simulated->device = device;
  }
}

/* The file's bytes at a read's offset. Returns how many. */
static size_t fetch(const acorn_simulated *simulated, const acorn_read_request *request) {
  const uint64_t end = simulated->options.file_bytes;
  if (request->offset >= end) return 0;
  const size_t bytes = end - request->offset < request->bytes ? (size_t)(end - request->offset) : request->bytes;
  memcpy(request->to, (const uint8_t *)simulated->options.file + request->offset, bytes);
  return bytes;
}

static acorn_read_result finish(acorn_simulated *simulated, const struct entry *entry) {
  const acorn_read_request *request = &entry->request;
  acorn_read_result result = {request->id, entry->bytes, entry->error};
  acorn_simulated_counts *counts = &simulated->counts;
  ++counts->ended;
  if (entry->cancelled) {
    ++counts->cancelled;
    result.error = ACORN_READ_CANCELLED;
  } else if (entry->fault == ACORN_SIMULATED_ERROR) {
    result.error = ACORN_SIMULATED_EIO;
  } else if (simulated->options.file != NULL) {
    result.bytes = fetch(simulated, request);
  }
  if (result.error != 0) {
    if (result.error != ACORN_READ_CANCELLED) ++counts->failed;
    result.bytes = 0;
    return result;
  }
  if (entry->fault == ACORN_SIMULATED_SHORT) {
    result.bytes = result.bytes / 2 / simulated->options.alignment * simulated->options.alignment;
  }
  if (entry->fault == ACORN_SIMULATED_DAMAGE && result.bytes != 0) {
    const uint64_t bit = next_random(&simulated->random);
    ((uint8_t *)request->to)[(bit >> 3) % result.bytes] ^= (uint8_t)(1u << (bit & 7));
  }
  counts->bytes += result.bytes;
  return result;
}

/* Takes in what the other port has ended. Returns 0 or its failure. */
static int collect(acorn_simulated *simulated, uint64_t timeout_ticks) {
  acorn_read_result results[16];
  size_t count = 0;
  const int failed =
      simulated->inner.read_wait(simulated->inner.ctx, results, sizeof results / sizeof results[0], timeout_ticks, &count);
  for (size_t i = 0; i < count; ++i) {
    for (uint32_t j = 0; j < simulated->counts.under_way; ++j) {
      struct entry *entry = &simulated->entries[j];
      if (entry->request.id != results[i].id) continue;
      entry->landed = 1;
      entry->error = results[i].error;
      entry->bytes = results[i].bytes;
    }
  }
  return failed;
}

/* The read that ends first, by time and then by submission; NULL: none is under way. */
static struct entry *first_due(acorn_simulated *simulated) {
  struct entry *first = NULL;
  for (uint32_t i = 0; i < simulated->counts.under_way; ++i) {
    if (first == NULL || simulated->entries[i].due < first->due) first = &simulated->entries[i];
  }
  return first;
}

static void remove_entry(acorn_simulated *simulated, struct entry *entry) {
  const struct entry *end = &simulated->entries[simulated->counts.under_way--];
  memmove(entry, entry + 1, (size_t)((const char *)end - (const char *)(entry + 1)));
}

static int read_wait(void *ctx, acorn_read_result *results, size_t capacity, uint64_t timeout_ticks, size_t *count) {
  acorn_simulated *simulated = ctx;
  const uint64_t deadline = sum(clock_now(simulated), timeout_ticks);
  for (*count = 0; *count < capacity;) {
    const uint64_t now = clock_now(simulated);
    schedule(simulated, now);
    struct entry *first = first_due(simulated);
    if (first == NULL) return 0;
    int failed = simulated->options.file == NULL ? collect(simulated, 0) : 0;
    if (failed != 0) return failed;
    if (first->due <= now && first->landed) {
      results[(*count)++] = finish(simulated, first);
      remove_entry(simulated, first);
      continue;
    }
    if (*count != 0 || now >= deadline) return 0;
    if (first->due <= now) {
      /* The device would be ready, the other port is not: in virtual time it gets what it takes. */
      failed = collect(simulated, is_real(simulated) ? deadline - now : UINT64_MAX);
      if (failed != 0) return failed;
      continue;
    }
    const uint64_t until = first->due < deadline ? first->due : deadline;
    if (is_real(simulated)) {
      simulated->options.sleep_until(simulated->options.sleep_ctx, until);
    } else if (until == UINT64_MAX) {
      return EDEADLK;
    } else {
      simulated->now = until;
    }
  }
  return 0;
}

static int is_legal(const acorn_simulated *simulated, const acorn_read_request *request) {
  const uint64_t unaligned = (uintptr_t)request->to | request->offset | request->bytes;
  if (request->to == NULL || request->bytes == 0 || unaligned % simulated->options.alignment != 0) return 0;
  for (uint32_t i = 0; i < simulated->counts.under_way; ++i) {
    if (simulated->entries[i].request.id == request->id) return 0;
  }
  return 1;
}

static int read_submit(void *ctx, const acorn_read_request *requests, size_t count, size_t *accepted) {
  acorn_simulated *simulated = ctx;
  const uint64_t now = clock_now(simulated);
  schedule(simulated, now);
  for (*accepted = 0; *accepted < count && simulated->counts.under_way < simulated->options.depth; ++*accepted) {
    const acorn_read_request *request = &requests[*accepted];
    if (!is_legal(simulated, request)) return EINVAL;
    struct entry entry = {.request = *request, .submitted = now};
    if (simulated->options.file == NULL) {
      size_t taken = 0;
      const int failed = simulated->inner.read_submit(simulated->inner.ctx, request, 1, &taken);
      if (taken == 0) return failed;
    } else {
      entry.landed = 1;
      memset(request->to, NOT_YET, request->bytes);
    }
    entry.fault = choose_fault(simulated, request->offset, request->bytes);
    if (simulated->options.jitter_ns != 0) entry.extra = next_random(&simulated->random) % (sum(simulated->options.jitter_ns, 1));
    if (entry.fault >= ACORN_SIMULATED_STALL) entry.extra = sum(entry.extra, simulated->options.stall_ns);
    acorn_simulated_counts *counts = &simulated->counts;
    simulated->entries[counts->under_way++] = entry;
    ++counts->submitted;
    if (counts->under_way > counts->most_under_way) counts->most_under_way = counts->under_way;
  }
  return 0;
}

static int read_cancel(void *ctx, uint64_t id) {
  acorn_simulated *simulated = ctx;
  const uint64_t now = clock_now(simulated);
  schedule(simulated, now);
  for (uint32_t i = 0; i < simulated->counts.under_way; ++i) {
    struct entry *entry = &simulated->entries[i];
    if (entry->request.id != id) continue;
    if (!entry->begun || (entry->fault == ACORN_SIMULATED_STALL && entry->due > now)) {
      entry->cancelled = 1;
      entry->due = now;
    }
    return 0;
  }
  return ENOENT;
}

/* Alone with the device, as the caller waits for it: the reads that have not begun come behind it. */
static int read_now(void *ctx, void *to, uint64_t offset, size_t bytes) {
  acorn_simulated *simulated = ctx;
  const uint64_t now = clock_now(simulated);
  schedule(simulated, now);
  const uint32_t fault = choose_fault(simulated, offset, bytes);
  uint64_t until = acorn_device_read(&simulated->device, now, bytes).finish;
  if (fault >= ACORN_SIMULATED_STALL) until = sum(until, simulated->options.stall_ns);
  if (until == UINT64_MAX) return EDEADLK;
  if (is_real(simulated)) {
    simulated->options.sleep_until(simulated->options.sleep_ctx, until);
  } else {
    simulated->now = until;
  }
  if (fault == ACORN_SIMULATED_ERROR || fault == ACORN_SIMULATED_SHORT) return ACORN_SIMULATED_EIO;
  if (simulated->options.file == NULL) {
    const int failed = simulated->inner.read(simulated->inner.ctx, to, offset, bytes);
    if (failed != 0) return failed;
  } else {
    const uint64_t end = simulated->options.file_bytes;
    if (offset > end || bytes > end - offset) return ACORN_SIMULATED_EIO;
    memcpy(to, (const uint8_t *)simulated->options.file + offset, bytes);
  }
  if (fault == ACORN_SIMULATED_DAMAGE && bytes != 0) ((uint8_t *)to)[next_random(&simulated->random) % bytes] ^= 1;
  return 0;
}

static uint64_t ticks(void *ctx) {
  acorn_simulated *simulated = ctx;
  if (!is_real(simulated)) acorn_simulated_advance(simulated, simulated->options.tick_ns);
  return clock_now(simulated);
}

static void log_message(void *ctx, uint32_t level, const char *message, size_t bytes) {
  const acorn_simulated *simulated = ctx;
  simulated->inner.log(simulated->inner.ctx, level, message, bytes);
}

static void parallel_for(void *ctx, acorn_task task, void *arg, uint32_t count) {
  const acorn_simulated *simulated = ctx;
  simulated->inner.parallel_for(simulated->inner.ctx, task, arg, count);
}

void acorn_simulated_port(acorn_simulated *simulated, acorn_port *port) {
  const acorn_port *inner = &simulated->inner;
  *port = (acorn_port){.struct_size = sizeof *port, .cpu_features = inner->cpu_features, .threads = inner->threads};
  port->ctx = simulated;
  port->log = inner->log == NULL ? NULL : log_message;
  port->ticks = ticks;
  port->ticks_per_second = SECOND_NS;
  port->parallel_for = inner->parallel_for == NULL ? NULL : parallel_for;
  port->read = simulated->options.file == NULL && inner->read == NULL ? NULL : read_now;
  port->read_depth = simulated->options.depth;
  port->read_alignment = simulated->options.alignment;
  port->read_submit = read_submit;
  port->read_wait = read_wait;
  port->read_cancel = read_cancel;
}

void acorn_simulated_destroy(acorn_simulated *simulated) {
  if (simulated == NULL) return;
  if (simulated->options.file == NULL) {
    for (uint32_t i = 0; i < simulated->counts.under_way;) {
      if (simulated->entries[i].landed) {
        ++i;
      } else if (collect(simulated, UINT64_MAX) != 0) {
        break;
      }
    }
  }
  free(simulated);
}
