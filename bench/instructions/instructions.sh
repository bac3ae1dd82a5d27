#!/usr/bin/env bash
# Executed instructions of five fixed workloads (workload.cc), counted by callgrind and held to the committed counts: a change
# that makes one of them dearer or cheaper by more than 2 % fails until the counts are renewed in the same change. Counts repeat
# on every machine, whatever runs beside; time never gates.
#
#   bash bench/instructions/instructions.sh [PROGRAM]            compares; PROGRAM: build/release/bin/acorn_bench_instructions
#   bash bench/instructions/instructions.sh --renew [PROGRAM]    writes counts.txt
#
# Valgrind shows every program the same CPU, with AVX2 and without AVX-512, where the machine has AVX2 at least; so the C library
# chooses the same functions too. What is not fixed is the compiler: counts.txt names the one that made it.
# Exit codes: 0 all within 2 %; 1 not; 77 nothing could be compared, for the reason that is printed.
set -euo pipefail
invoked_from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
readonly counts=bench/instructions/counts.txt percent=2
renew=0
[ "${1:-}" != --renew ] || { renew=1; shift; }
[ $# -le 1 ] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' bench/instructions/instructions.sh; exit 2; }
program=$(cd "$invoked_from" && realpath "${1:-$OLDPWD/build/release/bin/acorn_bench_instructions}")

skip() { echo "instructions: skipped: $*" >&2; exit 77; }
command -v valgrind >/dev/null || skip "no valgrind (toolchains/setup.sh installs it)"
grep -qw avx2 /proc/cpuinfo || skip "this CPU has no AVX2"
compiler=$("$program" --compiler)
[ "$renew" = 1 ] || grep -qx "# compiler $compiler" "$counts" ||
  skip "the counts are those of $(sed -n 's/^# compiler //p' "$counts"), the program is by $compiler"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
count() {  # WORKLOAD
  # Of the environment the C library reads GLIBC_TUNABLES alone for its choices.
  env -u GLIBC_TUNABLES valgrind --tool=callgrind --callgrind-out-file="$work/out" --toggle-collect='acorn::Work(*' \
    "$program" "$1" examples/models >"$work/log" 2>&1 || {
    tail -n 5 "$work/log" >&2
    return 1
  }
  sed -n 's/^==[0-9]*== Collected : //p' "$work/log"
}

failed=0
{
  echo "# Instructions of each workload: bash bench/instructions/instructions.sh --renew"
  echo "# compiler $compiler"
  for workload in $("$program" --list); do
    now=$(count "$workload")
    echo "$workload $now"
    [ "$renew" = 0 ] || continue
    then=$(sed -n "s/^$workload //p" "$counts")
    change=$(awk -v now="$now" -v before="${then:-0}" 'BEGIN { if (before > 0) printf "%+.3f", 100 * now / before - 100 }')
    echo "$workload: $now instructions, ${then:-no} before${change:+, $change %}" >&2
    awk -v change="${change:-100}" -v most="$percent" 'BEGIN { exit !(change <= most && change >= -most) }' || {
      echo "instructions: $workload is not within $percent % of $counts; if that is meant, renew it in the same change" >&2
      failed=1
    }
  done
} >"$work/counts"
[ "$renew" = 0 ] || cp "$work/counts" "$counts"
[ "$renew" = 0 ] || cat "$counts"
exit "$failed"
