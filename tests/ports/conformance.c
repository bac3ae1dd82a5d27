#include "conformance.h"

#define LINE_BYTES 160u
#define LOOP_TASKS_MAX 1000u
#define LOOP_THREADS_MAX 256u
#define CLOCK_READS 10000000u   /* a clock that has not moved after so many reads stands still */
#define TICKS_PER_SECOND_MIN 100u
#define TICKS_PER_SECOND_MAX 100000000000u
#define READS_MAX 16u
#define READ_UNIT_MIN 512u
#define TOKENS 6u
#define DECODED 2u

struct feature {
  uint32_t bit, implies;
  const char *name;
};
static const struct feature features[] = {
    {ACORN_CPU_AVX2, 0, "avx2"},
    {ACORN_CPU_AVXVNNI, ACORN_CPU_AVX2, "avxvnni"},
    {ACORN_CPU_AVX512VNNI, ACORN_CPU_AVX2, "avx512vnni"},
    {ACORN_CPU_GFNI, ACORN_CPU_AVX512VNNI, "gfni"},
    {ACORN_CPU_NEON, 0, "neon"},
    {ACORN_CPU_NEONDOT, ACORN_CPU_NEON, "neondot"},
    {ACORN_CPU_I8MM, ACORN_CPU_NEONDOT, "i8mm"},
};
#define FEATURES (sizeof features / sizeof features[0])

struct run {
  const acorn_port *port;
  const acorn_image *image;
  uint8_t *block;
  size_t block_bytes;
  uint32_t failures;
};

static size_t append(char *line, size_t used, const char *text) {
  for (; *text != 0 && used < LINE_BYTES; ++text) line[used++] = *text;
  return used;
}

/* problem NULL: the check has passed. */
static void tell(struct run *run, const char *check, const char *detail, const char *problem) {
  char line[LINE_BYTES];
  size_t used = append(line, 0, "conformance: ");
  used = append(line, used, check);
  used = append(line, used, detail);
  used = append(line, used, problem == NULL ? ": ok" : ": FAILED: ");
  if (problem != NULL) {
    used = append(line, used, problem);
    ++run->failures;
  }
  if (run->port->log != NULL) run->port->log(run->port->ctx, problem == NULL ? 2 : 0, line, used);
}

static const char *check_fields(const acorn_port *port) {
  uint32_t known = 0;
  for (size_t i = 0; i < FEATURES; ++i) {
    known |= features[i].bit;
    if ((port->cpu_features & features[i].bit) != 0 && (port->cpu_features & features[i].implies) != features[i].implies) {
      return "a CPU feature without one that it implies";
    }
  }
  if ((port->cpu_features & ~known) != 0) return "an unknown CPU feature";
  if (port->reserved != 0) return "reserved is not 0";
  if (port->threads > 1 && port->parallel_for == NULL) return "several threads and no parallel_for";
  if (port->threads > LOOP_THREADS_MAX) return "more threads than this program can count";
  if ((port->ticks == NULL) != (port->ticks_per_second == 0)) return "ticks and ticks_per_second do not go together";
  if ((port->read_submit == NULL) != (port->read_wait == NULL) || (port->read_submit == NULL) != (port->read_depth == 0) ||
      (port->read_cancel != NULL && port->read_submit == NULL)) {
    return "read_submit, read_wait and read_depth do not go together";
  }
  if (port->read_alignment > 16384 || (port->read_alignment & (port->read_alignment - 1)) != 0) {
    return "read_alignment is not a power of two up to 16384";
  }
  return NULL;
}

/* Lengths that are no multiple of anything, at odd addresses, with no zero behind. That it comes back is all that can be seen
 * from here. */
static void try_log(const acorn_port *port) {
  static const size_t lengths[] = {0, 1, 2, 3, 7, 63, 129, 255};
  static const char done[] = "conformance: log: came back from 0 to 255 bytes; whether they are whole is for the eye";
  char text[258];
  for (size_t i = 0; i < sizeof text; ++i) text[i] = '#';
  for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; ++i) {
    for (size_t j = 0; j < lengths[i]; ++j) text[1 + j] = (char)('a' + j % 26);
    port->log(port->ctx, 2, text + 1, lengths[i]);
    for (size_t j = 0; j < lengths[i]; ++j) text[1 + j] = '#';
  }
  port->log(port->ctx, 2, done, sizeof done - 1);
}

static const char *check_clock(const acorn_port *port) {
  if (port->ticks_per_second < TICKS_PER_SECOND_MIN || port->ticks_per_second > TICKS_PER_SECOND_MAX) {
    return "ticks_per_second is not plausible";
  }
  const uint64_t first = port->ticks(port->ctx);
  uint64_t last = first;
  for (uint32_t i = 0; i < CLOCK_READS; ++i) {
    const uint64_t now = port->ticks(port->ctx);
    if (now < last) return "the clock went back";
    last = now;
    if (last != first && i >= 1000) return NULL;
  }
  return "the clock stands still";
}

/* A loop's tasks share nothing but what the port promises to keep apart: a cell for each task, and a flag for each thread number,
 * which two tasks under one number would both find or leave wrong. */
struct cell {
  uint32_t runs, in, out;
};
struct loop {
  struct cell cells[LOOP_TASKS_MAX];
  volatile uint32_t busy[LOOP_THREADS_MAX];
  volatile uint32_t overlaps[LOOP_THREADS_MAX];
  volatile uint32_t foreign; /* a number of a task or thread out of range */
  uint32_t count, threads;
};

static uint32_t mixed(uint32_t value) { return (value ^ value >> 15) * 0x2c1b3c6du + 1; }

static void loop_task(void *arg, uint32_t task, uint32_t thread) {
  struct loop *loop = arg;
  if (task >= loop->count || thread >= loop->threads) {
    loop->foreign = 1;
    return;
  }
  if (loop->busy[thread] != 0) loop->overlaps[thread] = 1;
  loop->busy[thread] = task + 1;
  struct cell *cell = &loop->cells[task];
  ++cell->runs;
  uint32_t value = cell->in;
  for (uint32_t i = 0; i < 64 + task % 64; ++i) value = mixed(value); /* long enough for another task to come in between */
  cell->out = value;
  if (loop->busy[thread] != task + 1) loop->overlaps[thread] = 1;
  loop->busy[thread] = 0;
}

static const char *run_loop(const acorn_port *port, struct loop *loop, uint32_t count, uint32_t seed) {
  loop->count = count;
  loop->threads = port->threads == 0 ? 1 : port->threads;
  loop->foreign = 0;
  for (uint32_t i = 0; i < LOOP_THREADS_MAX; ++i) loop->busy[i] = loop->overlaps[i] = 0;
  for (uint32_t i = 0; i < LOOP_TASKS_MAX; ++i) loop->cells[i] = (struct cell){0, mixed(seed + i), 0};
  port->parallel_for(port->ctx, loop_task, loop, count);
  if (loop->foreign != 0) return "a task or thread number out of range";
  for (uint32_t i = 0; i < LOOP_TASKS_MAX; ++i) {
    uint32_t value = mixed(seed + i);
    for (uint32_t j = 0; j < 64 + i % 64; ++j) value = mixed(value);
    if (loop->cells[i].runs != (i < count)) return "a task did not run exactly once before the return";
    if (i < count && loop->cells[i].out != value) return "what a task read or wrote is not what the caller wrote or reads";
  }
  for (uint32_t i = 0; i < loop->threads; ++i) {
    if (loop->overlaps[i] != 0) return "two tasks at once under one thread number";
  }
  return NULL;
}

static const char *check_loops(const struct run *run) {
  const acorn_port *port = run->port;
  const uint32_t threads = port->threads == 0 ? 1 : port->threads;
  const uint32_t counts[] = {0, 1, 2, threads - 1, threads, threads + 1, 3 * threads, 97, LOOP_TASKS_MAX};
  for (uint32_t repeat = 0; repeat < 5; ++repeat) {
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; ++i) {
      const char *problem = run_loop(port, (struct loop *)(void *)run->block, counts[i], repeat * 1000 + (uint32_t)i);
      if (problem != NULL) return problem;
    }
  }
  return NULL;
}

/* Reads to an odd address, and compares with the image and with the guards around. */
static const char *read_range(const struct run *run, uint64_t offset, size_t bytes) {
  const uint8_t *wanted = (const uint8_t *)run->image->data + offset;
  uint8_t *got = run->block + 1;
  for (size_t i = 0; i < bytes + 2; ++i) run->block[i] = 0xa5;
  if (run->port->read(run->port->ctx, got, offset, bytes) != 0) return "a read inside the file fails";
  for (size_t i = 0; i < bytes; ++i) {
    if (got[i] != wanted[i]) return "a read gives other bytes than the image has";
  }
  return run->block[0] == 0xa5 && got[bytes] == 0xa5 ? NULL : "a read writes beyond its bytes";
}

static const char *check_read(const struct run *run) {
  static const struct {
    uint64_t offset;
    size_t bytes;
  } ranges[] = {{0, 1}, {1, 1}, {3, 7}, {63, 65}, {511, 513}, {4095, 4099}, {16381, 20011}, {0, 64}, {64, 0}};
  const uint64_t end = run->image->bytes;
  const char *problem = NULL;
  for (size_t i = 0; i < sizeof ranges / sizeof ranges[0] && problem == NULL; ++i) {
    if (ranges[i].offset + ranges[i].bytes <= end) problem = read_range(run, ranges[i].offset, ranges[i].bytes);
  }
  if (problem == NULL) problem = read_range(run, end - 13, 13);
  if (problem == NULL) problem = read_range(run, end - 1, 1);
  if (problem != NULL) return problem;
  const acorn_port *port = run->port;
  if (port->read(port->ctx, run->block, end, 1) == 0 || port->read(port->ctx, run->block, end - 3, 7) == 0 ||
      port->read(port->ctx, run->block, end + 1000, 1) == 0 || port->read(port->ctx, run->block, UINT64_MAX - 1, 1) == 0) {
    return "a read past the end succeeds";
  }
  return NULL;
}

/* Reads of one unit each, every one to a place of its own; some reach beyond the end of the file, some lie there. */
struct reads {
  acorn_read_request requests[READS_MAX];
  uint32_t ended[READS_MAX];
  size_t count;
};

static void make_reads(const struct run *run, struct reads *reads, size_t seed) {
  const size_t alignment = run->port->read_alignment == 0 ? 1 : run->port->read_alignment;
  const size_t unit = alignment < READ_UNIT_MIN ? READ_UNIT_MIN : alignment;
  const size_t skipped = (alignment - (size_t)((uintptr_t)run->block % alignment)) % alignment;
  const size_t units = run->image->bytes / unit + 2; /* with the last, which is short, and one beyond */
  reads->count = (ACORN_CONFORMANCE_BYTES - skipped) / unit;
  if (reads->count > READS_MAX) reads->count = READS_MAX;
  for (size_t i = 0; i < ACORN_CONFORMANCE_BYTES; ++i) run->block[i] = 0xa5;
  for (size_t i = 0; i < reads->count; ++i) {
    const size_t from_the_end = (i * 5 + seed) % units;
    reads->requests[i] =
        (acorn_read_request){run->block + skipped + i * unit, (units - 1 - from_the_end) * unit, unit, 1000 * seed + i};
    reads->ended[i] = 0;
  }
}

static const char *check_result(const struct run *run, struct reads *reads, const acorn_read_result *result, int cancelled) {
  size_t i = 0;
  while (i < reads->count && reads->requests[i].id != result->id) ++i;
  if (i == reads->count || reads->ended[i]++ != 0) return "a read ends that was not under way";
  if (cancelled && result->error == ACORN_READ_CANCELLED) return NULL;
  if (result->error != 0) return "an asynchronous read inside the rules fails";
  const acorn_read_request *request = &reads->requests[i];
  const uint64_t end = run->image->bytes;
  const uint64_t there = request->offset >= end ? 0 : end - request->offset;
  if (result->bytes != (there < request->bytes ? there : request->bytes)) {
    return "an asynchronous read has another length than the file";
  }
  const uint8_t *wanted = (const uint8_t *)run->image->data + request->offset, *got = request->to;
  for (size_t j = 0; j < result->bytes; ++j) {
    if (got[j] != wanted[j]) return "an asynchronous read gives other bytes than the image has";
  }
  return NULL;
}

static const char *check_idle(const acorn_port *port) {
  acorn_read_result result;
  size_t count = 1;
  if (port->read_wait(port->ctx, &result, 1, 0, &count) != 0 || count != 0) return "a look without reads finds one";
  count = 1;
  if (port->read_wait(port->ctx, &result, 1, UINT64_MAX, &count) != 0 || count != 0) return "a wait without reads finds one";
  if (port->read_cancel != NULL && port->read_cancel(port->ctx, 7) == 0) return "a read is cancelled that is not there";
  return NULL;
}

static const char *run_reads(const struct run *run, struct reads *reads, int cancel) {
  const acorn_port *port = run->port;
  for (size_t submitted = 0, ended = 0; ended < reads->count;) {
    size_t accepted = reads->count;
    if (port->read_submit(port->ctx, reads->requests + submitted, reads->count - submitted, &accepted) != 0) {
      return "read_submit fails";
    }
    const size_t room = port->read_depth - (submitted - ended), left = reads->count - submitted;
    if (accepted != (room < left ? room : left)) return "read_submit takes more or fewer than fill read_depth";
    submitted += accepted;
    for (size_t i = 0; cancel && i < submitted; ++i) {
      if (reads->ended[i] == 0 && port->read_cancel(port->ctx, reads->requests[i].id) != 0) return "a read under way is unknown";
    }
    acorn_read_result results[3];
    size_t count = 0;
    if (port->read_wait(port->ctx, results, 3, UINT64_MAX, &count) != 0 || count == 0 || count > 3) return "read_wait fails";
    for (size_t i = 0; i < count; ++i) {
      const char *problem = check_result(run, reads, &results[i], cancel);
      if (problem != NULL) return problem;
    }
    ended += count;
  }
  return NULL;
}

static const char *check_reads(const struct run *run) {
  const char *problem = check_idle(run->port);
  for (size_t seed = 1; seed <= 6 && problem == NULL; ++seed) {
    struct reads reads;
    make_reads(run, &reads, seed);
    problem = run_reads(run, &reads, seed % 3 == 0 && run->port->read_cancel != NULL);
    if (problem == NULL) problem = check_idle(run->port);
  }
  return problem;
}

struct logits_digest {
  uint64_t hash;
};

static int add_logits(void *ctx, size_t row, const int32_t *logits, size_t vocab_size) {
  struct logits_digest *digest = ctx;
  (void)row;
  for (size_t i = 0; i < vocab_size; ++i) digest->hash = (digest->hash ^ (uint32_t)logits[i]) * 0x100000001b3u;
  return 0;
}

/* The digest of all logits of a few tokens, of several chunks and single steps. Returns an error's text, or NULL. */
static const char *compute(const struct run *run, const acorn_port *port, uint32_t mask, uint64_t *digest) {
  acorn_options options = {.struct_size = sizeof options, .context_tokens = ACORN_CONFORMANCE_CONTEXT,
                           .chunk_tokens = ACORN_CONFORMANCE_CHUNK, .cpu_features = mask};
  options.flags = mask == 0 ? ACORN_OPEN_SCALAR : 0;
  acorn_memory_plan plan = {.struct_size = sizeof plan};
  acorn_status status = acorn_plan(&plan, NULL, run->image, &options, port);
  if (status == ACORN_OK && plan.block_bytes > run->block_bytes) return "the block is too small for the model";
  acorn_model *model;
  acorn_session *session;
  acorn_model_info info = {.struct_size = sizeof info};
  if (status == ACORN_OK) status = acorn_model_open(&model, NULL, run->image, &options, port, run->block, run->block_bytes);
  if (status == ACORN_OK) status = acorn_model_get_info(model, &info);
  if (status == ACORN_OK) status = acorn_session_open(&session, model);
  if (status != ACORN_OK) return "the model cannot be opened";
  int32_t tokens[TOKENS + DECODED];
  for (uint32_t i = 0; i < TOKENS + DECODED; ++i) tokens[i] = (int32_t)((mixed(i + 1) >> 4) % info.vocab_size);
  struct logits_digest all = {0xcbf29ce484222325u};
  status = acorn_session_score(session, tokens, TOKENS, add_logits, &all);
  for (uint32_t i = 0; i < DECODED && status == ACORN_OK; ++i) {
    const int32_t *logits;
    status = acorn_session_decode(session, &logits, tokens[TOKENS + i]);
    if (status == ACORN_OK) (void)add_logits(&all, 0, logits, info.vocab_size);
  }
  *digest = all.hash;
  return status == ACORN_OK ? NULL : "the model cannot be run";
}

/* Each level adds a feature to those before it. */
static void check_features(struct run *run) {
  acorn_port alone = *run->port;
  alone.parallel_for = NULL;
  alone.threads = 1;
  alone.log = NULL;
  acorn_port port = *run->port;
  port.log = NULL;
  uint64_t expected = 0, digest = 0;
  const char *problem = compute(run, &alone, 0, &expected);
  tell(run, "model, ", "portable kernels, one thread", problem);
  if (problem != NULL) return;
  problem = compute(run, &port, 0, &digest);
  if (problem == NULL && digest != expected) problem = "other logits";
  tell(run, "model, ", "portable kernels", problem);
  uint32_t mask = 0;
  for (size_t i = 0; i < FEATURES; ++i) {
    if ((run->port->cpu_features & features[i].bit) == 0) continue;
    mask |= features[i].bit;
    problem = compute(run, &port, mask, &digest);
    if (problem == NULL && digest != expected) problem = "other logits";
    tell(run, "model, up to ", features[i].name, problem);
  }
}

uint32_t acorn_port_conformance(const acorn_port *port, const acorn_image *image, void *block, size_t block_bytes) {
  struct run run = {port, image, block, block_bytes, 0};
  if (port->struct_size != sizeof *port) return 1; /* nothing behind it means what it says */
  const char *problem = check_fields(port);
  tell(&run, "fields", "", problem);
  if (problem != NULL) return run.failures;
  if (block_bytes < ACORN_CONFORMANCE_BYTES || image->bytes < 64) {
    tell(&run, "block and model", "", "smaller than the checks need");
    return run.failures;
  }
  if (port->log != NULL) try_log(port);
  if (port->ticks != NULL) tell(&run, "ticks", "", check_clock(port));
  if (port->read != NULL) tell(&run, "read", "", check_read(&run));
  if (port->read_submit != NULL) tell(&run, "read_submit", "", check_reads(&run));
  if (port->parallel_for != NULL) {
    problem = check_loops(&run);
    tell(&run, "parallel_for", "", problem);
  }
  /* A loop that breaks its word could make the library write anywhere. */
  if (problem == NULL) check_features(&run);
  return run.failures;
}
