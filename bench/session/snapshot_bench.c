/* What saving and loading a session takes beside copying as many bytes, which is the least that either can take: all in the caches,
   and all out of them, as it is after other work. The three take turns in each round, and medians are reported, since the machine's
   speed drifts: acorn_bench_snapshot FILE [TOKENS [ROUNDS]] */
#include <acorn.h>
#include <acorn_posix.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/median.h"

enum { kMostRounds = 999, kOtherBytes = 128 << 20 }; /* beyond what caches hold */
enum { kCopy, kSave, kLoad, kActs };

static acorn_session *session;

static void Check(acorn_status status) {
  if (status == ACORN_OK) return;
  fprintf(stderr, "acorn_bench_snapshot: %s\n", acorn_status_text(status));
  exit(1);
}

static double Microseconds(uint64_t begin) { return (double)(acorn_posix_ticks() - begin) / 1e3; }

int main(int argc, char **argv) {
  const int count = argc > 2 ? atoi(argv[2]) : 512, rounds = argc > 3 ? atoi(argv[3]) : 99;
  acorn_posix_file file;
  acorn_posix *posix = acorn_posix_create(0);
  if (argc < 2 || count < 1 || rounds < 1 || rounds > kMostRounds || posix == NULL ||
      acorn_posix_open_file(&file, argv[1], ACORN_POSIX_MAP) != 0) {
    fprintf(stderr, "usage: acorn_bench_snapshot FILE [TOKENS [ROUNDS]]\n");
    return 2;
  }
  acorn_port port;
  acorn_posix_port(posix, &port, 0);
  const acorn_image image = {file.data, file.bytes};
  acorn_options options = {.struct_size = sizeof options, .context_tokens = (uint32_t)count + 64};
  acorn_memory_plan plan = {.struct_size = sizeof plan};
  Check(acorn_plan(&plan, NULL, &image, &options, &port));
  void *block = acorn_posix_allocate(plan.block_bytes);
  acorn_model *model;
  Check(block == NULL ? ACORN_ERR_MEMORY : acorn_model_open(&model, NULL, &image, &options, &port, block, plan.block_bytes));
  Check(acorn_session_open(&session, model));
  int32_t *tokens = malloc((size_t)count * sizeof *tokens);
  if (tokens == NULL) return 1;
  for (int i = 0; i < count; ++i) tokens[i] = 7 + i * 31 % 200;
  const uint64_t begin_prefill = acorn_posix_ticks();
  Check(acorn_session_prefill(session, tokens, (size_t)count));
  const double prefill = Microseconds(begin_prefill);

  const size_t bytes = acorn_session_snapshot_bytes(session);
  unsigned char *snapshot = acorn_posix_allocate(bytes), *copy = acorn_posix_allocate(bytes);
  if (snapshot == NULL || copy == NULL) return 1;
  unsigned char *other = acorn_posix_allocate(kOtherBytes);
  if (other == NULL) return 1;
  Check(acorn_session_save(session, snapshot, bytes));
  printf("%d tokens, %.2f MB, %d rounds; their prefill took %.1f ms\n", count, (double)bytes / 1e6, rounds, prefill / 1e3);
  for (int cold = 0; cold < 2; ++cold) {
    static double us[kActs][kMostRounds];
    for (int round = 0; round < rounds; ++round) {
      for (int act = 0; act < kActs; ++act) {
        if (cold) memset(other, round + act, kOtherBytes);
        const uint64_t begin = acorn_posix_ticks();
        if (act == kCopy) memcpy(copy, snapshot, bytes);
        if (act == kSave) Check(acorn_session_save(session, snapshot, bytes));
        if (act == kLoad) Check(acorn_session_load(session, snapshot, bytes));
        us[act][round] = Microseconds(begin);
      }
    }
    static const char *const names[kActs] = {"copy", "save", "load"};
    double copied = 0;
    for (int act = 0; act < kActs; ++act) {
      const double median = Median(us[act], rounds);
      if (act == kCopy) copied = median;
      printf("%s %s %8.1f us  %5.2f GB/s  %5.2f x copy\n", cold ? "cold" : "warm", names[act], median, (double)bytes / median / 1e3,
             median / copied);
    }
  }
  return 0;
}
