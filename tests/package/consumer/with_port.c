/* The same with the POSIX port: threads and CPU features of this machine. */
#include <acorn.h>
#include <acorn_posix.h>

int main(void) {
  acorn_port port;
  acorn_image nothing = {NULL, 0};
  acorn_memory_plan plan;
  acorn_posix *posix = acorn_posix_create(2);
  acorn_status status;

  if (posix == NULL) return 1;
  acorn_posix_port(posix, &port, 0);
  plan.struct_size = sizeof plan;
  status = acorn_plan(&plan, NULL, &nothing, NULL, &port); /* nothing is no model */
  acorn_posix_destroy(posix);
  return status != ACORN_OK && port.threads == 2 ? 0 : 1;
}
