/* The other cores: switched on through PSCI, then waiting for loops. A core joins a loop if it comes while the loop is open; the
 * caller works too, closes the loop when no task is left and waits only for those that joined, so that a core which wakes
 * slowly (or, under an emulator, has no turn) holds nobody up. */
#include "acorn_port.h"
#include "machine.h"

enum { psci_ok = 0, start_seconds = 2 };

enum { joined_bits = 8, joined_mask = 0xff }; /* state: generation, odd while a loop is open, then how many cores have joined it */

static const uint32_t no_more = UINT32_MAX;

static struct loop {
  acorn_task task;
  void *arg;
  uint32_t count;
  uint32_t next;    /* atomic: the next task to take */
  uint32_t state;   /* atomic; opening it releases everything above */
  uint32_t left;    /* atomic: cores that joined the present loop and have left it */
  uint32_t started; /* atomic: the number of the last core that came up in time; no_more: none may any longer */
  uint32_t missing; /* atomic: CPU features that one of the cores lacks */
} loop;
static uint32_t others; /* cores that came up in time, the first not among them */

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

static int is_new(uint32_t state, uint32_t seen) { return (state >> joined_bits) % 2 == 1 && state >> joined_bits != seen; }

/* Waits for an open loop other than `seen` and joins it. Returns its generation. */
static uint32_t join_loop(uint32_t seen) {
  for (;;) {
    uint32_t state = __atomic_load_n(&loop.state, __ATOMIC_ACQUIRE);
    if (!is_new(state, seen)) {
      wait_for_event();
    } else if (__atomic_compare_exchange_n(&loop.state, &state, state + 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
      return state >> joined_bits;
    }
  }
}

static void park(void) __attribute__((noreturn));
static void park(void) {
  for (;;) __asm__ volatile("wfi");
}

/* From the start-up code, on a core that acorn_start_cores switched on. */
void acorn_core_main(uint64_t core) __attribute__((noreturn));
void acorn_core_main(uint64_t core) {
  uint32_t before = (uint32_t)core - 1;
  __atomic_fetch_or(&loop.missing, ~acorn_core_features(), __ATOMIC_RELAXED);
  /* Too late: the port has told the library its features and threads without this core. */
  if (!__atomic_compare_exchange_n(&loop.started, &before, (uint32_t)core, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED)) park();
  for (uint32_t seen = 0;;) {
    seen = join_loop(seen);
    take_tasks((uint32_t)core);
    __atomic_fetch_add(&loop.left, 1, __ATOMIC_RELEASE);
    send_event();
  }
}

/* Returns whether the core came up in time; else none may come up any longer. */
static int wait_for_core(uint32_t number) {
  const uint64_t begin = acorn_ticks(0), limit = start_seconds * acorn_ticks_per_second();
  while (__atomic_load_n(&loop.started, __ATOMIC_ACQUIRE) != number) {
    uint32_t before = number - 1;
    if (acorn_ticks(0) - begin > limit &&
        __atomic_compare_exchange_n(&loop.started, &before, no_more, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return 0;
  }
  return 1;
}

/* The affinities of a cluster in turn: those that no core has are refused, as is the core that asks. A core that says yes and
 * does not come in time may still come, on the stack of its number: it parks there, and none is asked after it. */
uint32_t acorn_start_cores(void) {
  static uint32_t asked;
  if (asked) return others + 1;
  asked = 1;
  for (uint64_t affinity = 0; affinity < ACORN_MAX_CORES && others + 1 < ACORN_MAX_CORES; ++affinity) {
    if (acorn_psci(ACORN_PSCI_CPU_ON, affinity, (uintptr_t)acorn_core_entry, others + 1) != psci_ok) continue;
    if (!wait_for_core(others + 1)) break;
    ++others;
  }
  return others + 1;
}

uint32_t acorn_common_features(void) { return acorn_core_features() & ~__atomic_load_n(&loop.missing, __ATOMIC_RELAXED); }

void acorn_run_tasks(void *ctx, acorn_task task, void *arg, uint32_t count) {
  (void)ctx;
  loop.task = task;
  loop.arg = arg;
  loop.count = count;
  __atomic_store_n(&loop.next, 0, __ATOMIC_RELAXED);
  __atomic_store_n(&loop.left, 0, __ATOMIC_RELAXED);
  /* Closed until here: nobody else writes the state. */
  const uint32_t generation = (__atomic_load_n(&loop.state, __ATOMIC_RELAXED) >> joined_bits) + 1;
  __atomic_store_n(&loop.state, generation << joined_bits, __ATOMIC_RELEASE);
  send_event();
  take_tasks(0);
  const uint32_t joined = __atomic_exchange_n(&loop.state, (generation + 1) << joined_bits, __ATOMIC_ACQ_REL) & joined_mask;
  while (__atomic_load_n(&loop.left, __ATOMIC_ACQUIRE) != joined) wait_for_event();
}
