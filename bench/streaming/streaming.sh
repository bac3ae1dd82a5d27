#!/usr/bin/env bash
# Decoding from storage under a memory limit: tokens/s at several cache sizes against all resident, peak memory against the plan,
# bytes/s against raw reads of the same size and depth, reads overlapped against one after the other; and llama.cpp with mmap under
# the same limit.
#
#   bash bench/streaming/streaming.sh FILE.acorn [FILE.gguf]
#
#   LIMIT=1G               of the process (cgroup v1, memory.limit_in_bytes, which counts the page cache too)
#   CACHES="256M 512M"     sizes of --expert-cache; those whose plan does not fit into LIMIT are left out, with a note
#   RESIDENT=1             0: leave out the run with all in memory, without a limit
#   TOKENS=64 THREADS=2    decoded after a prompt of one token, random ids of seed 0
#   LLAMA_BENCH            any command that behaves as llama-bench and stays in the caller's cgroup; it draws random ids of its own
#   GGUF_SEEN              FILE.gguf as that command sees it, in a container, say
#   ACORN, BIN             build/release/bin/acorn; the folder of acorn_bench_read and acorn_bench_overlap
#
# One JSON object a line goes to standard output. Needs root for the limit; without a cgroup v1 memory controller, or without the
# right to make a group in it, the script says so and ends with 77.
set -euo pipefail
invoked_from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ $# -ge 1 ] && [ $# -le 2 ] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' bench/streaming/streaming.sh; exit 2; }
file=$(cd "$invoked_from" && realpath "$1")
gguf=${2:+$(cd "$invoked_from" && realpath "$2")}
limit=${LIMIT:-1G} caches=${CACHES:-256M 512M} tokens=${TOKENS:-64} threads=${THREADS:-2}
acorn=${ACORN:-build/release/bin/acorn} bin=${BIN:-build/release/bin}
read -r -a peer <<<"${LLAMA_BENCH:-llama-bench}"

bytes_of() { numfmt --from=iec "$1"; }
number() { sed -n "s/.*\"$1\": *\([0-9.]*\).*/\1/p"; }  # of the JSON on standard input

group=/sys/fs/cgroup/memory/acorn-streaming-$$
if ! { [ -f /sys/fs/cgroup/memory/memory.limit_in_bytes ] && mkdir "$group"; } 2>/dev/null; then
  echo "streaming: no cgroup v1 memory controller that this user may use at /sys/fs/cgroup/memory; nothing was measured" >&2
  exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"; rmdir "$group"' EXIT
bytes_of "$limit" >"$group/memory.limit_in_bytes"

limited() {  # COMMAND...: in the group, with nothing of the files left in the page cache by earlier runs
  echo 1 >"$group/memory.force_empty" 2>/dev/null || true
  for read in "$file" ${gguf:+"$gguf"}; do dd if="$read" iflag=nocache count=0 status=none; done
  echo 0 >"$group/memory.max_usage_in_bytes"
  (echo "$BASHPID" >"$group/cgroup.procs" && exec "$@")
}
killed() { sed -n 's/^oom_kill //p' "$group/memory.oom_control"; }

decode() {  # NAME LIMITED ARGUMENT...: one line
  local name=$1 run=$2 before after
  shift 2
  before=$(killed)
  if ! $run "$acorn" bench "$file" --prompt-tokens 1 --gen-tokens "$tokens" --repetitions 1 --threads "$threads" --json "$@" \
    >"$work/out" 2>"$work/err"; then
    after=$(killed)
    echo "{\"run\": \"$name\", \"killed\": $((after - before)), \"error\": \"$(tr -d '"\n' <"$work/err")\"}"
    return
  fi
  after=$(killed)
  local digest
  digest=$(sed -n 's/.*"digest": "\([0-9a-f]*\)".*/\1/p' "$work/out")
  awk -v name="$name" -v speed="$(number decode_tokens_per_s <"$work/out")" -v hits="$(number hits <"$work/out")" \
    -v misses="$(number misses <"$work/out")" -v bytes="$(number bytes_read <"$work/out")" -v stall="$(number stall_ms <"$work/out")" \
    -v rss="$(number peak_rss_bytes <"$work/out")" -v plan="$(number block_bytes <"$work/out")" -v image="$(number image_bytes <"$work/out")" \
    -v killed="$((after - before))" -v tokens="$tokens" -v group="$(cat "$group/memory.max_usage_in_bytes")" -v digest="$digest" 'BEGIN {
      counted = 2 * (tokens + 1)  # counters are of two passes: the one that warms up and the one that is timed
      printf "{\"run\": \"%s\", \"decode_tokens_per_s\": %s, \"hit_rate\": %.4f, ", name, speed, hits + misses ? hits / (hits + misses) : 1
      printf "\"mb_per_token\": %.3f, \"stall_ms_per_token\": %.3f, ", bytes / counted / 1e6, stall / counted
      printf "\"peak_rss_bytes\": %.0f, \"plan_bytes\": %.0f, \"resident_image_bytes\": %.0f, ", rss, plan, image
      printf "\"over_bytes\": %.0f, \"group_peak_bytes\": %.0f, ", rss - plan - image, group
      printf "\"killed\": %d, \"digest\": \"%s\"}\n", killed, digest
    }'
}

for cache in $caches; do
  plan=$("$acorn" plan "$file" --expert-cache "$cache" --context $((tokens + 1)) --threads "$threads" --json)
  needed=$(($(number block_bytes <<<"$plan") + $(number image_bytes <<<"$plan")))  # of the image what stands before the experts
  if [ "$needed" -gt "$(bytes_of "$limit")" ]; then
    echo "streaming: with a cache of $cache $needed bytes are in memory; $limit is less" >&2
    continue
  fi
  decode "cache $cache" limited --expert-cache "$cache"
done
if [ "${RESIDENT:-1}" = 1 ]; then decode "all resident" ""; fi

# Raw reads of the size of an expert and of as many at once as a layer asks for.
plan=$("$acorn" plan "$file" --expert-cache "${caches%% *}" --json)
record=$(number expert_record_bytes <<<"$plan")
if [ -n "$record" ]; then
  "$bin/acorn_bench_read" "$file" --size "$record" --depth 8 --bytes 512M --rounds 3 --method io_uring --json
  "$bin/acorn_bench_overlap" "$file" --expert-cache "${caches%% *}" --tokens "$tokens" --threads "$threads"
fi

if [ -n "$gguf" ]; then
  before=$(killed)
  if limited "${peer[@]}" -m "${GGUF_SEEN:-$gguf}" -p 0 -n "$tokens" -t "$threads" -r 1 --load-mode mmap --repack 0 -o jsonl \
    >"$work/out" 2>"$work/err"; then
    printf '{"run": "llama.cpp, mmap, no repacking", "decode_tokens_per_s": %s, "killed": %d}\n' \
      "$(number avg_ts <"$work/out")" "$(($(killed) - before))"
  else
    printf '{"run": "llama.cpp, mmap, no repacking", "killed": %d, "error": "%s"}\n' \
      "$(($(killed) - before))" "$(tail -n 1 "$work/err" | tr -d '"')"
  fi
fi
