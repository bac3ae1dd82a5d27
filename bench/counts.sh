#!/usr/bin/env bash
# Instructions per token on 64-bit Arm, by kernel and operator, counted under QEMU's user-mode emulation, beside llama.cpp's
# build for the same processor. Counts, not time: an emulator knows nothing of caches, ports and latencies.
#
#   bash bench/counts.sh FILE.acorn [FILE.gguf]      without a GGUF: Acorn alone, beside what OUT.csv holds of llama.cpp
#
#   CORES="dotprod i8mm"      which of: neon dotprod i8mm (below)
#   PHASES="decode prefill"   which of: decode (32 tokens from the empty context on), decode256 (8 from 264 on), prefill (of 128)
#   OUT=build/counts/NAME     OUT.csv gets a row for each symbol, OUT.md the tables; NAME is FILE's
#   ACORN, ACORNC             build/aarch64/bin/acorn (static), build/release/bin/acornc (reads what FILE holds)
#   QEMU=qemu-aarch64         one with plugins: Debian 12's has them, Debian 13's static build has not
#
# Every number is a difference of two runs of one program, so that loading, repacking and warming up cancel out: llama-bench
# with two repetitions less one (-r), acorn bench likewise; from 264 tokens on, 16 generated tokens less 8. Both run one thread,
# on random tokens. What acorn bench itself does (its digest of the logits) is left out. llama.cpp is measured with flash
# attention on and off. Needs bash bench/peers/llama_cpp.sh --arch arm64 setup.
set -euo pipefail
invoked_from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' bench/counts.sh; exit 2; }
[ $# -ge 1 ] && [ $# -le 2 ] || usage
file=$(cd "$invoked_from" && realpath "$1")
gguf=${2:+$(cd "$invoked_from" && realpath "$2")}
acorn=${ACORN:-build/aarch64/bin/acorn}
acornc=${ACORNC:-build/release/bin/acornc}
out=${OUT:-build/counts/$(basename "$file" .acorn)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$(dirname "$out")"

# QEMU's names. i8mm is a core like Cortex-A710 or Neoverse N2: matrix instructions and SVE of 128 bits; SME is left out because
# few devices have it, longer vectors because no small core has them. (Acorn's kernels use NEON alone.)
core_of() {
  case $1 in
    neon) echo cortex-a53 ;;
    dotprod) echo neoverse-n1 ;;
    i8mm) echo max,pauth-impdef=on,sme=off,sve-max-vq=1 ;;
    *) usage ;;
  esac
}

qemu=${QEMU:-qemu-aarch64}
"$qemu" -h | grep -- -plugin >/dev/null || {
  echo "counts: $qemu has no plugins; name another in QEMU" >&2
  exit 1
}
# QEMU 9 dropped version 1 of the plugin interface.
version=$("$qemu" --version | sed -n '1s/.* version \([0-9]*\).*/\1/p')
cc -std=c11 -O2 -Wall -Wextra -fvisibility=hidden -shared -fPIC -DBLOCKS_PLUGIN_VERSION=$((version >= 9 ? 2 : 1)) \
  bench/counts/blocks.c -o "$work/blocks.so"

emulate() {  # list of blocks, QEMU's core, its options, program and arguments
  local list=$1 core=$2
  shift 2
  "$qemu" -cpu "$core" -plugin "$work/blocks.so,out=$list" "$@" >"$work/log" 2>&1 || {
    tail -n 5 "$work/log" >&2
    return 1
  }
}
# The rows of one measurement take the place of earlier ones of the same, so a program can be measured again beside the others.
difference() {  # tokens, program, core, phase
  awk -v key="$2,$3,$4," 'index($0, key) != 1' "$out.csv" >"$work/rows"
  python3 bench/counts/counts.py difference "$work/more" "$work/less" "$@" >>"$work/rows"
  cp "$work/rows" "$out.csv"
}

measure_acorn() {  # core, phase
  local core
  core=$(core_of "$1")
  case $2 in
    decode)
      emulate "$work/less" "$core" "$acorn" bench "$file" --threads 1 --prompt-tokens 1 --gen-tokens 31 --repetitions 1
      emulate "$work/more" "$core" "$acorn" bench "$file" --threads 1 --prompt-tokens 1 --gen-tokens 31 --repetitions 2
      difference 32 acorn "$1" "decode at 0 to 31"
      ;;
    decode256)
      # One repetition is three passes: with the profile, to warm up, and the one that is timed.
      emulate "$work/less" "$core" "$acorn" bench "$file" --threads 1 --prompt-tokens 256 --gen-tokens 8 --repetitions 1
      emulate "$work/more" "$core" "$acorn" bench "$file" --threads 1 --prompt-tokens 256 --gen-tokens 16 --repetitions 1
      difference 24 acorn "$1" "decode at 264 to 271"
      ;;
    prefill)
      emulate "$work/less" "$core" "$acorn" bench "$file" --threads 1 --prompt-tokens 128 --gen-tokens 0 --repetitions 1
      emulate "$work/more" "$core" "$acorn" bench "$file" --threads 1 --prompt-tokens 128 --gen-tokens 0 --repetitions 2
      difference 128 acorn "$1" "prefill of 128"
      ;;
    *) usage ;;
  esac
}

measure_peer() {  # core, phase, flash attention
  local core root program
  core=$(core_of "$1")
  root=$(bash bench/peers/llama_cpp.sh --arch arm64 root)
  program="llama.cpp fa $3"
  peer() { emulate "$1" "$core" -L "$root" "$root/usr/bin/llama-bench" -m "$gguf" -t 1 --no-warmup -fa "$flash" "${@:2}"; }
  local flash=$3
  case $2 in
    decode)
      peer "$work/less" -p 0 -n 32 -r 1
      peer "$work/more" -p 0 -n 32 -r 2
      difference 32 "$program" "$1" "decode at 0 to 31"
      ;;
    decode256)
      peer "$work/less" -p 0 -n 8 -d 256 -r 1
      peer "$work/more" -p 0 -n 16 -d 256 -r 1
      difference 8 "$program" "$1" "decode at 264 to 271"
      ;;
    prefill)
      peer "$work/less" -p 128 -n 0 -r 1
      peer "$work/more" -p 128 -n 0 -r 2
      difference 128 "$program" "$1" "prefill of 128"
      ;;
  esac
  sed -n 's/^load_backend: loaded .* from .*\/\(.*\)/'"$1: llama.cpp loads \1/p" "$work/log" >&2
}

"$acornc" inspect "$file" --json >"$work/inspect.json"
[ -e "$out.csv" ] || : >"$out.csv"
for core in ${CORES:-dotprod i8mm}; do
  for phase in ${PHASES:-decode prefill}; do
    measure_acorn "$core" "$phase"
    [ -z "$gguf" ] || for flash in on off; do measure_peer "$core" "$phase" "$flash"; done
  done
done
python3 bench/counts/counts.py table "$out.csv" "$work/inspect.json" | tee "$out.md"
