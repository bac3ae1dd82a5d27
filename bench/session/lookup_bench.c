/* Generation with guesses out of the conversation (acorn_generation.draft_tokens) beside generation without, in one chat: each line
   of TURNS is a user's message, both sessions of one model answer it in turn, and the answers must be equal. Medians of rounds.
     acorn_bench_lookup FILE TURNS [DRAFTS [ROUNDS [THREADS]]] */
#include <acorn.h>
#include <acorn_posix.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/median.h"

enum { kMostRounds = 99, kMostTurns = 256, kMostBytes = 8192 };

static void Check(acorn_status status, const char *what) {
  if (status == ACORN_OK) return;
  fprintf(stderr, "acorn_bench_lookup: %s: %s\n", what, acorn_status_text(status));
  exit(1);
}

/* "\n" in a line stands for the end of a line in the message. */
static size_t ReadTurns(const char *path, char (*turns)[kMostBytes]) {
  FILE *file = fopen(path, "r");
  size_t count = 0;
  while (file != NULL && count < kMostTurns && fgets(turns[count], kMostBytes, file) != NULL) {
    char *to = turns[count];
    for (const char *from = to; *from != 0 && *from != '\n'; ++from) {
      if (from[0] == '\\' && from[1] == 'n') {
        *to++ = '\n';
        ++from;
      } else {
        *to++ = *from;
      }
    }
    *to = 0;
    if (turns[count][0] != 0) ++count;
  }
  if (file != NULL) fclose(file);
  return count;
}

/* Feeds the message and answers it: microseconds of the answer alone. */
static double Answer(acorn_session *session, const char *message, uint32_t drafts, size_t *tokens) {
  const acorn_status status = acorn_session_append_text(session, message, strlen(message), ACORN_TEXT_CHAT);
  if (status == ACORN_ERR_CONTEXT_FULL) return -1;
  Check(status, "reading a turn");
  acorn_generation generation = {.struct_size = sizeof generation, .max_tokens = 256, .draft_tokens = drafts};
  generation.sampling.struct_size = sizeof generation.sampling;
  generation.sampling.repetition_penalty_q16 = 1 << 16;
  const uint64_t begin = acorn_posix_ticks();
  Check(acorn_session_generate(session, NULL, tokens, &generation), "answering");
  return (double)(acorn_posix_ticks() - begin) / 1e3;
}

int main(int argc, char **argv) {
  static char turns[kMostTurns][kMostBytes];
  const int drafts = argc > 3 ? atoi(argv[3]) : 7, rounds = argc > 4 ? atoi(argv[4]) : 5;
  const size_t turn_count = argc > 2 ? ReadTurns(argv[2], turns) : 0;
  acorn_posix_file file;
  acorn_posix *posix = acorn_posix_create(argc > 5 ? (uint32_t)atoi(argv[5]) : 0);
  if (turn_count == 0 || drafts < 1 || drafts > 63 || rounds < 1 || rounds > kMostRounds || posix == NULL ||
      acorn_posix_open_file(&file, argv[1], ACORN_POSIX_MAP) != 0) {
    fprintf(stderr, "usage: acorn_bench_lookup FILE TURNS [DRAFTS [ROUNDS [THREADS]]]\n");
    return 2;
  }
  acorn_port port;
  acorn_posix_port(posix, &port, 0);
  const acorn_image image = {file.data, file.bytes};
  acorn_options options = {.struct_size = sizeof options, .max_sessions = 2, .logit_rows = (uint32_t)drafts + 1};
  acorn_memory_plan plan = {.struct_size = sizeof plan};
  Check(acorn_plan(&plan, NULL, &image, &options, &port), "planning");
  void *block = acorn_posix_allocate(plan.block_bytes);
  acorn_model *model;
  Check(block == NULL ? ACORN_ERR_MEMORY : acorn_model_open(&model, NULL, &image, &options, &port, block, plan.block_bytes), "opening");
  acorn_session *plain, *ahead;
  Check(acorn_session_open(&plain, model), "opening a session");
  Check(acorn_session_open(&ahead, model), "opening a session");

  static double without[kMostRounds], with[kMostRounds], ratio[kMostRounds];
  size_t answered = 0, tokens = 0;
  acorn_timings timings = {.struct_size = sizeof timings};
  for (int round = 0; round < rounds; ++round) {
    acorn_session_reset(plain);
    acorn_session_reset(ahead);
    without[round] = with[round] = 0;
    answered = tokens = 0;
    for (size_t turn = 0; turn < turn_count; ++turn) {
      size_t count, count_ahead;
      const double slow = Answer(plain, turns[turn], 0, &count);
      if (slow < 0) break; /* the context is full */
      const double fast = Answer(ahead, turns[turn], (uint32_t)drafts, &count_ahead);
      const size_t position = acorn_session_position(plain);
      if (position != acorn_session_position(ahead) ||
          memcmp(acorn_session_tokens(plain), acorn_session_tokens(ahead), position * sizeof(int32_t)) != 0) {
        fprintf(stderr, "acorn_bench_lookup: turn %zu: the answers differ\n", turn + 1);
        return 1;
      }
      without[round] += slow;
      with[round] += fast;
      tokens += count;
      ++answered;
    }
    if (tokens == 0) return 1;
    Check(acorn_session_timings(ahead, &timings), "reading the timings");
    ratio[round] = without[round] / with[round];
  }
  printf("%zu turns, %zu tokens: %.0f tokens/s, with up to %d guesses a pass %.0f; %.2f x; %llu guessed, %llu right (%.0f %%)\n", answered,
         tokens, (double)tokens * 1e6 / Median(without, rounds), drafts, (double)tokens * 1e6 / Median(with, rounds),
         Median(ratio, rounds), (unsigned long long)timings.drafted_tokens, (unsigned long long)timings.accepted_tokens,
         timings.drafted_tokens == 0 ? 0 : 100.0 * (double)timings.accepted_tokens / (double)timings.drafted_tokens);
  return 0;
}
