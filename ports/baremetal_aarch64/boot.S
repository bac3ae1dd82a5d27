/* Start-up of every core: down to EL1, vector registers, stack, MMU and caches, then C. And what C cannot say: exception
 * vectors, PSCI calls, semihosting. No memory is written before the MMU is on, except the tables by acorn_map_memory. */
#include "machine.h"

.equ SCTLR_EL1_RESERVED, 0x30d00800  /* bits that are one where no extension gives them a meaning */
.equ SCTLR_EL1_MMU, 0x1005           /* M: MMU, C: data cache, I: instruction cache */
.equ CPACR_EL1_FPEN, 3 << 20         /* vector registers are not trapped */
.equ HCR_EL2_RW, 1 << 31             /* EL1 is AArch64 */
.equ CPTR_EL2_RESERVED, 0x33ff       /* the same at EL2: nothing is trapped */
.equ CNTHCTL_EL2_EL1, 3              /* EL1 may read the counter */
.equ SPSR_EL1H, 0x3c5                /* EL1 with its own stack pointer, every interrupt masked */
.equ MAIR_MEMORY_DEVICE, 0x00ff      /* attribute 0: memory, write-back; attribute 1: device, nGnRnE */
/* 32 bits of virtual and physical address, pages of 4 KiB, walks are cached and inner shareable, no upper half. */
.equ TCR_EL1_VALUE, 32 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23

  .section .text.start, "ax"
  .global acorn_start
acorn_start:
  mov x19, #0 /* x19: the core's number; x20: the exception level that it came in at */
  b enter

  .global acorn_core_entry
acorn_core_entry:
  mov x19, x0

enter:
  msr daifset, #0xf
  mrs x20, CurrentEL
  lsr x20, x20, #2
  cmp x20, #2
  b.lo at_el1
  b.hi at_el3

  ldr x0, =HCR_EL2_RW
  msr hcr_el2, x0
  isb /* the next two registers read otherwise under a host of E2H */
  ldr x0, =CPTR_EL2_RESERVED
  msr cptr_el2, x0
  msr hstr_el2, xzr
  mov x0, #CNTHCTL_EL2_EL1
  msr cnthctl_el2, x0
  msr cntvoff_el2, xzr
  mrs x0, midr_el1
  msr vpidr_el2, x0
  mrs x0, mpidr_el1
  msr vmpidr_el2, x0
  ldr x0, =SCTLR_EL1_RESERVED
  msr sctlr_el1, x0
  mov x0, #SPSR_EL1H
  msr spsr_el2, x0
  adr x0, at_el1
  msr elr_el2, x0
  eret

at_el1:
  ldr x0, =SCTLR_EL1_RESERVED
  msr sctlr_el1, x0
  adrp x0, vectors
  add x0, x0, #:lo12:vectors
  msr vbar_el1, x0
  mov x0, #CPACR_EL1_FPEN
  msr cpacr_el1, x0
  msr tpidr_el0, xzr
  isb

  adrp x0, acorn_stacks
  add x0, x0, #:lo12:acorn_stacks
  add x1, x19, #1
  add x0, x0, x1, lsl #ACORN_STACK_SHIFT
  mov sp, x0

  cbnz x19, enable_mmu
  bl acorn_map_memory

enable_mmu:
  mov x0, #MAIR_MEMORY_DEVICE
  msr mair_el1, x0
  ldr x0, =TCR_EL1_VALUE
  msr tcr_el1, x0
  adrp x0, acorn_table
  add x0, x0, #:lo12:acorn_table
  msr ttbr0_el1, x0
  isb
  tlbi vmalle1
  ic iallu
  dsb nsh
  isb
  ldr x0, =(SCTLR_EL1_RESERVED | SCTLR_EL1_MMU)
  msr sctlr_el1, x0
  isb

  cbz x19, first_core
  mov x0, x19
  bl acorn_core_main /* does not return */

first_core:
  adrp x0, acorn_bss_begin
  add x0, x0, #:lo12:acorn_bss_begin
  adrp x1, acorn_bss_end
  add x1, x1, #:lo12:acorn_bss_end
1:
  cmp x0, x1
  b.hs 2f
  stp xzr, xzr, [x0], #16
  b 1b
2:
  adrp x0, acorn_entry_level
  str w20, [x0, #:lo12:acorn_entry_level]
  bl acorn_console_open
  bl acorn_baremetal_main
  bl acorn_baremetal_exit /* does not return */

/* There is firmware to be written before EL3 may be left; the serial line works at any level, and semihosting where it is. */
at_el3:
  adrp x0, vectors_el3
  add x0, x0, #:lo12:vectors_el3
  msr vbar_el3, x0
  isb
  mrs x0, mpidr_el1
  tst x0, #0xff
  b.ne wait_for_ever /* QEMU starts all cores here: one of them speaks */
  adrp x0, acorn_stacks + ACORN_STACK_BYTES
  add x0, x0, #:lo12:(acorn_stacks + ACORN_STACK_BYTES)
  mov sp, x0
  bl acorn_refuse_el3 /* does not return */

  .section .stacks, "aw", %nobits
  .balign 16
acorn_stacks:
  .skip ACORN_MAX_CORES * ACORN_STACK_BYTES
acorn_exception_stack:
  .skip ACORN_EXCEPTION_STACK_BYTES

  .bss
  .balign 4
  .global acorn_entry_level
acorn_entry_level:
  .word 0

/* Nothing here is expected but the semihosting call that nobody takes: an undefined instruction, passed over with -1. */
  .section .text.vectors, "ax"
  .macro vector kind
  .balign 128
  .if \kind == 4
  msr tpidr_el1, x1
  mrs x1, esr_el1
  lsr x1, x1, #26 /* the exception's class; 0: undefined instruction */
  cbnz x1, 1f
  mrs x1, elr_el1
  adr x0, semihosting_instruction
  cmp x0, x1
  b.ne 1f
  add x1, x1, #4
  msr elr_el1, x1
  mov x0, #-1
  mrs x1, tpidr_el1
  eret
1:
  .endif
  mov x0, #\kind
  b stop
  .endm

  .balign 2048
vectors:
  .irp kind, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
  vector \kind
  .endr

/* A semihosting call that nobody takes, after the last word has been said. */
  .balign 2048
vectors_el3:
  .rept 16
  .balign 128
  b wait_for_ever
  .endr

/* The stack may be what is broken, so there is another; should that not do either, a last word without memory.
 * tpidr_el0 counts this core's exceptions. */
stop:
  mrs x4, tpidr_el0
  add x5, x4, #1
  msr tpidr_el0, x5
  cbnz x4, stop_again
  adrp x1, acorn_exception_stack + ACORN_EXCEPTION_STACK_BYTES
  add x1, x1, #:lo12:(acorn_exception_stack + ACORN_EXCEPTION_STACK_BYTES)
  mov sp, x1
  mrs x1, esr_el1
  mrs x2, elr_el1
  mrs x3, far_el1
  bl acorn_stop_on_exception /* does not return */

stop_again:
  cmp x4, #1
  b.ne wait_for_ever
  adr x0, last_word
  ldr x1, =ACORN_BAREMETAL_UART
1:
  ldrb w2, [x0], #1
  cbz w2, wait_for_ever
  str w2, [x1]
  b 1b
wait_for_ever:
  wfi
  b wait_for_ever
last_word:
  .asciz "error: fault\r\n" /* fits the line's FIFO of 16 */
  .balign 4

  .global acorn_semihosting
acorn_semihosting:
semihosting_instruction:
  hlt #0xf000
  ret

  .global acorn_psci_hvc
acorn_psci_hvc:
  hvc #0
  ret

  .global acorn_psci_smc
acorn_psci_smc:
  smc #0
  ret
