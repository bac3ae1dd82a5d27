// How fast attention reads the keys and values of a long conversation, beside a plain loop over as many bytes of memory: a decoded
// token and a read take turns, since the machine's speed drifts. All threads, then one:
// acorn_bench_context FILE [TOKENS [ROUNDS]]
#include <acorn.h>
#include <acorn_posix.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "bench/kernels/bounds.h"
#include "bench/median.h"

namespace {

constexpr size_t kPage = 4096;

void Check(acorn_status status) {
  if (status == ACORN_OK) return;
  std::fprintf(stderr, "acorn_bench_context: %s\n", acorn_status_text(status));
  std::exit(1);
}

struct Reading {
  const uint8_t *data;
  size_t part;  // bytes of a thread
};

void ReadPart(void *arg, uint32_t task, uint32_t) {
  const auto *reading = static_cast<const Reading *>(arg);
  acorn::bench::Read(reading->data + task * reading->part, reading->part);
}

/// Nanoseconds of attention since the model was opened.
double AttentionTime(const acorn_model *model) {
  acorn_profile_row row = {};
  row.struct_size = sizeof row;
  double ticks = 0;
  for (size_t i = 0; acorn_model_profile(model, &row, i) == ACORN_OK; ++i) {
    if (std::strncmp(row.name, "attention", 9) == 0) ticks += static_cast<double>(row.ticks);
  }
  return ticks;
}

struct Snapshot {
  uint8_t *data;  // null: not taken yet
  size_t bytes;
};

/// snapshot: of a session with `count` tokens; where there is none, they are read, and it is taken.
void Measure(const acorn_posix_file &file, uint32_t threads, size_t count, int rounds, Snapshot *snapshot) {
  acorn_posix *posix = acorn_posix_create(threads);
  if (posix == nullptr) Check(ACORN_ERR_PORT);
  acorn_port port;
  acorn_posix_port(posix, &port, 0);
  const acorn_image image = {file.data, file.bytes};
  acorn_options options = {};
  options.struct_size = sizeof options;
  options.context_tokens = static_cast<uint32_t>(count) + static_cast<uint32_t>(rounds) + 1;
  options.flags = ACORN_OPEN_PROFILE;
  acorn_memory_plan plan = {};
  plan.struct_size = sizeof plan;
  Check(acorn_plan(&plan, nullptr, &image, &options, &port));
  void *block = acorn_posix_allocate(plan.block_bytes);
  acorn_model *model;
  acorn_session *session;
  if (block == nullptr) Check(ACORN_ERR_MEMORY);
  Check(acorn_model_open(&model, nullptr, &image, &options, &port, block, plan.block_bytes));
  Check(acorn_session_open(&session, model));
  if (snapshot->data == nullptr) {
    std::vector<int32_t> tokens(count);
    for (size_t i = 0; i < count; ++i) tokens[i] = static_cast<int32_t>(7 + i * 31 % 200);
    Check(acorn_session_prefill(session, tokens.data(), count));
    snapshot->bytes = acorn_session_snapshot_bytes(session);
    snapshot->data = static_cast<uint8_t *>(acorn_posix_allocate(snapshot->bytes));
    if (snapshot->data == nullptr) Check(ACORN_ERR_MEMORY);
    Check(acorn_session_save(session, snapshot->data, snapshot->bytes));
  } else {
    Check(acorn_session_load(session, snapshot->data, snapshot->bytes));
  }
  // A snapshot is what is kept of the tokens and little else, and what the loop reads.
  Reading reading = {snapshot->data, snapshot->bytes / threads / kPage * kPage};
  const auto bytes = static_cast<double>(threads * reading.part);
  std::vector<double> attention, read, share;
  for (int round = -1; round < rounds; ++round) {  // the first one warms up
    const double before = AttentionTime(model);
    const int32_t *logits;
    Check(acorn_session_decode(session, &logits, 7 + round % 100));
    const double attended = AttentionTime(model) - before;
    const uint64_t begin = acorn_posix_ticks();
    if (port.parallel_for == nullptr) ReadPart(&reading, 0, 0);
    else port.parallel_for(port.ctx, ReadPart, &reading, threads);
    const auto looped = static_cast<double>(acorn_posix_ticks() - begin);
    if (round < 0) continue;
    attention.push_back(bytes / attended);
    read.push_back(bytes / looped);
    share.push_back(looped / attended);
  }
  const double middle = Median(share.data(), rounds);  // sorts
  std::printf("%zu tokens, %.1f MB, %u threads, %d rounds: attention %.1f GB/s, read loop %.1f, share %.2f (%.2f to %.2f)\n", count,
              bytes / 1e6, threads, rounds, Median(attention.data(), rounds), Median(read.data(), rounds), middle, share.front(),
              share.back());
  acorn_posix_release(block, plan.block_bytes);
  acorn_posix_destroy(posix);
}

}  // namespace

int main(int argc, char **argv) {
  const int count = argc > 2 ? std::atoi(argv[2]) : 8000, rounds = argc > 3 ? std::atoi(argv[3]) : 99;
  acorn_posix_file file;
  if (argc < 2 || count < 1 || rounds < 1 || acorn_posix_open_file(&file, argv[1], ACORN_POSIX_MAP) != 0) {
    std::fprintf(stderr, "usage: acorn_bench_context FILE [TOKENS [ROUNDS]]\n");
    return 2;
  }
  Snapshot snapshot = {};
  std::vector<int> threads = acorn::bench::ThreadCounts();
  for (size_t i = threads.size(); i-- > 0;) {  // all first: they read the tokens faster
    Measure(file, static_cast<uint32_t>(threads[i]), static_cast<size_t>(count), rounds, &snapshot);
  }
  return 0;
}
