#!/usr/bin/env bash
# What an image must not have: a heap, a C or C++ library, anything undefined; and how large its code may be.
#
#   no_heap.sh NM OBJDUMP IMAGE MAX_CODE_BYTES
set -euo pipefail
nm=$1 objdump=$2 image=$3 limit=$4
forbidden='^(malloc|calloc|realloc|free|aligned_alloc|posix_memalign|_?sbrk|brk|mmap|_Zn[wa].*|_Zd[la].*|_ZSt.*|_ZNSt.*|__cxa_.*'
forbidden+='|[a-z]*printf(_chk)?|puts|putchar|fwrite|exit|abort|__assert_fail|_Unwind_.*|__gxx_.*)$'
symbols=$("$nm" -P "$image")
if [ -z "$symbols" ]; then
  echo "FAILED: the image has no symbols to look at" >&2
  exit 1
fi
# A local __assert_fail is the trap of runtime/kernels/xnnpack/traps.c.
if found=$(awk '$1 != "__assert_fail" || $2 != "t" {print $1}' <<<"$symbols" | grep -E "$forbidden"); then
  echo "FAILED: the image has $found" >&2
  exit 1
fi
if found=$(awk '$2 == "U" || $2 == "w"' <<<"$symbols" | grep .); then
  echo "FAILED: undefined: $found" >&2
  exit 1
fi
code=0
for bytes in $("$objdump" -h "$image" | awk '$2 == ".text" || $2 == ".rodata" {print $3}'); do code=$((code + 16#$bytes)); done
echo "code and constants: $code bytes of $limit"
[ "$code" -gt 0 ] && [ "$code" -le "$limit" ]
