#!/usr/bin/env bash
# The second promise, machine by machine: the same file, prompt and seed give the same logits and tokens on every instruction
# set of this machine and on every emulated one; and the first machine's conversation, saved half way, goes on with the same bits on
# every other: saved again, the files are equal. Prints a table of digests and ends with "N passed, N failed".
#
#   bash tests/same_bits.sh           stories260K (three weight formats, a cache of 4 bits, a window, a pruning rate), the models of
#                                     examples/models (dense, mixture), a Mamba2 and a hybrid of it with experts; about 4 minutes
#   bash tests/same_bits.sh --all     SmolLM2-135M-Instruct as well (converted first where it is not there yet)
#
# Needs the builds of the presets release, aarch64, armhf and riscv64: what is missing is a failure, a CPU's instruction
# set that this machine lacks is not. Emulators: QEMU user mode.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly acorn=build/release/bin/acorn acornc=build/release/bin/acornc
readonly models=build/models work=build/same_bits
readonly stories=../shared/data/models/stories260K
readonly prompt="Once upon a time, there was a little girl named Lily. She loved to play outside in the park with her big red ball. One day,"
readonly short_prompt="Once upon a time, there was a girl"  # for models that read letters, and hold 128
readonly tokens=64

all=0
case "${1:-}" in
  "") ;;
  --all) all=1 ;;
  -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
  *) echo "same_bits: unknown argument $1" >&2; exit 2 ;;
esac
mkdir -p "$models" "$work"

# ---- the files -------------------------------------------------------------------------------------------------------

files=()
declare -A prompt_of=() rate_of=()  # by file, where they are others
story() {  # NAME OPTION...: stories260K converted so
  local file="$work/stories260K-$1.acorn"
  shift
  "$acornc" convert "$stories/stories260K.bin" --tokenizer "$stories/tok512.bin" -o "$file" "$@" 2>/dev/null >&2
  files+=("$file")
}
if [ -e "$stories/stories260K.bin" ]; then
  story w8 --weights w8
  story w4 --weights w4 --group channel
  story w4g32 --weights w4 --group 32 --head w4
  story kv4 --kv 4
  story window --window 24
  story rates --profiles 0,25
  rate_of[${files[-1]}]=25
else
  echo "same_bits: without stories260K ($stories is not there)" >&2
fi
files+=(examples/models/home.acorn examples/models/moe.acorn)
# Of the kinds that there is no small checkpoint of with weights that mean something and a tokenizer: random weights, which read and
# write letters without an end.
letters() {
  local id=3 letter
  printf '{"added_tokens":[{"id":1,"content":"<s>","special":true}],"normalizer":{"type":"Sequence","normalizers":['
  printf '{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]},'
  printf '"model":{"type":"BPE","byte_fallback":true,"unk_token":"<unk>","vocab":{"<unk>":0,"<s>":1,"▁":2'
  for letter in {a..z} {A..O} . , - +; do printf ',"%s":%d' "$letter" $((id++)); done
  printf '},"merges":[]}}\n'
}
for name in small_mamba2 small_granite_h; do
  rm -rf "${work:?}/$name"
  cp -r "tests/data/$name" "$work/$name"
  sed -i 's/"eos_token_id": 2/"eos_token_id": []/' "$work/$name/config.json"
  letters >"$work/$name/tokenizer.json"
  "$acornc" convert "$work/$name" -o "$work/$name.acorn" --calibration-windows 4 2>/dev/null >&2
  files+=("$work/$name.acorn")
  prompt_of[${files[-1]}]=$short_prompt
done
if [ "$all" = 1 ]; then
  smollm2=$models/smollm2-135m-instruct.acorn
  if [ ! -e "$smollm2" ]; then
    gguf=$(bash toolchains/fetch_smollm2.sh)
    "$acornc" convert "$gguf" -o "$smollm2.new" 2>/dev/null >&2
    mv "$smollm2.new" "$smollm2"
  fi
  files+=("$smollm2")
fi

# ---- the machines ----------------------------------------------------------------------------------------------------

names=() isas=() options=() programs=()
machine() { names+=("$1") isas+=("$2") options+=("$3") programs+=("$4"); }  # NAME, ISA that it must use, OPTIONS, PROGRAM
here=$(uname -m)
for isa in scalar avx2 avxvnni avx512vnni neon neondot i8mm; do
  # Only an instruction set that this CPU does not have may be missing.
  said=$("$acorn" plan examples/models/home.acorn --isa "$isa" 2>&1) ||
    { [ "$isa" != scalar ] && grep -q "this CPU does not have it" <<<"$said" && continue; } || true
  machine "$here" "$isa" "--isa $isa" "$acorn"
done
machine "aarch64 Cortex-A53" neon "" "qemu-aarch64 -cpu cortex-a53 build/aarch64/bin/acorn"
machine "aarch64 Neoverse N1" neondot "" "qemu-aarch64 -cpu neoverse-n1 build/aarch64/bin/acorn"
machine "aarch64 max" i8mm "" "qemu-aarch64 -cpu max,pauth-impdef=on build/aarch64/bin/acorn"
machine "aarch64 max" scalar "--isa scalar" "qemu-aarch64 -cpu max,pauth-impdef=on build/aarch64/bin/acorn"
machine "armhf" scalar "" "qemu-arm build/armhf/bin/acorn"
machine "riscv64" scalar "" "qemu-riscv64 build/riscv64/bin/acorn"

# ---- every file on every machine -------------------------------------------------------------------------------------

value() { sed -n "s/.*\"$1\": *\"\{0,1\}\([^,\"}]*\).*/\1/p"; }

passed=0 failed=0
verdict() {  # 0 or 1, what
  if [ "$1" = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "same_bits: FAILED: $2" >&2; fi
}

# The same run whole, its first half, the rest of it: each saved.
half=$work/half.session whole=$work/whole.session rest=$work/rest.session
run() {  # SESSION OPTION...: on the standard error what --json says, or the reason
  local session=$1
  shift
  rm -f "$session"
  "${program[@]}" run "$file" --temperature 0.8 --top-k 40 --seed 8 --save "$session" "$@" "${option[@]}" </dev/null
}
sum() { sha256sum "$1" 2>/dev/null | head -c 16; }

report=$work/report.md
: >"$report"
for file in "${files[@]}"; do
  rate=${rate_of[$file]:-0}
  begun=(-p "${prompt_of[$file]:-$prompt}" --rate "$rate")  # a conversation goes on at the rate that it was saved at
  printf '\n%s, %s sampled tokens%s:\n\n| machine | kernels | digest of the logits | digest of the ids | self-test | saved | saved on the first machine, continued here |\n|---|---|---|---|---|---|---|\n' \
    "$(basename "$file")" "$tokens" "$([ "$rate" = 0 ] || echo " at rate $rate")" >>"$report"
  wanted="" saved=""
  for i in "${!names[@]}"; do
    read -r -a program <<<"${programs[i]}"
    read -r -a option <<<"${options[i]}"
    json=$(run "$whole" "${begun[@]}" -n "$tokens" --json 2>&1 >/dev/null) || true
    digest=$(value digest <<<"$json") ids=$(value ids_digest <<<"$json") isa=$(value isa <<<"$json")
    [ -n "$digest" ] || digest="no answer: ${json:0:60}"
    [ -n "$wanted" ] || wanted="$digest $ids $tokens"
    [ "$digest $ids $(value tokens <<<"$json")" = "$wanted" ] && [ "$isa" = "${isas[i]}" ] && result=0 || result=1
    verdict "$result" "$(basename "$file") on ${names[i]}, ${isas[i]}: $digest $ids with $isa, wanted $wanted"
    if "${program[@]}" selftest "$file" "${option[@]}" >"$work/selftest" 2>&1 </dev/null; then
      proven=passed
      verdict 0 ""
    else
      proven=failed
      verdict 1 "$(basename "$file") on ${names[i]}: $(head -c 300 "$work/selftest")"
    fi
    if [ -z "$saved" ]; then
      saved=$(sum "$whole")
      run "$half" "${begun[@]}" -n $((tokens / 2)) >"$work/said" 2>&1 || true
    fi
    run "$rest" --load "$half" -n $((tokens - tokens / 2)) >"$work/said" 2>&1 || true
    [ -n "$saved" ] && [ "$(sum "$whole") $(sum "$rest")" = "$saved $saved" ] && result=0 || result=1
    verdict "$result" "$(basename "$file") on ${names[i]}: saved $(sum "$whole"), continued $(sum "$rest"), wanted $saved; $(head -c 300 "$work/said")"
    printf '| %s | %s | %s | %s | %s | %s | %s |\n' "${names[i]}" "${isas[i]}" "$digest" "$ids" "$proven" "$(sum "$whole")" "$(sum "$rest")" >>"$report"
  done
done
cat "$report"
printf '\n%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
