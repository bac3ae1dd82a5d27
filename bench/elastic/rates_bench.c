/* The rates of a file beside each other: what a token reads, how fast it decodes, how much of that time the layers take, and what a
   switch from one rate to the next costs in the middle of a conversation. Rates take turns, and medians are reported, since the
   machine's speed drifts: acorn_bench_rates FILE [ROUNDS [THREADS]] */
#include <acorn.h>
#include <acorn_posix.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/median.h"

enum { kMostRates = 16, kMostRounds = 99, kPrompt = 64, kTokens = 48 };

static acorn_model *model;
static acorn_session *session;

static void Check(acorn_status status) {
  if (status == ACORN_OK) return;
  fprintf(stderr, "acorn_bench_rates: %s\n", acorn_status_text(status));
  exit(1);
}

static double Microseconds(uint64_t ticks) { return (double)ticks / 1e3; } /* the port's ticks are nanoseconds */

/* Ticks of the matrix family whose name starts so, of all kernels when it is empty. */
static uint64_t TicksOf(const char *family) {
  uint64_t ticks = 0;
  acorn_profile_row row = {.struct_size = sizeof row};
  for (size_t i = 0; acorn_model_profile(model, &row, i) == ACORN_OK; ++i) {
    if (strncmp(row.name, family, strlen(family)) == 0) ticks += row.ticks;
  }
  return ticks;
}

int main(int argc, char **argv) {
  const int rounds = argc > 2 ? atoi(argv[2]) : 9;
  acorn_posix_file file;
  acorn_posix *posix = acorn_posix_create(argc > 3 ? (uint32_t)atoi(argv[3]) : 0);
  if (argc < 2 || rounds < 1 || rounds > kMostRounds || posix == NULL ||
      acorn_posix_open_file(&file, argv[1], ACORN_POSIX_MAP) != 0) {
    fprintf(stderr, "usage: acorn_bench_rates FILE [ROUNDS [THREADS]]\n");
    return 2;
  }
  acorn_port port;
  acorn_posix_port(posix, &port, 0);
  const acorn_image image = {file.data, file.bytes};
  acorn_options options = {.struct_size = sizeof options, .context_tokens = kPrompt + kTokens, .flags = ACORN_OPEN_PROFILE};
  acorn_memory_plan plan = {.struct_size = sizeof plan};
  Check(acorn_plan(&plan, NULL, &image, &options, &port));
  void *block = acorn_posix_allocate(plan.block_bytes);
  Check(block == NULL ? ACORN_ERR_MEMORY : acorn_model_open(&model, NULL, &image, &options, &port, block, plan.block_bytes));
  Check(acorn_session_open(&session, model));
  uint32_t rates[kMostRates];
  size_t count = 0;
  Check(acorn_model_rates(model, rates, kMostRates, &count));

  static double token_us[kMostRates][kMostRounds], layers_us[kMostRates][kMostRounds], switch_us[kMostRates][kMostRounds];
  int32_t tokens[kPrompt];
  for (int i = 0; i < kPrompt; ++i) tokens[i] = 7 + i * 31 % 200;
  const int32_t *logits;
  for (int round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < count; ++i) {
      acorn_session_reset(session);
      Check(acorn_session_set_rate(session, rates[i]));
      Check(acorn_session_prefill(session, tokens, kPrompt));
      /* The head is the only matrix of 8 bits in a file of 4: what is left is the layers'. */
      const uint64_t all = TicksOf(""), head = TicksOf("gemm_s8_w8");
      const uint64_t begin = acorn_posix_ticks();
      for (int t = 0; t < kTokens - 1; ++t) Check(acorn_session_decode(session, &logits, tokens[t]));
      token_us[i][round] = Microseconds(acorn_posix_ticks() - begin) / (kTokens - 1);
      layers_us[i][round] = Microseconds(TicksOf("") - all - (TicksOf("gemm_s8_w8") - head)) / (kTokens - 1);
      const uint64_t before = acorn_posix_ticks();
      Check(acorn_session_set_rate(session, rates[i + 1 < count ? i + 1 : i]));
      switch_us[i][round] = Microseconds(acorn_posix_ticks() - before);
    }
  }
  const double whole = Median(token_us[0], rounds), whole_layers = Median(layers_us[0], rounds);
  printf("rate  weights/token  token us  speed  layers us  speed  switch on, us (most)\n");
  for (size_t i = 0; i < count; ++i) {
    acorn_rate_plan row = {.struct_size = sizeof row};
    Check(acorn_plan_rate(&row, NULL, &image, &options, &port, i));
    const double token = Median(token_us[i], rounds), layers = Median(layers_us[i], rounds);
    const double median = Median(switch_us[i], rounds);
    printf("%3u %%  %10.2f MB  %8.1f  %5.2f  %9.1f  %5.2f  %6.1f (%.1f)\n", rates[i], (double)row.weight_bytes / 1e6, token, whole / token,
           layers, whole_layers / layers, median, switch_us[i][rounds - 1]);
  }
  return 0;
}
