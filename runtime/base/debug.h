// ACORN_DCHECK: checks of our own invariants, compiled out of release builds. Never used on file contents or caller input.
#pragma once

#if defined(ACORN_DEBUG_CHECKS)
#define ACORN_DCHECK(condition) ((condition) ? (void)0 : __builtin_trap())
#else
#define ACORN_DCHECK(condition) ((void)0)
#endif
