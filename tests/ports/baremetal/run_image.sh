#!/usr/bin/env bash
# Boots an image under QEMU, shows what it says, and passes its exit status on. For the tests of the bare-metal port.
#
#   run_image.sh QEMU IMAGE [QEMU options]           124 where it does not end
set -euo pipefail
qemu=$1 image=$2
shift 2
# The network card's firmware is a package of its own; nothing here wants a card.
timeout 580 "$qemu" -M virt -nographic -nic none -kernel "$image" "$@" </dev/null | tr -d '\r'
