/* Asks a model one question: acorn_example_ask MODEL.acorn "turn on the lamp in the kitchen" */
#include <acorn.h>
#include <acorn_posix.h>
#include <stdio.h>
#include <string.h>

static int Print(void *ctx, int32_t token, const char *text, size_t bytes) {
  (void)ctx, (void)token;
  return fwrite(text, 1, bytes, stdout) != bytes; /* 0: go on */
}

int main(int argc, char **argv) {
  acorn_posix_file file;
  acorn_posix *posix = acorn_posix_create(0); /* a thread for each core */
  if (argc != 3 || posix == NULL || acorn_posix_open_file(&file, argv[1], ACORN_POSIX_MAP) != 0) return 2;
  acorn_port port;
  acorn_posix_port(posix, &port, 0);
  const acorn_image image = {file.data, file.bytes};
  acorn_memory_plan plan = {.struct_size = sizeof plan};
  acorn_generation answer = {.struct_size = sizeof answer, .max_tokens = 128, .callback = Print};
  answer.sampling.struct_size = sizeof answer.sampling; /* greedy */
  acorn_model *model;
  acorn_session *session;
  acorn_status status = acorn_plan(&plan, NULL, &image, NULL, &port); /* exact bytes, before anything is opened */
  void *block = status == ACORN_OK ? acorn_posix_allocate(plan.block_bytes) : NULL; /* all that it will ever use */
  if (status == ACORN_OK) status = acorn_model_open(&model, NULL, &image, NULL, &port, block, plan.block_bytes);
  if (status == ACORN_OK) status = acorn_session_open(&session, model);
  if (status == ACORN_OK) status = acorn_session_append_text(session, argv[2], strlen(argv[2]), ACORN_TEXT_CHAT | ACORN_TEXT_BOS);
  if (status == ACORN_OK) status = acorn_session_generate(session, NULL, NULL, &answer);
  puts(status == ACORN_OK ? "" : acorn_status_text(status));
  return status == ACORN_OK ? 0 : 1;
}
