/* An image that breaks down at once, so that a test can see it say so. */
#include "acorn_baremetal.h"

#if defined(FAULT_NULL_POINTER)
static uint32_t break_down(void) {
  uint32_t *volatile nowhere = NULL;
  return *nowhere;
}
#elif defined(FAULT_STACK)
static uint32_t use_stack(volatile uint32_t *depth) {
  volatile uint32_t next = *depth + 1;
  return next == 0 ? 0 : use_stack(&next) + next;
}
static uint32_t break_down(void) {
  volatile uint32_t depth = 1;
  return use_stack(&depth);
}
#elif defined(FAULT_OTHER_CORE)
static void fault_elsewhere(void *arg, uint32_t task, uint32_t thread) {
  (void)task;
  if (thread != 0) *(volatile uint32_t *volatile *)arg = *(uint32_t *volatile *)NULL;
}
static uint32_t break_down(void) {
  acorn_port port;
  void *nowhere = NULL;
  acorn_baremetal_port(&port);
  for (uint32_t i = 0; i < 1000000; ++i) port.parallel_for(port.ctx, fault_elsewhere, &nowhere, 64);
  return 0;
}
#endif

uint32_t acorn_baremetal_main(void) { return break_down(); }
