#!/usr/bin/env bash
# llama.cpp for 64-bit Arm from Debian's packages, unpacked into a folder of its own and run under QEMU's user-mode emulation:
# the peer of bench/counts.sh. Nothing is installed and no foreign script runs: packages are downloaded with apt (its own lists
# and folders, signatures checked) and unpacked with dpkg-deb.
#
#   bash bench/peers/llama_cpp_arm64.sh setup                once, about 11 MB
#   bash bench/peers/llama_cpp_arm64.sh run PROGRAM [ARG...] llama-quantize, llama-bench, …
#   bash bench/peers/llama_cpp_arm64.sh root                 the folder: qemu-aarch64 -L "$(… root)" …
#
# The mirror is the one that apt is configured with, or the one in ACORN_DEBIAN_MIRROR. Packages come from sid: llama.cpp is in
# no stable release.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
readonly root="${PEER_ARM64_ROOT:-$PWD/build/peers/llama-arm64}"
readonly keyring=/usr/share/keyrings/debian-archive-keyring.gpg
# What llama-bench and llama-quantize load, by hand: installing would pull in what only a running system needs.
readonly packages=(llama.cpp-tools libllama0 libggml0 libc6 libstdc++6 libgcc-s1 libgomp1 libssl3t64 libzstd1 zlib1g)

setup() {
  [ ! -x "$root/usr/bin/llama-bench" ] || return 0
  local mirror="${ACORN_DEBIAN_MIRROR:-}" work
  [ -n "$mirror" ] || mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    grep -E '/debian/?$' | head -n 1 || true)
  [ -n "$mirror" ] || { echo "llama_cpp_arm64: apt knows no Debian mirror: name one in ACORN_DEBIAN_MIRROR" >&2; return 1; }
  mkdir -p "$root"
  work=$(mktemp -d "$root.XXXXXX")
  # shellcheck disable=SC2064
  trap "rm -rf '$work'" EXIT
  mkdir -p "$work"/{lists/partial,cache/archives/partial,debs}
  : >"$work/status"
  echo "deb [arch=arm64 signed-by=$keyring] $mirror sid main" >"$work/sources.list"
  apt_arm64() {
    apt-get -q -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
      -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
      -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o Dir::State::status="$work/status" \
      -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o Acquire::Languages=none -o Acquire::Retries=2 \
      -o APT::Sandbox::User="$(id -un)" -o APT::Update::Error-Mode=any "$@"
  }
  apt_arm64 update >&2
  (cd "$work/debs" && apt_arm64 download "${packages[@]}") >&2
  for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$root"; done
  [ -e "$root/lib" ] || ln -s usr/lib "$root/lib"  # where programs look for the loader
}

case ${1:-} in
  setup) setup ;;
  root) echo "$root" ;;
  run)
    shift
    exec qemu-aarch64 -L "$root" -cpu max,pauth-impdef=on "$root/usr/bin/$1" "${@:2}"
    ;;
  *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 2 ;;
esac
