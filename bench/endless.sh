#!/usr/bin/env bash
# What a conversation without an end costs: the bytes of the plan, perplexity of one long stream beside that of windows computed
# afresh, and the speed of a token after 1,024 to 32,768 others.
#
#   bash bench/endless.sh FILE.acorn TEXT [TOKENS]      FILE: of `acornc convert --window W`; TOKENS: of the stream, default 32768
#
# Afresh: for each block of 256 tokens an empty session sees what is before them in a window of W, and scores the block; the stream
# scores the same tokens. THREADS=N: of the speeds (default: all), REPETITIONS=N: their rounds (5), each through all positions.
# Needs a release build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ $# -ge 2 ] && [ $# -le 3 ] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' bench/endless.sh; exit 2; }
file=$1 text=$2 tokens=${3:-32768}
acornc=${ACORNC:-build/release/bin/acornc} acorn=${ACORN:-build/release/bin/acorn}
block=256
number() { sed -n "s/.*\"$1\": *\([0-9.]*\).*/\1/p"; }

window=$("$acornc" inspect "$file" --json | sed -n 's/.*"window": *"\([0-9]*\)".*/\1/p' | head -n 1)
[ -n "$window" ] || { echo "$file: no window was chosen for it" >&2; exit 2; }
windows=$(((tokens - window) / block + 1))
tokens=$((window + (windows - 1) * block))

echo "plan, session bytes: $("$acorn" plan "$file" --json | number session_bytes), endless: $("$acorn" plan "$file" --json | number endless)"
stream=$("$acorn" perplexity "$file" --text "$text" --stream "$tokens" --score-from $((window - block)) --json)
afresh=$("$acorn" perplexity "$file" --text "$text" --window "$window" --stride "$block" --windows "$windows" --json)
echo "stream of $tokens tokens, window $window: perplexity $(number perplexity <<<"$stream") over $(number tokens <<<"$stream") tokens"
echo "windows computed afresh:            perplexity $(number perplexity <<<"$afresh") over $(number tokens <<<"$afresh") tokens"
awk -v a="$(number perplexity <<<"$stream")" -v b="$(number perplexity <<<"$afresh")" 'BEGIN { printf "ratio: %.4f\n", a / b }'

# In turn, each position in a process of its own: what else the machine does is then spread over all of them.
rounds=${REPETITIONS:-5}
declare -A speeds
for ((round = 0; round < rounds; ++round)); do
  for before in 64 1024 4096 16384 32704; do
    [ "$before" -lt "$tokens" ] || continue
    speed=$("$acorn" bench "$file" --prompt-tokens "$before" --gen-tokens 256 --repetitions 0 ${THREADS:+--threads "$THREADS"} --json)
    speeds[$before]+="$(number decode_tokens_per_s <<<"$speed")"$'\n'
  done
done
echo "| tokens before | decode, tokens/s, median (spread) of $rounds |"
echo "|---|---|"
for before in 64 1024 4096 16384 32704; do
  [ -n "${speeds[$before]:-}" ] || continue
  sort -g <<<"${speeds[$before]%$'\n'}" | awk -v before="$before" '
    { value[NR] = $1 } END { printf "| %d | %.0f (%.0f to %.0f) |\n", before, (value[int((NR + 1) / 2)] + value[int(NR / 2) + 1]) / 2, value[1], value[NR] }'
done
