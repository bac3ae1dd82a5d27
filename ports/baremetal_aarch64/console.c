/* The serial line (a PL011), and every way in which the image ends. */
#include "acorn_baremetal.h"
#include "machine.h"

/* Registers, as 32-bit words: Arm DDI 0183. */
static volatile uint32_t *const uart = (volatile uint32_t *)ACORN_BAREMETAL_UART;
enum { uart_data = 0, uart_flags = 0x18 / 4, uart_line = 0x2c / 4, uart_control = 0x30 / 4 };
enum { uart_full = 1 << 5 }; /* of the flags */

/* Arm's semihosting: the call, and the reason that has an exit status. */
enum { sys_exit_extended = 0x20, adp_stopped_application_exit = 0x20026 };

/* The speed of the line is the firmware's to set. */
void acorn_console_open(void) {
  uart[uart_line] = 0x70;     /* 8 bits, FIFOs on */
  uart[uart_control] = 0x301; /* on, both directions */
}

static void put(char byte) {
  while ((uart[uart_flags] & uart_full) != 0) {
  }
  uart[uart_data] = (uint8_t)byte;
}

void acorn_baremetal_write(const char *text, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) {
    if (text[i] == '\n') put('\r');
    put(text[i]);
  }
}

void acorn_baremetal_text(const char *text) {
  size_t bytes = 0;
  while (text[bytes] != 0) ++bytes;
  acorn_baremetal_write(text, bytes);
}

void acorn_baremetal_number(uint64_t value) {
  char digits[20];
  size_t first = sizeof digits;
  do digits[--first] = (char)('0' + value % 10);
  while ((value /= 10) != 0);
  acorn_baremetal_write(digits + first, sizeof digits - first);
}

void acorn_baremetal_hex(uint64_t value) {
  for (int shift = 60; shift >= 0; shift -= 4) put("0123456789abcdef"[value >> shift & 15]);
}

static void halt(void) __attribute__((noreturn));
static void halt(void) {
  for (;;) __asm__ volatile("wfi");
}

static void switch_off(uint32_t status) __attribute__((noreturn));
static void switch_off(uint32_t status) {
  uint64_t block[2] = {adp_stopped_application_exit, status};
  (void)acorn_semihosting(sys_exit_extended, block);
  (void)acorn_psci(ACORN_PSCI_SYSTEM_OFF, 0, 0, 0);
  halt();
}

void acorn_baremetal_exit(uint32_t status) {
  acorn_baremetal_text("acorn: exit status ");
  acorn_baremetal_number(status);
  acorn_baremetal_text("\n");
  switch_off(status);
}

/* From the vectors, on a stack of its own. kind: the vector's number. */
void acorn_stop_on_exception(uint64_t kind, uint64_t syndrome, uint64_t at, uint64_t address) __attribute__((noreturn));
void acorn_stop_on_exception(uint64_t kind, uint64_t syndrome, uint64_t at, uint64_t address) {
  static const char *const names[4] = {"exception", "interrupt", "fast interrupt", "system error"};
  static uint32_t busy;
  if (__atomic_exchange_n(&busy, 1, __ATOMIC_SEQ_CST) != 0) halt(); /* another core is telling its own */
  uint64_t core;
  __asm__("mrs %0, mpidr_el1" : "=r"(core));
  acorn_baremetal_text("\nacorn: error: unexpected ");
  acorn_baremetal_text(names[kind % 4]);
  acorn_baremetal_text(" on core ");
  acorn_baremetal_number(core & 255);
  acorn_baremetal_text(" at ");
  acorn_baremetal_hex(at);
  acorn_baremetal_text(", address ");
  acorn_baremetal_hex(address);
  acorn_baremetal_text(", syndrome ");
  acorn_baremetal_hex(syndrome);
  acorn_baremetal_text("\n");
  acorn_baremetal_exit(1);
}

/* From the start-up code, with the MMU off. Where nobody takes the exit status, the vectors of EL3 halt. */
void acorn_refuse_el3(void) __attribute__((noreturn));
void acorn_refuse_el3(void) {
  acorn_console_open();
  acorn_baremetal_text("acorn: error: entered at EL3; firmware with PSCI must start the image at EL2 or EL1\n");
  acorn_baremetal_exit(1);
}
