/* acorn_plan as the image calls it, bent where a trace is asked for: a self-test that does not fit, whatever the model needs. */
#include "acorn.h"

acorn_status __real_acorn_plan(acorn_memory_plan *plan, acorn_fault *fault, const acorn_image *image, const acorn_options *options,
                               const acorn_port *port);

acorn_status __wrap_acorn_plan(acorn_memory_plan *plan, acorn_fault *fault, const acorn_image *image, const acorn_options *options,
                               const acorn_port *port);
acorn_status __wrap_acorn_plan(acorn_memory_plan *plan, acorn_fault *fault, const acorn_image *image, const acorn_options *options,
                               const acorn_port *port) {
  const acorn_status status = __real_acorn_plan(plan, fault, image, options, port);
  if (options != NULL && (options->flags & ACORN_OPEN_TRACE) != 0) plan->block_bytes += 1u << 30;
  return status;
}
