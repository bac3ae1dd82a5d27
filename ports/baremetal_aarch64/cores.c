/* The other cores: switched on through PSCI, then waiting for loops. All of them take part in every loop, so the caller waits
 * for each: they have nothing else to do. */
#include "acorn_port.h"
#include "machine.h"

#define PSCI_OK 0
#define START_SECONDS 2

static struct loop {
  acorn_task task;
  void *arg;
  uint32_t count;
  uint32_t next;       /* atomic: the next task to take */
  uint32_t generation; /* atomic: counts loops; a release of everything above it */
  uint32_t left;       /* atomic: other cores that are through with the present loop */
  uint32_t started;    /* atomic: cores that have come up, the first not among them */
} loop;
static uint32_t others; /* cores that take part, the first not among them */

/* Whoever started the image at EL2 answers from above it; at EL1 the hypervisor does. */
int64_t acorn_psci(uint64_t function, uint64_t a, uint64_t b, uint64_t c) {
  return acorn_entry_level == 2 ? acorn_psci_smc(function, a, b, c) : acorn_psci_hvc(function, a, b, c);
}

/* An event sent between the look and the wait is kept, so none is missed. */
static void wait_for_event(void) { __asm__ volatile("wfe" ::: "memory"); }
static void send_event(void) { __asm__ volatile("dsb ish\n\tsev" ::: "memory"); }

static void take_tasks(uint32_t thread) {
  for (;;) {
    const uint32_t index = __atomic_fetch_add(&loop.next, 1, __ATOMIC_RELAXED);
    if (index >= loop.count) return;
    loop.task(loop.arg, index, thread);
  }
}

/* From the start-up code, on a core that acorn_start_cores switched on. */
void acorn_core_main(uint64_t core) __attribute__((noreturn));
void acorn_core_main(uint64_t core) {
  uint32_t seen = __atomic_load_n(&loop.generation, __ATOMIC_ACQUIRE);
  __atomic_fetch_add(&loop.started, 1, __ATOMIC_RELEASE);
  send_event();
  for (;;) {
    uint32_t generation;
    while ((generation = __atomic_load_n(&loop.generation, __ATOMIC_ACQUIRE)) == seen) wait_for_event();
    seen = generation;
    take_tasks((uint32_t)core);
    __atomic_fetch_add(&loop.left, 1, __ATOMIC_RELEASE);
    send_event();
  }
}

static int wait_for_core(uint32_t number) {
  const uint64_t begin = acorn_ticks(0), limit = START_SECONDS * acorn_ticks_per_second();
  while (__atomic_load_n(&loop.started, __ATOMIC_ACQUIRE) != number) {
    if (acorn_ticks(0) - begin > limit) return 0;
  }
  return 1;
}

/* The affinities of a cluster in turn: those that no core has are refused, as is the core that asks. A core that says yes and
 * does not come in time could come in the middle of a loop; none is asked after it. */
uint32_t acorn_start_cores(void) {
  static uint32_t asked;
  if (asked) return others + 1;
  asked = 1;
  for (uint64_t affinity = 0; affinity < ACORN_MAX_CORES && others + 1 < ACORN_MAX_CORES; ++affinity) {
    if (acorn_psci(ACORN_PSCI_CPU_ON, affinity, (uintptr_t)acorn_core_entry, others + 1) != PSCI_OK) continue;
    if (!wait_for_core(others + 1)) break;
    ++others;
  }
  return others + 1;
}

void acorn_run_tasks(void *ctx, acorn_task task, void *arg, uint32_t count) {
  (void)ctx;
  loop.task = task;
  loop.arg = arg;
  loop.count = count;
  __atomic_store_n(&loop.next, 0, __ATOMIC_RELAXED);
  __atomic_store_n(&loop.left, 0, __ATOMIC_RELAXED);
  __atomic_fetch_add(&loop.generation, 1, __ATOMIC_RELEASE);
  send_event();
  take_tasks(0);
  while (__atomic_load_n(&loop.left, __ATOMIC_ACQUIRE) != others) wait_for_event();
}
