// How the ISA files tell the compiler what to unroll and to inline. They rely on it: registers are counted.
#pragma once

/// Before a loop whose count is a constant of at most 16: no loop is left of it.
#define ACORN_UNROLL _Pragma("GCC unroll 16")
#define ACORN_INLINE __attribute__((always_inline)) inline
/// For blocks: several inlined into one function have the compiler spill registers.
#define ACORN_NOINLINE __attribute__((noinline))
