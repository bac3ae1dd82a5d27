/* What the parts of the port share; for C and assembly alike. */
#ifndef ACORN_BAREMETAL_MACHINE_H_
#define ACORN_BAREMETAL_MACHINE_H_

#define ACORN_MAX_CORES 8        /* of the first cluster: affinities 0 to 7 */
#define ACORN_STACK_SHIFT 16     /* 64 KiB a core: an answer takes 8 KiB (measured), one frame of the library 16 KiB at most */
#define ACORN_STACK_BYTES (1 << ACORN_STACK_SHIFT)
#define ACORN_EXCEPTION_STACK_BYTES 4096

#if !defined(__ASSEMBLER__)
#include <stdint.h>

/* boot.S */
extern const char acorn_core_entry[];                 /* where PSCI sends a core that is switched on; context: its number */
extern uint32_t acorn_entry_level;                    /* the exception level that the image was entered at */
int64_t acorn_psci_hvc(uint64_t function, uint64_t a, uint64_t b, uint64_t c);
int64_t acorn_psci_smc(uint64_t function, uint64_t a, uint64_t b, uint64_t c);
int64_t acorn_semihosting(uint64_t operation, void *argument); /* -1 where nobody listens */

/* cores.c */
#define ACORN_PSCI_SYSTEM_OFF 0x84000008u
#define ACORN_PSCI_CPU_ON 0xc4000003u
int64_t acorn_psci(uint64_t function, uint64_t a, uint64_t b, uint64_t c);
uint32_t acorn_start_cores(void);                     /* how many there are, the first among them */
uint32_t acorn_common_features(void);                 /* ACORN_CPU_ bits of all that were started */
void acorn_run_tasks(void *ctx, void (*task)(void *arg, uint32_t task, uint32_t thread), void *arg, uint32_t count);

/* port.c */
uint32_t acorn_core_features(void);                   /* ACORN_CPU_ bits of the core that asks */
uint64_t acorn_ticks(void *ctx);
uint64_t acorn_ticks_per_second(void);                /* 0: the firmware has not said */

/* console.c */
void acorn_console_open(void);
#endif

#endif /* ACORN_BAREMETAL_MACHINE_H_ */
