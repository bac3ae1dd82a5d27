#!/usr/bin/env bash
# What quantisation costs, on real weights: converts each source with each recipe, measures perplexity of the float source and of
# the integer file in the same protocol (windows that do not overlap, an empty session each, position 1 on scored), prints a table.
#
#   bash bench/accuracy.sh DATA_DIR OUT_DIR [stories|smollm2|mixed|trained|commands|long|tasks|rates]...  default: all
#
# DATA_DIR holds text/wikitext2/{wiki.test.raw,wiki.valid.tokens}, text/tinystories/train_head_2MB.txt, models/stories260K/,
# commands/, eval/, and dense/ or ../models/dense (the home model's source); OUT_DIR keeps the converted files and smollm2.gguf, which
# must lie there for smollm2 (examples/demo.sh fetches it into build/models). Needs a release build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
data=$1 out=$2
shift 2
[ $# -gt 0 ] || set -- stories smollm2 mixed trained commands long tasks rates
mkdir -p "$out"
acornc=${ACORNC:-build/release/bin/acornc} acorn=${ACORN:-build/release/bin/acorn}

number() { sed -n "s/.*\"$1\": *\([0-9.]*\).*/\1/p"; }
row() { printf '| %s | %s | %s | %s | %s |\n' "$@"; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.4f", a / b }'; }
bytes() { stat -c %s "$1"; }
# convert SOURCE FILE ARGS...
convert() { local source=$1 file=$2; shift 2; [ -f "$file" ] || "$acornc" convert "$source" -o "$file" "$@" >&2; }

printf '| source | file | bytes | perplexity | × float |\n|---|---|---|---|---|\n'
for what in "$@"; do
  case $what in
  stories)
    source=$data/models/stories260K/stories260K.bin tokenizer=$data/models/stories260K/tok512.bin
    text=$data/text/tinystories/train_head_2MB.txt
    head -c 1048576 "$text" >"$out/stories-first.txt"
    tail -c +1048577 "$text" >"$out/stories-second.txt"
    protocol=(--text "$out/stories-second.txt" --window 480 --windows 40 --json)
    float=$("$acornc" perplexity "$source" --tokenizer "$tokenizer" "${protocol[@]}" | number perplexity)
    row stories260K float "$(bytes "$source")" "$float" 1
    for recipe in 'w8:--weights w8' 'w4-default:'; do
      file=$out/stories-${recipe%%:*}.acorn
      # shellcheck disable=SC2086
      convert "$source" "$file" --tokenizer "$tokenizer" --calibration "$out/stories-first.txt" ${recipe#*:}
      integer=$("$acorn" perplexity "$file" "${protocol[@]}" | number perplexity)
      row stories260K "${recipe%%:*}" "$(bytes "$file")" "$integer" "$(ratio "$integer" "$float")"
    done ;;
  smollm2)
    source=$out/smollm2.gguf
    protocol=(--text "$data/text/wikitext2/wiki.test.raw" --window 512 --windows 40 --json)
    float=$("$acornc" perplexity "$source" "${protocol[@]}" | number perplexity)
    row SmolLM2-135M-Instruct float "$(bytes "$source")" "$float" 1
    valid="--calibration $data/text/wikitext2/wiki.valid.tokens"
    for recipe in "w4-default:$valid" 'w4-built-in-text:' "w4-head-w8:--head w8 $valid" "w4-head-w4:--head w4 $valid" \
      "w8:--weights w8 $valid" "w4-channel:--group channel $valid"; do
      file=$out/smollm2-${recipe%%:*}.acorn
      # shellcheck disable=SC2086
      convert "$source" "$file" ${recipe#*:}
      integer=$("$acorn" perplexity "$file" "${protocol[@]}" | number perplexity)
      row SmolLM2-135M-Instruct "${recipe%%:*}" "$(bytes "$file")" "$integer" "$(ratio "$integer" "$float")"
    done ;;
  mixed)
    # From position 257 on is what llama-perplexity -c 512 scores.
    source=$out/smollm2.gguf
    for from in 1 257; do
      protocol=(--text "$data/text/wikitext2/wiki.test.raw" --window 512 --windows 40 --score-from "$from" --json)
      float=$("$acornc" perplexity "$source" "${protocol[@]}" | number perplexity)
      row "SmolLM2-135M-Instruct, scored from $from" float "$(bytes "$source")" "$float" 1
      for budget in 92000000 97000000 105000000; do
        file=$out/smollm2-mixed-$budget.acorn
        convert "$source" "$file" --mixed auto --budget "$budget" --calibration "$data/text/wikitext2/wiki.valid.tokens"
        integer=$("$acorn" perplexity "$file" "${protocol[@]}" | number perplexity)
        row "SmolLM2-135M-Instruct, scored from $from" "w4-mixed-$budget" "$(bytes "$file")" "$integer" "$(ratio "$integer" "$float")"
      done
    done ;;
  trained)
    # Hours: four trainings with the default budget, on text of two kinds.
    source=$out/smollm2.gguf
    texts="--calibration $data/text/wikitext2/wiki.valid.tokens --calibration $data/text/tinystories/train_head_2MB.txt"
    for recipe in 'w8:--weights w8' 'w4-channel:--group channel' 'w4-default:' 'w4-mixed-105M:--mixed auto --budget 105000000'; do
      file=$out/smollm2-${recipe%%:*}-mobilequant.acorn
      # shellcheck disable=SC2086
      convert "$source" "$file" --recipe mobilequant $texts ${recipe#*:}
      for from in 1 257; do
        protocol=(--text "$data/text/wikitext2/wiki.test.raw" --window 512 --windows 40 --score-from "$from" --json)
        float=$("$acornc" perplexity "$source" "${protocol[@]}" | number perplexity)
        integer=$("$acorn" perplexity "$file" "${protocol[@]}" | number perplexity)
        row "SmolLM2-135M-Instruct, scored from $from" "${recipe%%:*}, mobilequant" "$(bytes "$file")" "$integer" \
          "$(ratio "$integer" "$float")"
      done
      protocol=(--task lambada --data "$data/eval/lambada_openai.jsonl" --limit 300 --json)
      row 'SmolLM2, LAMBADA, right of 300' "${recipe%%:*}, mobilequant" - \
        "$("$acorn" eval "$file" "${protocol[@]}" | number correct)" -
    done ;;
  long)
    source=$out/smollm2.gguf file=$out/smollm2-w4-default.acorn
    for window in 512 4096; do
      protocol=(--text "$data/text/wikitext2/wiki.test.raw" --window "$window" --windows $((122880 / window)) --json)
      float=$("$acornc" perplexity "$source" "${protocol[@]}" | number perplexity)
      integer=$("$acorn" perplexity "$file" "${protocol[@]}" | number perplexity)
      row "SmolLM2, the first 122,880 tokens" "windows of $window" - "$integer of $float" "$(ratio "$integer" "$float")"
    done ;;
  commands)
    source=$data/../models/dense file=examples/models/home.acorn
    float=$("$acornc" eval "$source" --task exact --data "$data/commands/test.jsonl" --json 2>/dev/null | number correct || true)
    row 'home model, exact commands of 500' float - "${float:-472 (stated)}" -
    row 'home model, exact commands of 500' w4 "$(bytes "$file")" \
      "$("$acorn" eval "$file" --task exact --data "$data/commands/test.jsonl" --json | number correct)" - ;;
  tasks)
    source=$out/smollm2.gguf file=$out/smollm2-w4-default.acorn
    for task in lambada:lambada_openai piqa:piqa arc-easy:arc_easy winogrande:winogrande; do
      protocol=(--task "${task%%:*}" --data "$data/eval/${task#*:}.jsonl" --limit 300 --json)
      float=$("$acornc" eval "$source" "${protocol[@]}" | number correct)
      integer=$("$acorn" eval "$file" "${protocol[@]}" | number correct)
      row 'SmolLM2, right of 300' "${task%%:*}" - "$integer of $float" "$(ratio "$integer" "$float")"
    done ;;
  rates)
    # One file each at its pruning rates; then in float what each part of the sorting is worth (docs/ELASTIC.md).
    mixed=$data/text/mixed wiki=$data/text/wikitext2
    for model in smollm2 dense mamba2 hybrid; do
      source=$data/../models/$model windows=12 text=$mixed/valid.txt
      calibration="--calibration $mixed/calibration.txt --calibration-windows 64"
      if [ "$model" = smollm2 ]; then
        source=$out/smollm2.gguf windows=10 text=$wiki/wiki.test.raw
        calibration="--calibration $wiki/wiki.valid.tokens --calibration-windows 64"
      fi
      file=$out/$model-rates.acorn
      # shellcheck disable=SC2086
      convert "$source" "$file" --profiles 0,15,25,35 $calibration
      for rate in 0 15 25 35; do
        protocol=(--text "$text" --window 512 --windows "$windows" --json)
        integer=$("$acorn" perplexity "$file" --rate "$rate" "${protocol[@]}" | number perplexity)
        [ "$rate" != 0 ] || whole=$integer
        row "$model" "rate $rate, × rate 0" "$(bytes "$file")" "$integer" "$(ratio "$integer" "$whole")"
        [ "$model" = smollm2 ] || [ "$model" = dense ] || continue
        for without in '' sort svd rates shares; do
          # shellcheck disable=SC2086
          float=$("$acornc" perplexity "$source" --rate "$rate" $calibration "${protocol[@]}" \
            ${without:+--elastic-without "$without"} | number perplexity)
          [ "$rate$without" != 0 ] || source_whole=$float
          row "$model" "float, rate $rate${without:+, without $without}, × rate 0" - "$float" "$(ratio "$float" "$source_whole")"
        done
      done
      [ "$model" = smollm2 ] || continue
      # shellcheck disable=SC2086
      convert "$source" "$out/smollm2-no-segments.acorn" --profiles 0,15,25,35 --elastic-without segments $calibration
      for rate in 0 35; do
        integer=$("$acorn" perplexity "$out/smollm2-no-segments.acorn" --rate "$rate" "${protocol[@]}" | number perplexity)
        row "$model" "rate $rate, GPTQ across rates, × rate 0" - "$integer" "$(ratio "$integer" "$whole")"
      done
    done ;;
  *) echo "accuracy: unknown part $what" >&2; exit 2 ;;
  esac
done
