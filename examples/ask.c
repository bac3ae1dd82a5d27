/* Asks a model one question and prints the answer: acorn_example_ask MODEL.acorn "turn on the lamp in the kitchen" */
#include <acorn.h>
#include <acorn_posix.h>
#include <stdio.h>
#include <string.h>

static int Print(void *ctx, int32_t token, const char *text, size_t bytes) {
  (void)ctx, (void)token;
  fwrite(text, 1, bytes, stdout);
  return 0; /* go on */
}

/* Everything after the file is in memory: plan, one block, open, one turn in, one answer out. */
static acorn_status Ask(const acorn_image *image, const acorn_port *port, const char *question) {
  acorn_memory_plan plan = {.struct_size = sizeof plan};
  acorn_status status = acorn_plan(&plan, NULL, image, NULL, port);
  if (status != ACORN_OK) return status;
  void *block = acorn_posix_allocate(plan.block_bytes); /* the only memory that the library will ever use */
  if (block == NULL) return ACORN_ERR_MEMORY;

  acorn_model *model;
  acorn_session *session;
  acorn_generation answer = {.struct_size = sizeof answer, .max_tokens = 128, .callback = Print};
  answer.sampling.struct_size = sizeof answer.sampling;
  status = acorn_model_open(&model, NULL, image, NULL, port, block, plan.block_bytes);
  if (status == ACORN_OK) status = acorn_session_open(&session, model);
  if (status == ACORN_OK)
    status = acorn_session_append_text(session, question, strlen(question), ACORN_TEXT_CHAT | ACORN_TEXT_BOS);
  if (status == ACORN_OK) status = acorn_session_generate(session, NULL, NULL, &answer);
  acorn_posix_release(block, plan.block_bytes);
  return status;
}

int main(int argc, char **argv) {
  acorn_posix_file file;
  acorn_port port;
  acorn_posix *posix = acorn_posix_create(0);
  if (argc != 3 || posix == NULL || acorn_posix_open_file(&file, argv[1], ACORN_POSIX_MAP) != 0) {
    fprintf(stderr, "usage: %s MODEL.acorn QUESTION\n", argv[0]);
    return 2;
  }
  acorn_posix_port(posix, &port, 0);
  const acorn_image image = {file.data, file.bytes};
  const acorn_status status = Ask(&image, &port, argv[2]);
  printf("\n");
  if (status != ACORN_OK) fprintf(stderr, "%s\n", acorn_status_text(status));
  acorn_posix_close_file(&file);
  acorn_posix_destroy(posix);
  return status == ACORN_OK ? 0 : 1;
}
