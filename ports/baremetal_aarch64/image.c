/* The program of the image: opens a model in the region, answers a question, tells a story, and reports in one line of JSON for
 * each what `acorn run --json` reports on a host (the digests must be equal) and the ids. Then the model's self-test and the
 * port's conformance. */
#include "acorn.h"
#include "acorn_baremetal.h"
#include "tests/ports/conformance.h"

enum { status_failed = 1, status_model = 3, status_memory = 4 }; /* as the exit codes of the program acorn */
enum { answer_tokens = 64 };                                     /* what an answer has at most */

static const uint64_t fnv_basis = 0xcbf29ce484222325u, fnv_prime = 0x100000001b3u;

struct run {
  acorn_session *session;
  uint32_t vocab_size;
  uint32_t id_count;
  int32_t ids[answer_tokens];
  uint64_t digest, ids_digest;
};

static uint32_t fail(uint32_t status, const char *what, acorn_status why) {
  acorn_baremetal_text("acorn: error: ");
  acorn_baremetal_text(what);
  acorn_baremetal_text(": ");
  acorn_baremetal_text(acorn_status_text(why));
  acorn_baremetal_text("\n");
  return status;
}

/* FNV-1a-64 over little-endian int32 values. */
static uint64_t fnv(uint64_t hash, const int32_t *values, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    for (int shift = 0; shift < 32; shift += 8) hash = (hash ^ ((uint32_t)values[i] >> shift & 255)) * fnv_prime;
  }
  return hash;
}

static void add_logits(struct run *run) {
  const int32_t *logits;
  if (acorn_session_logits(run->session, &logits) == ACORN_OK) run->digest = fnv(run->digest, logits, run->vocab_size);
}

static int on_token(void *ctx, int32_t token, const char *text, size_t bytes) {
  struct run *run = ctx;
  if (run->id_count < answer_tokens) run->ids[run->id_count++] = token;
  run->ids_digest = fnv(run->ids_digest, &token, 1);
  add_logits(run);
  acorn_baremetal_write(text, bytes);
  return 0;
}

static void number(const char *key, uint64_t value) {
  acorn_baremetal_text(key);
  acorn_baremetal_number(value);
}

static void text(const char *key, const char *value) {
  acorn_baremetal_text(key);
  acorn_baremetal_text(value);
}

static void hex(const char *key, uint64_t value) {
  acorn_baremetal_text(key);
  acorn_baremetal_hex(value);
}

static const char *stop_name(uint32_t reason) {
  switch (reason) {
    case ACORN_STOP_LENGTH: return "length";
    case ACORN_STOP_END: return "end";
    case ACORN_STOP_STRING: return "string";
    case ACORN_STOP_CONTEXT: return "context";
    default: return "caller";
  }
}

static void report(const struct run *run, uint32_t reason, size_t tokens) {
  acorn_timings timings = {.struct_size = sizeof timings};
  if (acorn_session_timings(run->session, &timings) != ACORN_OK) return;
  number("\n{\"prompt_tokens\": ", timings.prefill_tokens);
  number(", \"tokens\": ", tokens);
  text(", \"stop\": \"", stop_name(reason));
  hex("\", \"digest\": \"", run->digest);
  hex("\", \"ids_digest\": \"", run->ids_digest);
  acorn_baremetal_text("\", \"ids\": [");
  for (uint32_t i = 0; i < run->id_count; ++i) number(i == 0 ? "" : ", ", (uint32_t)run->ids[i]);
  number("], \"prefill_ticks\": ", timings.prefill_ticks);
  number(", \"decode_ticks\": ", timings.decode_ticks);
  number(", \"ticks_per_second\": ", timings.ticks_per_second);
  acorn_baremetal_text("}\n");
}

static acorn_status answer(struct run *run, const char *prompt, uint32_t flags) {
  size_t bytes = 0, tokens = 0;
  while (prompt[bytes] != 0) ++bytes;
  acorn_baremetal_text("\n> ");
  acorn_baremetal_text(prompt);
  acorn_baremetal_text("\n");
  run->id_count = 0;
  run->digest = fnv_basis;
  run->ids_digest = fnv_basis;
  acorn_session_reset(run->session);
  acorn_status status = acorn_session_append_text(run->session, prompt, bytes, flags);
  if (status != ACORN_OK) return status;
  add_logits(run);
  acorn_generation generation = {.struct_size = sizeof generation, .max_tokens = answer_tokens, .callback = on_token, .ctx = run};
  generation.sampling.struct_size = sizeof generation.sampling;
  uint32_t reason = 0;
  status = acorn_session_generate(run->session, &reason, &tokens, &generation);
  if (status == ACORN_OK) report(run, reason, tokens);
  return status;
}

static void print_machine(const acorn_port *port, size_t region_bytes) {
  static const struct {
    uint32_t bit;
    const char *name;
  } features[] = {{ACORN_CPU_NEON, " neon"}, {ACORN_CPU_NEONDOT, " neondot"}, {ACORN_CPU_I8MM, " i8mm"}};
  number("acorn: no operating system, entered at EL", acorn_baremetal_entry_level());
  number(", cores ", port->threads);
  acorn_baremetal_text(", features");
  for (size_t i = 0; i < sizeof features / sizeof features[0]; ++i) {
    if ((port->cpu_features & features[i].bit) != 0) acorn_baremetal_text(features[i].name);
  }
  number(", region ", region_bytes);
  number(" bytes, clock ", port->ticks_per_second);
  acorn_baremetal_text(" Hz\n");
}

static void print_plan(const acorn_memory_plan *plan) {
  number("acorn: plan: {\"image_bytes\": ", plan->image_bytes);
  number(", \"model_bytes\": ", plan->model_bytes);
  number(", \"session_bytes\": ", plan->session_bytes);
  number(", \"scratch_bytes\": ", plan->scratch_bytes);
  number(", \"block_bytes\": ", plan->block_bytes);
  acorn_baremetal_text("}\n");
}

static uint32_t too_small(const char *what, uint64_t need, uint64_t have) {
  acorn_baremetal_text("acorn: error: the region is too small for ");
  acorn_baremetal_text(what);
  number(": need ", need);
  number(" bytes, have ", have);
  acorn_baremetal_text("; raise ACORN_BAREMETAL_REGION\n");
  return status_memory;
}

/* The model: linked into the image, or read into the front of the region, which shrinks by it. Returns an exit status. */
#if defined(ACORN_BAREMETAL_MODEL_LINKED)
extern const char acorn_model_begin[], acorn_model_end[];

static uint32_t find_model(acorn_image *image, acorn_port *port, char **region, size_t *region_bytes) {
  (void)port, (void)region, (void)region_bytes;
  *image = (acorn_image){acorn_model_begin, (size_t)(acorn_model_end - acorn_model_begin)};
  return 0;
}
#else
static uint32_t find_model(acorn_image *image, acorn_port *port, char **region, size_t *region_bytes) {
  char path[512];
  uint64_t need = 0;
  if (acorn_baremetal_command_line(path, sizeof path) != 0 || acorn_baremetal_open_file(port, path) != 0) {
    acorn_baremetal_text("acorn: error: no model: the emulator's semihosting command line must name one\n");
    return status_model;
  }
  const acorn_status status = acorn_image_read(image, &need, port, *region, *region_bytes);
  if (status == ACORN_ERR_MEMORY) return too_small("the model file", need, *region_bytes);
  if (status != ACORN_OK) return fail(status_model, path, status);
  const size_t used = (size_t)((need + 63) / 64 * 64);
  *region += used < *region_bytes ? used : *region_bytes;
  *region_bytes -= used < *region_bytes ? used : *region_bytes;
  return 0;
}
#endif

/* Repeats the reference run that the model carries. Returns an exit status. */
static uint32_t self_test(const acorn_port *port, const acorn_image *image, void *region, size_t region_bytes) {
  const acorn_options options = {.struct_size = sizeof options, .flags = ACORN_OPEN_TRACE};
  acorn_memory_plan plan = {.struct_size = sizeof plan};
  acorn_status status = acorn_plan(&plan, NULL, image, &options, port);
  if (status == ACORN_OK && plan.reference_tokens == 0) {
    acorn_baremetal_text("acorn: self-test: the model carries no reference run\n");
    return 0;
  }
  if (status == ACORN_OK && plan.block_bytes > region_bytes) {
    return too_small("the self-test's plan", plan.block_bytes, region_bytes);
  }
  acorn_selftest_report result = {.struct_size = sizeof result};
  acorn_model *model;
  acorn_session *session;
  if (status == ACORN_OK) status = acorn_model_open(&model, NULL, image, &options, port, region, region_bytes);
  if (status == ACORN_OK) status = acorn_session_open(&session, model);
  if (status == ACORN_OK) status = acorn_session_selftest(session, &result);
  if (status != ACORN_OK) return fail(status_failed, "self-test", status);
  acorn_baremetal_text(result.passed ? "acorn: self-test: passed, " : "acorn: self-test: differs, ");
  if (!result.passed) {
    number("phase ", result.phase);
    number(", step ", result.step);
    if (result.kernel != NULL) text(", kernel ", result.kernel);
    acorn_baremetal_text(", ");
  }
  number("", result.tokens);
  hex(" tokens, digest ", result.digest);
  acorn_baremetal_text("\n");
  return result.passed ? 0 : status_failed;
}

uint32_t acorn_baremetal_main(void) {
  acorn_port port;
  acorn_baremetal_port(&port);
  size_t region_bytes;
  char *region = acorn_baremetal_region(&region_bytes);
  print_machine(&port, region_bytes);

  acorn_image image;
  const uint32_t failed = find_model(&image, &port, &region, &region_bytes);
  if (failed != 0) return failed;

  acorn_memory_plan plan = {.struct_size = sizeof plan};
  acorn_status status = acorn_plan(&plan, NULL, &image, NULL, &port);
  if (status != ACORN_OK) return fail(status_model, "planning", status);
  print_plan(&plan);
  if (plan.block_bytes > region_bytes) return too_small("the plan", plan.block_bytes, region_bytes);

  acorn_model *model;
  acorn_model_info info = {.struct_size = sizeof info};
  struct run run = {0};
  status = acorn_model_open(&model, NULL, &image, NULL, &port, region, region_bytes);
  if (status == ACORN_OK) status = acorn_model_get_info(model, &info);
  if (status == ACORN_OK) status = acorn_session_open(&run.session, model);
  if (status != ACORN_OK) return fail(status_model, "opening", status);
  run.vocab_size = info.vocab_size;
  /* A model without a template goes on with the words. */
  status = answer(&run, "turn on the lamp in the kitchen", info.has_chat_template ? ACORN_TEXT_CHAT : ACORN_TEXT_BOS);
  if (status == ACORN_OK) status = answer(&run, "Once upon a time", ACORN_TEXT_BOS);
  if (status != ACORN_OK) return fail(status_failed, "answering", status);

  acorn_baremetal_text("\n");
  const uint32_t different = self_test(&port, &image, region, region_bytes);
  const uint32_t failures = acorn_port_conformance(&port, &image, region, region_bytes);
  number("acorn: conformance: failures ", failures);
  acorn_baremetal_text("\n");
  return failures == 0 ? different : status_failed;
}
