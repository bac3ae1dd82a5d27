#!/usr/bin/env bash
# Everything from nothing: set-up, builds for this machine and for every other one, every test (the others' under QEMU), the
# digests of all machines side by side, what hostile files and faults meet under sanitizers, a minute of each fuzz target and
# beside them a soak of three minutes. No input, no questions. Ends with "N passed, N failed".
#
#   bash tests/run.sh                     all of it
#   bash tests/run.sh --all               also SmolLM2-135M-Instruct on every machine (a quarter of an hour more, with its conversion)
#   bash tests/run.sh --host              this machine only
#   bash tests/run.sh -L kernel           ctest's options, for every build
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

jobs=$(nproc 2>/dev/null || echo 2)
[ "$jobs" -le 8 ] || jobs=8
presets=(release aarch64 armhf riscv64 s390x aarch64-baremetal)
same_bits=(bash tests/same_bits.sh)
# Of one seed: a gate says the same of the same tree. Five at a time, more than there may be CPUs: a minute of each is meant.
fuzz=(env ACORN_FUZZ_SEED=1 ACORN_FUZZ_JOBS=5 bash tests/fuzz/run.sh 60)
# Models without and with rates, states and experts; the latter are made by ctest.
soak=(build/release/tests/acorn_soak --minutes 3 examples/models/{home,moe}.acorn
  build/release/soak/{llama,qwen2_moe,mamba2,bamba}.acorn)
sanitize=1
options=()
for argument in "$@"; do
  case "$argument" in
    --all) same_bits+=(--all) ;;
    --host) presets=(release) same_bits=() fuzz=() soak=() sanitize=0 ;;
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    *) options+=("$argument") fuzz=() soak=() sanitize=0 ;;
  esac
done

setup=(--fetch --train)
[ "${#presets[@]}" = 1 ] || setup+=(--cross)
bash toolchains/setup.sh "${setup[@]}" </dev/null
if [ "${#fuzz[@]}" != 0 ] && ! bash toolchains/setup.sh --fuzz </dev/null; then
  echo "tests: without Clang's libFuzzer, so nothing is fuzzed" >&2
  fuzz=()
fi
# Real weights for the tests that need them; without them those are skipped by name.
bash toolchains/fetch_smollm2.sh </dev/null || echo "tests: without SmolLM2's weights" >&2

# With options of the caller's, a build may have no test that they choose.
[ "${#options[@]}" != 0 ] || options=(--no-tests=error)

passed=0 failed=0 summary="" fallen="" skipped=""
output=$(mktemp)
trap 'rm -f "$output"' EXIT
suite() {  # NAME COMMAND...: runs it and adds up what its closing line says, ctest's or "N passed, F failed"
  local name="$1" begin=$SECONDS good bad skips
  shift
  "$@" </dev/null 2>&1 | tee "$output" || true
  read -r good bad < <(sed -n -e 's/.* \([0-9]*\) tests\{0,1\} failed out of \([0-9]*\)$/\2 \1/p' \
    -e 's/^100% tests passed out of \([0-9]*\)$/\1 0/p' \
    -e 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$output" | tail -n 1) || true
  case "$name" in same_bits | fuzz | soak) ;; *) good=$((${good:-0} - ${bad:-0})) ;; esac
  if [ -z "${bad:-}" ]; then
    grep -q '^No tests were found' "$output" && bad=0 || bad=1  # 1: it did not get as far as its closing line
  fi
  skips=$(sed -n 's/^[[:space:]]*[0-9]* - \([^/ ]*\).* (Skipped)$/\1/p' "$output" | sort | uniq -c)
  [ -z "$skips" ] || skipped+="$name:"$'\n'"$skips"$'\n'
  skips=$(grep -c '^[[:space:]]*[0-9]* - .* (Skipped)$' "$output" || true)
  good=$((good - skips))
  passed=$((passed + good)) failed=$((failed + bad))
  # What failed comes once more with the totals: between them and its output lie the other machines' thousands of lines.
  [ "$bad" = 0 ] || fallen+="$name:"$'\n'"$(grep -E -A 8 '\*\*\*(Failed|Timeout|Exception|Not Run)|: Failure$|FAILED: ' "$output" | head -n 60 || true)"$'\n'
  summary+=$(printf '%-18s %5d passed, %d failed, %d skipped  (%d s)' "$name" "$good" "$bad" "$skips" $((SECONDS - begin)))$'\n'
}

build() {  # PRESET OPTION...: configures and builds it
  local begin=$SECONDS preset=$1
  shift
  if ! { cmake --preset "$preset" && cmake --build "build/$preset" -j "$jobs" "$@"; } </dev/null; then
    failed=$((failed + 1))
    summary+="$preset: did not build"$'\n'
    return 1
  fi
  echo "tests: built $preset in $((SECONDS - begin)) s" >&2
}

for preset in "${presets[@]}"; do
  ! build "$preset" || suite "$preset" ctest --preset "$preset" -j 2 --output-on-failure "${options[@]}"
done
[ "${#same_bits[@]}" = 0 ] || suite same_bits "${same_bits[@]}"

if [ "$sanitize" = 1 ]; then
  checks=(ctest -j 2 --output-on-failure "${options[@]}" -R)
  # The fuzz targets' build has AddressSanitizer, UndefinedBehaviorSanitizer and debug checks too, and a library wanted anyway.
  preset=sanitize
  [ "${#fuzz[@]}" = 0 ] || preset=fuzz
  ! build "$preset" --target acorn_hostile ||
    suite sanitize "${checks[@]}" '^(evil_[a-z_]*|session_stop|port_faults|oom)\.|^session\..*Snapshot' --test-dir "build/$preset"
  ! build thread-sanitize --target acorn_test_session_concurrent ||
    suite thread-sanitize "${checks[@]}" '^session_concurrent\.' --test-dir build/thread-sanitize
fi

if [ "${#soak[@]}" != 0 ]; then
  "${soak[@]}" >build/soak.log 2>&1 </dev/null &
  soaks=$!
fi
[ "${#fuzz[@]}" = 0 ] || suite fuzz "${fuzz[@]}"
if [ "${#soak[@]}" != 0 ]; then
  soaked="1 passed, 0 failed"
  wait "$soaks" || soaked="0 passed, 1 failed"
  suite soak bash -c "cat build/soak.log; echo '$soaked'"
fi

[ -z "$skipped" ] || printf '\nskipped, as this machine has no such kernel or tool, or a case does not apply:\n%s' "$skipped"
[ -z "$fallen" ] || printf '\nfailed:\n%s' "$fallen"
printf '\n%s\n%d passed, %d failed\n' "$summary" "$passed" "$failed"
[ "$failed" = 0 ]
