#!/usr/bin/env bash
# Boots an image under QEMU and compares its two answers with those of the host's acorn: text, token counts and digests; the ids
# with their digest; then what it says of the machine and of its self-test, and the port's conformance.
#
#   same_as_host.sh HOST_ACORN MODEL MACHINE SELF_TEST QEMU IMAGE [QEMU options]
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
host=$1 model=$2 machine=$3 self_test=$4
shift 4
die() { echo "FAILED: $*" >&2; exit 1; }
[ -x "$host" ] || die "$host is not there: build the preset release first, or set ACORN_HOST_ACORN"

said=$("$here/run_image.sh" "$@") || die "the image ended with status $?:"$'\n'"$said"
echo "$said"

# value KEY JSON
value() { printf '%s\n' "$2" | sed -n "s/.*\"$1\": \"\{0,1\}\([^\",}]*\).*/\1/p"; }

# digest ID...: FNV-1a-64 over them as little-endian int32, as the programs do.
digest() {
  local hash=$((0xcbf29ce484222325)) id shift
  for id in "$@"; do
    for shift in 0 8 16 24; do hash=$(((hash ^ (id >> shift & 255)) * 0x100000001b3)); done
  done
  printf '%016x' "$hash"
}

# compare NUMBER PROMPT OPTION: the image's answer of this number is the host's to the prompt.
compare() {
  local number=$1 prompt=$2 option=$3 text json line key ids
  text=$("$host" run "$model" -p "$prompt" -n 64 --threads 1 --json $option 2>"$report")
  json=$(cat "$report")
  line=$(grep '^{"prompt_tokens"' <<<"$said" | sed -n "${number}p")
  for key in prompt_tokens tokens stop digest ids_digest; do
    [ -n "$(value $key "$json")" ] || die "the host does not tell $key: $json"
    [ "$(value $key "$line")" = "$(value $key "$json")" ] || die "$key of '$prompt' is $(value $key "$line"), on the host $(value $key "$json")"
  done
  ids=$(sed 's/.*"ids": \[\([0-9, ]*\)\].*/\1/; s/,//g' <<<"$line")
  [ "$(digest $ids)" = "$(value ids_digest "$line")" ] || die "the ids of '$prompt' are not those of its digest: $ids"
  grep -qxF -- "$text" <<<"$said" || die "the answer to '$prompt' is not the host's: $text"
}

report=$(mktemp)
trap 'rm -f "$report"' EXIT
compare 1 "turn on the lamp in the kitchen" --chat
compare 2 "Once upon a time" ""
grep -qF -- ", $machine, region " <<<"$said" || die "the machine is not: $machine"
grep -qE "^acorn: self-test: $self_test\$" <<<"$said" || die "the self-test does not say: $self_test"
grep -qx "acorn: conformance: failures 0" <<<"$said" || die "the port does not conform"
grep -qx "acorn: exit status 0" <<<"$said" || die "the image did not end well"
