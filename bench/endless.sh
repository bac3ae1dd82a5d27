#!/usr/bin/env bash
# What a conversation without an end costs: the bytes of the plan, perplexity of one long stream beside that of windows computed
# afresh, and the speed of a token after 1,024 to 32,768 others.
#
#   bash bench/endless.sh FILE.acorn TEXT [TOKENS]      FILE: of `acornc convert --window W`; TOKENS: of the stream, default 32768
#
# Afresh: for each block of 256 tokens an empty session sees what is before them in a window of W, and scores the block; the stream
# scores the same tokens. Needs a release build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
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

echo "| tokens before | decode, tokens/s | ± |"
for before in 64 1024 4096 16384 32704; do
  [ "$before" -lt "$tokens" ] || continue
  speed=$("$acorn" bench "$file" --prompt-tokens "$before" --gen-tokens 64 --repetitions "${REPETITIONS:-5}" --json)
  echo "| $before | $(number decode_tokens_per_s <<<"$speed") | $(number decode_half_range <<<"$speed") |"
done
