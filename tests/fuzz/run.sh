#!/usr/bin/env bash
# Builds the fuzz targets (preset fuzz) and runs them under libFuzzer with AddressSanitizer and UndefinedBehaviorSanitizer.
#
#   bash tests/fuzz/run.sh [SECONDS] [TARGET...]   every target, or those named, for SECONDS each (default 60)
#   ACORN_FUZZ_JOBS=1 bash tests/fuzz/run.sh ...   one at a time instead of two
#   ACORN_FUZZ_SEED=1 bash tests/fuzz/run.sh ...   the same changes as every run of this seed, as far as time goes (default: others)
#
# Inputs that reach something new are kept in build/fuzz/corpus: another run goes on from there. What crashes, hangs, leaks or asks
# for too much memory is kept in build/fuzz/crashes, and the table says so. Exits with 1 if there is any. Needs what
# toolchains/setup.sh --fuzz installs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

seconds=60
if [ $# -gt 0 ]; then
  case "$1" in
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    *[!0-9]*) ;;
    *) seconds=$1; shift ;;
  esac
fi
readonly all=(model snapshot tokenizer text detokenizer chat safetensors hugging_face gguf llama2c config_json tokenizer_json
  sentencepiece)
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=("${all[@]}")
readonly jobs=${ACORN_FUZZ_JOBS:-2} seed=${ACORN_FUZZ_SEED:-0} work=build/fuzz

mkdir -p build
cmake --preset fuzz >"build/fuzz.log" 2>&1 && cmake --build --preset fuzz >>"build/fuzz.log" 2>&1 || {
  tail -n 40 build/fuzz.log >&2
  exit 1
}
mkdir -p "$work/logs" "$work/crashes"
"$work/bin/acorn_fuzz_seeds" "$work/seeds"
# Files for importers are written anew for each input.
[ ! -w /dev/shm ] || export TMPDIR=/dev/shm
export ASAN_OPTIONS=quarantine_size_mb=16

run_target() {  # target; leaves its log and its exit status
  local target=$1 folders=("$work/corpus/$1" "$work/seeds/$1")
  mkdir -p "${folders[@]}"
  [ ! -d "tests/fuzz/corpus/$target" ] || folders+=("tests/fuzz/corpus/$target")
  local status=0 words=()
  case "$target" in text | tokenizer | chat) words=(-dict=tests/fuzz/text.dict) ;; esac
  "$work/fuzz/acorn_fuzz_$target" "${words[@]}" -seed="$seed" -max_total_time="$seconds" -timeout=60 -rss_limit_mb=2048 -malloc_limit_mb=512 \
    -print_final_stats=1 -artifact_prefix="$work/crashes/$target-" "${folders[@]}" >"$work/logs/$target" 2>&1 || status=$?
  echo "$status" >"$work/logs/$target.status"
}

for target in "${targets[@]}"; do
  while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
  run_target "$target" &
done
wait

stat_of() { sed -n "s/^stat::$2: *//p" "$work/logs/$1" | tail -n 1; }
last_of() { grep -o "$2: [0-9]*" "$work/logs/$1" | tail -n 1 | grep -o '[0-9]*' || true; }
failed=0
printf '%-16s %12s %8s %8s %8s %8s  %s\n' target executions per_s edges corpus peak_MB result
for target in "${targets[@]}"; do
  result=passed
  if [ "$(cat "$work/logs/$target.status")" != 0 ]; then
    failed=$((failed + 1))
    result="FAILED: $work/logs/$target, $(grep -o 'Test unit written to .*' "$work/logs/$target" | tail -n 1 | sed 's/.* //')"
  fi
  row=("$target" "$(stat_of "$target" number_of_executed_units)" "$(stat_of "$target" average_exec_per_sec)" "$(last_of "$target" cov)"
    "$(last_of "$target" corp)" "$(stat_of "$target" peak_rss_mb)")
  printf '%-16s %12s %8s %8s %8s %8s  %s\n' "${row[@]:-0}" "$result"
  echo "$(date +%FT%T),$seconds,$(IFS=,; echo "${row[*]}"),${result%%:*}" >>"$work/runs.csv"
done
for target in "${targets[@]}"; do
  [ "$(cat "$work/logs/$target.status")" = 0 ] || tail -n 40 "$work/logs/$target" | cut -c 1-300
done
echo "$((${#targets[@]} - failed)) passed, $failed failed"
[ "$failed" = 0 ]
