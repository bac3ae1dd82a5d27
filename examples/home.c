/* A home device: a command a line on the standard input, a line of JSON for each on the standard output.
 *   acorn_example_home MODEL.acorn < commands
 * Every command starts from the same state, so that neither memory nor time grows. Ctrl-C ends the answer in the making; with
 * none in the making, the program. */
#include <acorn.h>
#include <acorn_posix.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { MAX_LINE = 256, MAX_ANSWER = 1024, CONTEXT_TOKENS = 256 };
typedef struct Answer { char text[MAX_ANSWER]; size_t bytes; } Answer;

static acorn_session *volatile running; /* for the signal handler; NULL between commands */

static void OnInterrupt(int number) {
  signal(number, running != NULL ? OnInterrupt : SIG_DFL);
  if (running != NULL) acorn_session_cancel(running); /* safe in a handler */
  else raise(number);
}

/* Returns 0 at the end of the input. Bytes from MAX_LINE on are dropped. */
static int ReadLine(char *line, size_t *bytes) {
  int c;
  for (*bytes = 0; (c = getchar()) != EOF && c != '\n';) {
    if (*bytes < MAX_LINE) line[(*bytes)++] = (char)c;
  }
  return c != EOF || *bytes != 0;
}

/* Keeps the answer's text; ends it where it does not fit. */
static int Keep(void *ctx, int32_t token, const char *text, size_t bytes) {
  Answer *answer = ctx;
  (void)token;
  if (bytes > MAX_ANSWER - answer->bytes) return 1;
  memcpy(answer->text + answer->bytes, text, bytes);
  answer->bytes += bytes;
  return 0;
}

/* One JSON object or list: what is opened is closed, and nothing follows. The rest is for the product's parser to judge. */
static int IsWhole(const Answer *answer) {
  int quoted = 0, depth = 0;
  for (size_t i = 0; i < answer->bytes; ++i) {
    const char c = answer->text[i];
    if (c == '\\' && quoted) ++i;
    else if (c == '"' && depth > 0) quoted = !quoted;
    else if (!quoted && (c == '{' || c == '[')) ++depth;
    else if (!quoted && (c == '}' || c == ']') && --depth == 0) return i + 1 == answer->bytes;
    if (depth <= 0) return 0; /* text outside of brackets */
  }
  return 0;
}

int main(int argc, char **argv) {
  acorn_posix_file file;
  acorn_posix *posix = acorn_posix_create(0);
  if (argc != 2 || posix == NULL || acorn_posix_open_file(&file, argv[1], ACORN_POSIX_MAP) != 0) {
    fprintf(stderr, "home: a model file that can be read is wanted\n");
    return 2;
  }
  acorn_port port;
  acorn_posix_port(posix, &port, 0); /* says on the standard error where a file is bad */
  const acorn_image image = {file.data, file.bytes};
  const acorn_options options = {.struct_size = sizeof options, .context_tokens = CONTEXT_TOKENS};
  acorn_memory_plan plan = {.struct_size = sizeof plan};
  acorn_model *model;
  acorn_session *session = NULL;
  acorn_status status = acorn_plan(&plan, NULL, &image, &options, &port);
  void *block = status == ACORN_OK ? acorn_posix_allocate(plan.block_bytes) : NULL; /* all that it will ever use */
  if (status == ACORN_OK && block == NULL) status = ACORN_ERR_MEMORY;
  if (status == ACORN_OK) status = acorn_model_open(&model, NULL, &image, &options, &port, block, plan.block_bytes);
  if (status == ACORN_OK) status = acorn_session_open(&session, model);
  if (status != ACORN_OK) {
    fprintf(stderr, "home: %s: %s\n", argv[1], acorn_status_text(status));
    return 1;
  }
  const uint64_t start = acorn_session_position(session); /* a product appends its instructions before this */
  signal(SIGINT, OnInterrupt);
  char line[MAX_LINE];
  for (size_t bytes; ReadLine(line, &bytes);) {
    Answer answer = {.bytes = 0};
    acorn_generation generation = {.struct_size = sizeof generation, .callback = Keep, .ctx = &answer};
    generation.sampling.struct_size = sizeof generation.sampling; /* greedy: the same command, the same answer */
    running = session;
    status = bytes < MAX_LINE ? acorn_session_rewind(session, start) : ACORN_ERR_CONTEXT_FULL;
    if (status == ACORN_OK) status = acorn_session_append_text(session, line, bytes, ACORN_TEXT_CHAT | ACORN_TEXT_BOS);
    if (status == ACORN_OK) status = acorn_session_generate(session, NULL, NULL, &generation);
    running = NULL;
    if (status == ACORN_OK && IsWhole(&answer)) printf("%.*s\n", (int)answer.bytes, answer.text);
    else printf("{\"error\":\"%s\"}\n", status == ACORN_OK ? "not understood" : acorn_status_text(status));
    fflush(stdout);
  }
  acorn_posix_release(block, plan.block_bytes);
  acorn_posix_close_file(&file);
  acorn_posix_destroy(posix);
  return ferror(stdin) != 0;
}
