/* A second core that comes up after the port has given it up: it must not take part, since nobody asked for its features. */
#include "acorn_baremetal.h"
#include "ports/baremetal_aarch64/machine.h"

enum { late_seconds = 3 }; /* the port waits two */

static uint32_t arrived;  /* atomic */
static uint32_t intruder; /* atomic: a number other than the first core's has run a task */

uint32_t __real_acorn_core_features(void);
uint32_t __wrap_acorn_core_features(void);

/* What a core says before it takes part. */
uint32_t __wrap_acorn_core_features(void) {
  uint64_t core;
  __asm__("mrs %0, mpidr_el1" : "=r"(core));
  if ((core & 255) == 0) return __real_acorn_core_features();
  const uint64_t begin = acorn_ticks(NULL);
  while (acorn_ticks(NULL) - begin < late_seconds * acorn_ticks_per_second()) {
  }
  __atomic_store_n(&arrived, 1, __ATOMIC_RELEASE);
  return 0;
}

static void look(void *arg, uint32_t task, uint32_t thread) {
  (void)arg, (void)task;
  if (thread != 0) __atomic_store_n(&intruder, 1, __ATOMIC_RELAXED);
}

uint32_t acorn_baremetal_main(void) {
  acorn_port port;
  acorn_baremetal_port(&port);
  if (port.threads != 1 || port.parallel_for != NULL || port.cpu_features == 0) return 1;
  while (__atomic_load_n(&arrived, __ATOMIC_ACQUIRE) == 0) {
  }
  /* Loops for half a second, most of the time open. */
  const uint64_t begin = acorn_ticks(NULL);
  while (acorn_ticks(NULL) - begin < acorn_ticks_per_second() / 2) acorn_run_tasks(NULL, look, NULL, 10000);
  if (__atomic_load_n(&intruder, __ATOMIC_RELAXED) != 0) return 1;
  acorn_baremetal_text("acorn: the late core stayed away\n");
  return 0;
}
