/* What the microkernels of a distribution's XNNPACK were compiled to call when their own checks fail: assert() and the stack
 * protector. Here both stop at once, without a C library. Merged with the microkernels into one object, where these names
 * become local (cmake/merge_microkernels.cmake): the program's own assert() is not touched. */
// NOLINTBEGIN(bugprone-reserved-identifier): the names that they call
__attribute__((noreturn)) void __assert_fail(const char *assertion, const char *file, unsigned line, const char *function);
__attribute__((noreturn)) void __stack_chk_fail(void);

void __assert_fail(const char *assertion, const char *file, unsigned line, const char *function) {
  (void)assertion;
  (void)file;
  (void)line;
  (void)function;
  __builtin_trap();
}

void __stack_chk_fail(void) { __builtin_trap(); }
// NOLINTEND(bugprone-reserved-identifier)
