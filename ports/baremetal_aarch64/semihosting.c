/* Files through the debugger or emulator: Arm's semihosting calls. */
#include "acorn_baremetal.h"
#include "machine.h"

enum { sys_open = 0x01, sys_read = 0x06, sys_seek = 0x0a, sys_get_cmdline = 0x15 };
enum { open_read_binary = 1 };

static uint64_t model_file;

static int read_file(void *ctx, void *to, uint64_t offset, size_t bytes) {
  (void)ctx;
  if (bytes == 0) return 0;
  uint64_t seek[2] = {model_file, offset};
  if (acorn_semihosting(sys_seek, seek) != 0) return -1;
  uint64_t read[3] = {model_file, (uintptr_t)to, bytes};
  return acorn_semihosting(sys_read, read) == 0 ? 0 : -1; /* the answer counts the bytes that were not read */
}

int acorn_baremetal_open_file(acorn_port *port, const char *path) {
  size_t bytes = 0;
  while (path[bytes] != 0) ++bytes;
  uint64_t open[3] = {(uintptr_t)path, open_read_binary, bytes};
  const int64_t handle = acorn_semihosting(sys_open, open);
  if (handle == -1) return -1;
  model_file = (uint64_t)handle;
  port->read = read_file;
  return 0;
}

int acorn_baremetal_command_line(char *text, size_t capacity) {
  uint64_t line[2] = {(uintptr_t)text, capacity};
  return acorn_semihosting(sys_get_cmdline, line) == 0 ? 0 : -1;
}
