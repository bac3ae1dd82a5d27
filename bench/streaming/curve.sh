#!/usr/bin/env bash
# Decoding at several sizes of the expert cache, beside what `acorn replay` predicts from a trace of the same tokens, the times of
# this machine and the latency of its disk: a Markdown table, medians of rounds in which the sizes take turns.
#
#   bash bench/streaming/curve.sh FILE.acorn
#
#   PERCENT="12.5 25 50 75 100"  of the experts in memory
#   TOKENS=1000 THREADS=2        decoded after a prompt of one token, random ids of seed 0
#   ROUNDS=5 POLICY=lfru
#   ACORN, BIN                   build/release/bin/acorn; the folder of acorn_bench_read
set -euo pipefail
invoked_from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ $# -eq 1 ] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' bench/streaming/curve.sh; exit 2; }
file=$(cd "$invoked_from" && realpath "$1")
read -r -a percents <<<"${PERCENT:-12.5 25 50 75 100}"
tokens=${TOKENS:-1000} threads=${THREADS:-2} rounds=${ROUNDS:-5} policy=${POLICY:-lfru}
acorn=${ACORN:-build/release/bin/acorn} bin=${BIN:-build/release/bin}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

number() { sed -n "s/.*\"$1\": *\([0-9.]*\).*/\1/p"; }  # of the JSON on standard input
median() { sort -g "$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
range() { sort -g "$1" | awk 'NR == 1 { low = $1 } { high = $1 } END { printf "%.0f to %.0f", low, high }'; }
raw() { "$bin/acorn_bench_read" "$file" --size "$record" --bytes 64M --rounds 1 --method io_uring --json "$@"; }

plan=$("$acorn" plan "$file" --expert-cache 1G --json)
experts=$(number experts <<<"$plan") record=$(number expert_record_bytes <<<"$plan")
predict() {  # TRACE BYTES: seconds a token
  "$acorn" replay "$1" --cache "$2" --policy "$policy" --device "$latency:$rate:16" --json | sed "s/.*\"$policy\": {//;s/}.*//" |
    number decode_tokens_per_s | awk '{ print 1 / $1 }'
}
slots_of() { awk -v all="$experts" -v percent="$1" 'BEGIN { print int(all * percent / 100 + 0.5) }'; }

for ((round = 0; round < rounds; ++round)); do
  # The mean time of a read is the latency and its bytes at the rate that many reads together have.
  rate=$(raw --depth 8 | number mb_per_s)
  latency=$(raw --depth 1 --gap-us 70 | number mean_us |
    awk -v bytes="$record" -v rate="$rate" '{ us = $1 - bytes / rate; printf "%.1f", (us > 0 ? us : 0) }')
  echo "$latency" >>"$work/latency"
  echo "$rate" >>"$work/rate"
  "$acorn" trace "$file" --random $((tokens + 1)) --prompt-tokens 1 --context $((tokens + 1)) --threads "$threads" -o "$work/trace" >"$work/said"
  # The bench's cache has seen the tokens once before the pass that is timed, a replay's has not: of two passes the second.
  { cat "$work/trace" && tail -c +$((73 + 4 * experts)) "$work/trace"; } >"$work/twice"
  "$acorn" bench "$file" --prompt-tokens 1 --gen-tokens "$tokens" --repetitions 1 --threads "$threads" --json |
    number decode_tokens_per_s >>"$work/resident"
  for percent in "${percents[@]}"; do
    bytes=$(($(slots_of "$percent") * record))
    "$acorn" bench "$file" --prompt-tokens 1 --gen-tokens "$tokens" --repetitions 1 --threads "$threads" --expert-cache "$bytes" \
      --expert-policy "$policy" --json >"$work/out"
    number decode_tokens_per_s <"$work/out" >>"$work/measured-$percent"
    awk -v hits="$(number hits <"$work/out")" -v misses="$(number misses <"$work/out")" 'BEGIN { print 100 * hits / (hits + misses) }' \
      >"$work/hits-$percent"
    awk -v once="$(predict "$work/trace" "$bytes")" -v twice="$(predict "$work/twice" "$bytes")" 'BEGIN { print 1 / (2 * twice - once) }' \
      >>"$work/predicted-$percent"
  done
done

echo "$experts experts of $record bytes; a read $(median "$work/latency") us and its bytes at $(median "$work/rate") MB/s"
echo
echo "| experts in memory | hits | tokens/s | | replay's | |"
echo "|---|---|---|---|---|---|"
for percent in "${percents[@]}"; do
  measured=$(median "$work/measured-$percent") predicted=$(median "$work/predicted-$percent")
  printf '| %s, %s %% | %.1f %% | %.0f | %s | %.0f | %.2f |\n' "$(slots_of "$percent")" "$percent" "$(cat "$work/hits-$percent")" \
    "$measured" "$(range "$work/measured-$percent")" "$predicted" "$(awk "BEGIN { print $measured / $predicted }")"
done
printf '| all, where they lie in the file | | %.0f | %s | | |\n' "$(median "$work/resident")" "$(range "$work/resident")"
