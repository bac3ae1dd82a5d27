#!/usr/bin/env bash
# Acorn beside llama.cpp on the same weights and machine, in interleaved pairs: A B A B …, medians and the ratio pair by pair.
#
#   LLAMA_BENCH='llama-bench' bash bench/peers/llama_cpp.sh FILE.acorn FILE.gguf [PAIRS] [PROMPT] [GENERATED] [THREADS]
#
# LLAMA_BENCH is any command that behaves as llama-bench (in a container, say); FILE.gguf is named as that command sees it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
file=$1 gguf=$2 pairs=${3:-5} prompt=${4:-128} generated=${5:-128} threads=${6:-2}
acorn=${ACORN:-build/release/bin/acorn}
read -r -a peer <<<"${LLAMA_BENCH:-llama-bench}"

number() { sed -n "s/.*\"$1\": *\([0-9.]*\).*/\1/p"; }
median() { sort -n | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
spread() { sort -n | awk 'NR == 1 { low = $1 } { high = $1 } END { print low " to " high }'; }

rows=$(mktemp)
trap 'rm -f "$rows"' EXIT
for ((pair = 1; pair <= pairs; ++pair)); do
  ours=$("$acorn" bench "$file" --prompt-tokens "$prompt" --gen-tokens "$generated" --threads "$threads" --json 2>/dev/null)
  theirs=$("${peer[@]}" -m "$gguf" -p "$prompt" -n "$generated" -t "$threads" -r 3 -o jsonl 2>/dev/null)
  their_prefill=$(grep "\"n_prompt\": $prompt" <<<"$theirs" | number avg_ts | head -n 1)
  their_decode=$(grep "\"n_gen\": $generated" <<<"$theirs" | number avg_ts | head -n 1)
  printf '%s %s %s %s\n' "$(number prefill_tokens_per_s <<<"$ours")" "$(number decode_tokens_per_s <<<"$ours")" \
    "$their_prefill" "$their_decode" >>"$rows"
  tail -n 1 "$rows" >&2
done
printf '| %s pairs, %s threads | Acorn | llama.cpp | ratio, median (spread) |\n|---|---|---|---|\n' "$pairs" "$threads"
part() {  # NAME OUR_COLUMN THEIR_COLUMN
  printf '| %s, tokens/s | %s | %s | %s (%s) |\n' "$1" "$(awk -v c="$2" '{ print $c }' "$rows" | median)" \
    "$(awk -v c="$3" '{ print $c }' "$rows" | median)" \
    "$(awk -v a="$2" -v b="$3" '{ printf "%.3f\n", $a / $b }' "$rows" | median)" \
    "$(awk -v a="$2" -v b="$3" '{ printf "%.3f\n", $a / $b }' "$rows" | spread)"
}
part "prefill of $prompt" 1 3
part "decode of $generated" 2 4
