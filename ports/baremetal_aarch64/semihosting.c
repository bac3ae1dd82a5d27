/* Files through the debugger or emulator: Arm's semihosting calls. */
#include "acorn_baremetal.h"
#include "machine.h"

#define SYS_OPEN 0x01
#define SYS_READ 0x06
#define SYS_SEEK 0x0a
#define SYS_GET_CMDLINE 0x15
#define OPEN_READ_BINARY 1

static uint64_t model_file;

static int read_file(void *ctx, void *to, uint64_t offset, size_t bytes) {
  (void)ctx;
  if (bytes == 0) return 0;
  uint64_t seek[2] = {model_file, offset};
  if (acorn_semihosting(SYS_SEEK, seek) != 0) return -1;
  uint64_t read[3] = {model_file, (uintptr_t)to, bytes};
  return acorn_semihosting(SYS_READ, read) == 0 ? 0 : -1; /* the answer counts the bytes that were not read */
}

int acorn_baremetal_open_file(acorn_port *port, const char *path) {
  size_t bytes = 0;
  while (path[bytes] != 0) ++bytes;
  uint64_t open[3] = {(uintptr_t)path, OPEN_READ_BINARY, bytes};
  const int64_t handle = acorn_semihosting(SYS_OPEN, open);
  if (handle == -1) return -1;
  model_file = (uint64_t)handle;
  port->read = read_file;
  return 0;
}

int acorn_baremetal_command_line(char *text, size_t capacity) {
  uint64_t line[2] = {(uintptr_t)text, capacity};
  return acorn_semihosting(SYS_GET_CMDLINE, line) == 0 ? 0 : -1;
}
