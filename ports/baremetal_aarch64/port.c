/* acorn_port: features, clock and log; cores.c has the loops, semihosting.c the file. */
#include "acorn_baremetal.h"
#include "machine.h"

/* Of the linker script. */
extern char acorn_region_begin[], acorn_region_end[];

uint32_t acorn_core_features(void) {
  uint64_t core, first, second;
  __asm__("mrs %0, id_aa64pfr0_el1" : "=r"(core));
  __asm__("mrs %0, id_aa64isar0_el1" : "=r"(first));
  __asm__("mrs %0, id_aa64isar1_el1" : "=r"(second));
  if ((core >> 20 & 15) == 15) return 0; /* AdvSIMD: 15 means none */
  uint32_t features = ACORN_CPU_NEON;
  if ((first >> 44 & 15) != 0) features |= ACORN_CPU_NEONDOT;                            /* DP */
  if ((first >> 44 & 15) != 0 && (second >> 52 & 15) != 0) features |= ACORN_CPU_I8MM; /* I8MM */
  return features;
}

/* Not before the instructions ahead of it, which is what a clock is read for. */
uint64_t acorn_ticks(void *ctx) {
  (void)ctx;
  uint64_t now;
  __asm__ volatile("isb\n\tmrs %0, cntvct_el0" : "=r"(now)::"memory");
  return now;
}

uint64_t acorn_ticks_per_second(void) {
  uint64_t frequency;
  __asm__("mrs %0, cntfrq_el0" : "=r"(frequency));
  return frequency;
}

static void log_message(void *ctx, uint32_t level, const char *message, size_t bytes) {
  (void)ctx;
  acorn_baremetal_text(level == 0 ? "acorn: error: " : level == 1 ? "acorn: warning: " : "acorn: ");
  acorn_baremetal_write(message, bytes);
  acorn_baremetal_text("\n");
}

void acorn_baremetal_port(acorn_port *port) {
  const uint32_t cores = acorn_start_cores();
  *port = (acorn_port){.struct_size = sizeof *port, .threads = cores, .log = log_message};
  port->cpu_features = acorn_common_features();
  port->ticks_per_second = acorn_ticks_per_second();
  port->ticks = port->ticks_per_second != 0 ? acorn_ticks : NULL;
  port->parallel_for = cores > 1 ? acorn_run_tasks : NULL;
}

void *acorn_baremetal_region(size_t *bytes) {
  *bytes = (size_t)(acorn_region_end - acorn_region_begin);
  return acorn_region_begin;
}

uint32_t acorn_baremetal_entry_level(void) { return acorn_entry_level; }
