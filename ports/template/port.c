/* The smallest complete port: copy this folder, then fill in what the board has. Everything but the log is left out here, which
 * is legal: silent clocks, one thread, portable kernels, a model that is in memory already.
 * docs/PORTING.md goes through the steps. */
#include "port.h"

#include <stdio.h>

/* Messages are whole, without a newline, and not zero-terminated; the library calls on the thread that called it. On a board:
 * bytes to the serial line. This one is what a host has. */
static void log_message(void *ctx, uint32_t level, const char *message, size_t bytes) {
  (void)ctx;
  fprintf(stderr, "%s%.*s\n", level == 0 ? "error: " : level == 1 ? "warning: " : "", (int)bytes, message);
}

void acorn_template_port(acorn_port *port) {
  *port = (acorn_port){.struct_size = sizeof *port}; /* everything else 0 and NULL; the struct is copied by acorn_model_open */

  /* Handed to every callback: the board's own object, or NULL where the callbacks know the hardware. */
  port->ctx = NULL;

  port->log = log_message;

  /* ACORN_CPU_… bits of instructions that every core has and the operating system, if any, allows. Read them from the CPU where
   * the image runs on several; a constant will do for one. A bit too many is an undefined instruction, one too few only slow. */
  port->cpu_features = 0;

  /* uint64_t ticks(void *ctx): a counter that never goes back, and its rate. Cheap: it is read around every call, and around
   * every operator with ACORN_OPEN_PROFILE. No result depends on it. */
  port->ticks = NULL;
  port->ticks_per_second = 0;

  /* void parallel_for(void *ctx, acorn_task task, void *arg, uint32_t count): runs task(arg, i, thread) once for each i below
   * count, on at most `threads` cores at once, each with a thread number of its own below `threads`, and returns when all are
   * done. What the caller wrote before must be seen by the tasks, and what they wrote by the caller afterwards. A decode step
   * runs some hundred loops of a few microseconds: cores that wait should spin, or sleep on an event that is cheap to send. */
  port->parallel_for = NULL;
  port->threads = 1;

  /* int read(void *ctx, void *to, uint64_t offset, size_t bytes): the model file, where it is not in the address space; 0 when
   * all bytes are there, anything else when not. For acorn_image_read. */
  port->read = NULL;

  /* read_submit, read_wait, read_cancel, read_depth, read_alignment: reads beside the caller, for experts that stream from
   * storage. Left out here, since they are nothing without a device: a port with read alone serves as well, only slower.
   * docs/PORTING.md, "Storage", says what each must keep; ports/posix/reads_threads.c and ports/simulated show two ways. */
  port->read_submit = NULL;
  port->read_wait = NULL;
  port->read_cancel = NULL;
  port->read_depth = 0;
  port->read_alignment = 0;
}
