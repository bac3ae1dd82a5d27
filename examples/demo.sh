#!/usr/bin/env bash
# Acorn at work, from nothing: set-up, release build, and a language model that answers with integers only.
#
#   bash examples/demo.sh                  home commands in, JSON out; a story; memory and speed. The model is a mixture of 96
#                                          experts, of which a quarter is in memory and the others stream from the file
#   bash examples/demo.sh --chat           talk to the same model
#   bash examples/demo.sh dense            a dense model of the same text, half as large; also with --chat and -p
#   bash examples/demo.sh smollm2          fetch SmolLM2-135M-Instruct, convert it once, and chat
#   bash examples/demo.sh smollm2 -p TEXT  ... and answer one question
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly moe_model=examples/models/moe.acorn
readonly dense_model=examples/models/home.acorn
readonly models=build/models
readonly acorn=build/release/bin/acorn
readonly acornc=build/release/bin/acornc

model=moe chat=0 prompt=""
while [ $# -gt 0 ]; do
  case "$1" in
    smollm2 | dense) model=$1 ;;
    --chat) chat=1 ;;
    -p) [ $# -ge 2 ] || { echo "demo: -p needs a text" >&2; exit 2; }; prompt="$2"; shift ;;
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    *) echo "demo: unknown argument $1 (bash examples/demo.sh --help)" >&2; exit 2 ;;
  esac
  shift
done

say() { printf '\n== %s\n' "$*" >&2; }

# ---- set-up and build ----------------------------------------------------------------------------------------------

jobs=$(nproc 2>/dev/null || echo 2)
[ "$jobs" -le 8 ] || jobs=8
say "set-up"
if [ "$model" = smollm2 ]; then bash toolchains/setup.sh --fetch; else bash toolchains/setup.sh; fi
say "release build"
[ -f build/release/build.ninja ] || cmake --preset release >/dev/null
cmake --build --preset release -j "$jobs" --target bin/acorn bin/acornc >&2

# ---- SmolLM2: real weights that nobody here trained ------------------------------------------------------------------

if [ "$model" = smollm2 ]; then
  target=$models/smollm2-135m-instruct.acorn
  if [ ! -f "$target" ]; then
    mkdir -p "$models"
    say "SmolLM2-135M-Instruct"
    gguf=$(bash toolchains/fetch_smollm2.sh)
    say "converting it (once, a few minutes)"
    "$acornc" convert "$gguf" -o "$target.new" --recipe fast
    mv "$target.new" "$target"
  fi
  "$acorn" plan "$target" >&2
  if [ -n "$prompt" ]; then
    exec "$acorn" run "$target" --chat -p "$prompt" -n 200 --stats
  fi
  say "chat (end with Ctrl-D)"
  exec "$acorn" chat "$target"
fi

# ---- an embedded model: home commands --------------------------------------------------------------------------------

file=$moe_model
[ "$model" = moe ] || file=$dense_model
[ -f "$file" ] || { echo "demo: $file is missing" >&2; exit 1; }
value() { tr ',{}' '\n\n\n' <<<"$1" | sed -n "s/^ *\"$2\" *: *\"\{0,1\}\([^\"]*\)\"\{0,1\} *$/\1/p" | head -n 1; }
kib() { awk -v bytes="${1:-0}" 'BEGIN { printf "%d KiB", bytes / 1024 }'; }

cache=()
if [ "$model" = moe ]; then
  plan=$("$acorn" plan "$file" --expert-cache 4M --json)
  slots=$(($(value "$plan" experts) / 4))
  cache=(--expert-cache $((slots * $(value "$plan" expert_record_bytes))))
  say "a mixture of $(value "$plan" experts) experts; memory holds $slots of them, ${cache[*]}"
fi
if [ "$chat" = 1 ]; then
  say "chat (end with Ctrl-D); this model knows home commands and simple stories"
  exec "$acorn" chat "$file" "${cache[@]}"
fi
if [ -n "$prompt" ]; then
  exec "$acorn" run "$file" "${cache[@]}" --chat -p "$prompt" -n 120 --stats
fi

say "home commands"
while IFS= read -r command; do
  printf '  %s\n    ' "$command"
  "$acorn" run "$file" "${cache[@]}" --chat -p "$command" -n 120
done <<'COMMANDS'
turn on the lamp in the kitchen
please set the bedroom to 19 degrees
Open the office blinds to sixty percent
what is the weather in Oslo on friday?
buy 4 lemons, then volume 30
turn off the heater in the garage, then clean the floor in the hallway
COMMANDS

say "a story (temperature 0.6, seed 7: the same words on every machine)"
"$acorn" run "$file" "${cache[@]}" --stats --markup -p "<|endoftext|>Once upon a time, there was a little acorn" -n 120 --temperature 0.6 --top-k 40 --seed 7

say "memory plan"
"$acorn" plan "$file" "${cache[@]}"

say "speed and memory, measured"
report=$("$acorn" bench "$file" "${cache[@]}" --prompt-tokens 128 --gen-tokens 64 --json)
planned=$(($(value "$report" image_bytes) + $(value "$report" block_bytes)))
printf '  prefill   %s tokens/s\n  decode    %s tokens/s (%s threads, %s)\n' "$(value "$report" prefill_tokens_per_s)" \
  "$(value "$report" decode_tokens_per_s)" "$(value "$report" threads)" "$(value "$report" isa)"
if [ "$model" = moe ]; then
  resident=$("$acorn" bench "$file" --prompt-tokens 128 --gen-tokens 64 --json)
  printf '            %s and %s with all experts in memory\n' "$(value "$resident" prefill_tokens_per_s)" \
    "$(value "$resident" decode_tokens_per_s)"
fi
printf '  planned   %s (what is mapped of the file, and the block)\n  peak RSS  %s (with the program itself)\n' "$(kib "$planned")" \
  "$(kib "$(value "$report" peak_rss_bytes)")"
