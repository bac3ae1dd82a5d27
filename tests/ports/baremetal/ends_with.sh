#!/usr/bin/env bash
# Boots an image under QEMU, which must end with an exit status and say some words (an extended regular expression of one line).
#
#   ends_with.sh STATUS WORDS QEMU IMAGE [QEMU options]
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
wanted=$1 words=$2
shift 2
status=0
said=$("$here/run_image.sh" "$@") || status=$?
echo "$said"
[ "$status" = "$wanted" ] || { echo "FAILED: ended with status $status, not $wanted" >&2; exit 1; }
grep -qE -- "$words" <<<"$said" || { echo "FAILED: it does not say: $words" >&2; exit 1; }
