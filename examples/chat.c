/* A conversation whose text streams as it is made: acorn_example_chat MODEL.acorn [CONTEXT]
 * /reset begins anew, the end of the input ends it. Text goes to the standard output, everything else to the standard error. */
#include <acorn.h>
#include <acorn_posix.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LINE = 4096 };

/* Whole characters, as soon as they are certain. Nobody reads any more: end the answer. */
static int Stream(void *ctx, int32_t token, const char *text, size_t bytes) {
  (void)ctx, (void)token;
  return fwrite(text, 1, bytes, stdout) != bytes || fflush(stdout) != 0;
}

/* Adds the user's turn. A full context keeps the conversation as it is: begin a new one with this turn. */
static acorn_status Append(acorn_session *session, const char *line, size_t bytes) {
  const uint32_t flags = ACORN_TEXT_CHAT | ACORN_TEXT_BOS;
  const acorn_status status = acorn_session_append_text(session, line, bytes, flags);
  if (status != ACORN_ERR_CONTEXT_FULL || acorn_session_position(session) == 0) return status;
  fprintf(stderr, "[the context of %" PRIu64 " tokens is full: a new conversation begins]\n", acorn_session_capacity(session));
  acorn_session_reset(session);
  return acorn_session_append_text(session, line, bytes, flags);
}

static acorn_status Answer(acorn_session *session) {
  acorn_generation generation = {.struct_size = sizeof generation, .callback = Stream};
  generation.sampling.struct_size = sizeof generation.sampling;
  generation.sampling.temperature_q16 = 7 * 65536 / 10;
  generation.sampling.top_p_q16 = 9 * 65536 / 10;
  generation.sampling.seed = 1; /* the same seed gives the same conversation on every machine */
  acorn_timings before = {.struct_size = sizeof before}, after = {.struct_size = sizeof after};
  uint32_t reason = 0;
  size_t count = 0;
  acorn_status status = acorn_session_timings(session, &before);
  if (status == ACORN_OK) status = acorn_session_generate(session, &reason, &count, &generation);
  if (status == ACORN_OK) status = acorn_session_timings(session, &after);
  if (status != ACORN_OK) return status;
  const uint64_t tokens = after.decode_tokens - before.decode_tokens;
  const uint64_t ticks = after.decode_ticks - before.decode_ticks;
  const uint64_t tenths = ticks == 0 ? 0 : 10 * tokens * after.ticks_per_second / ticks;
  puts("");
  fprintf(stderr, "[%zu tokens, %" PRIu64 ".%" PRIu64 " tokens/s, %" PRIu64 " in the conversation]\n", count, tenths / 10, tenths % 10,
          acorn_session_position(session));
  if (reason == ACORN_STOP_CONTEXT) {
    fprintf(stderr, "[the answer ends where the context is full: a new conversation begins]\n");
    acorn_session_reset(session);
  }
  return ACORN_OK;
}

int main(int argc, char **argv) {
  acorn_posix_file file;
  acorn_posix *posix = acorn_posix_create(0);
  if (argc < 2 || argc > 3 || posix == NULL || acorn_posix_open_file(&file, argv[1], ACORN_POSIX_MAP) != 0) {
    fprintf(stderr, "chat: a model file that can be read is wanted\n");
    return 2;
  }
  acorn_port port;
  acorn_posix_port(posix, &port, 0);
  const acorn_image image = {file.data, file.bytes};
  acorn_options options = {.struct_size = sizeof options};
  options.context_tokens = argc == 3 ? (uint32_t)strtoul(argv[2], NULL, 10) : 0; /* 0: all that the model can hold */
  acorn_memory_plan plan = {.struct_size = sizeof plan};
  acorn_model *model;
  acorn_session *session = NULL;
  acorn_status status = acorn_plan(&plan, NULL, &image, &options, &port);
  void *block = status == ACORN_OK ? acorn_posix_allocate(plan.block_bytes) : NULL;
  if (status == ACORN_OK && block == NULL) status = ACORN_ERR_MEMORY;
  if (status == ACORN_OK) status = acorn_model_open(&model, NULL, &image, &options, &port, block, plan.block_bytes);
  if (status == ACORN_OK) status = acorn_session_open(&session, model);
  if (status == ACORN_OK) {
    fprintf(stderr, "[file %" PRIu64 " bytes, read in place; block %" PRIu64 ": model %" PRIu64 ", session %" PRIu64
            ", scratch %" PRIu64 "; %" PRIu32 " tokens, %" PRIu32 " threads]\n", plan.image_bytes, plan.block_bytes,
            plan.model_bytes, plan.session_bytes, plan.scratch_bytes, plan.context_tokens, plan.threads);
  }
  for (char line[MAX_LINE]; status == ACORN_OK && fgets(line, sizeof line, stdin) != NULL;) {
    line[strcspn(line, "\n")] = 0;
    if (strcmp(line, "/reset") == 0) {
      acorn_session_reset(session);
    } else if (line[0] != 0) {
      status = Append(session, line, strlen(line));
      if (status == ACORN_OK) status = Answer(session);
    }
  }
  if (status != ACORN_OK) fprintf(stderr, "chat: %s\n", acorn_status_text(status));
  acorn_posix_release(block, plan.block_bytes);
  acorn_posix_close_file(&file);
  acorn_posix_destroy(posix);
  return status != ACORN_OK;
}
