/* acorn_baremetal: what acorn_port asks for, on a 64-bit Arm core without an operating system: cores started through PSCI,
 * CPU features from the identification registers, the generic timer, a PL011 serial line; and the one region of memory that
 * the linker script sets aside. C99, no heap. The machine is there once, so these functions take no object. */
#ifndef ACORN_BAREMETAL_H_
#define ACORN_BAREMETAL_H_

#include <stddef.h>
#include <stdint.h>

#include "acorn_port.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Called by the start-up code on the first core, with the MMU, the caches and the vector registers on. The return value is
 * handed to acorn_baremetal_exit. */
uint32_t acorn_baremetal_main(void);

/* Starts the other cores (at the first call) and fills in the port. port.read is NULL: acorn_baremetal_open_file sets it. */
void acorn_baremetal_port(acorn_port *port);

/* The region of the linker script: aligned to pages, the program's to use. */
void *acorn_baremetal_region(size_t *bytes);

/* The exception level that the image was entered at: 1 or 2. */
uint32_t acorn_baremetal_entry_level(void);

/* Text on the serial line; "\n" goes out as "\r\n". */
void acorn_baremetal_write(const char *text, size_t bytes);
void acorn_baremetal_text(const char *text);     /* zero-terminated */
void acorn_baremetal_number(uint64_t value);     /* decimal */
void acorn_baremetal_hex(uint64_t value);        /* 16 digits */

/* Prints the status and ends: with it where a debugger or an emulator listens (semihosting), else by PSCI SYSTEM_OFF. */
void acorn_baremetal_exit(uint32_t status) __attribute__((noreturn));

/* Semihosting: a file of the machine that the debugger or emulator runs on becomes what port.read reads.
 * Returns 0, or -1 with the port unchanged: nobody listens, or no such file. */
int acorn_baremetal_open_file(acorn_port *port, const char *path);

/* Semihosting: the command line that the image was given, zero-terminated. Returns 0, or -1 if there is none or it does not
 * fit. */
int acorn_baremetal_command_line(char *text, size_t capacity);

#ifdef __cplusplus
}
#endif

#endif /* ACORN_BAREMETAL_H_ */
