#!/usr/bin/env bash
# llama.cpp from Debian's packages, unpacked into a folder of its own: the peer of bench/peers/compare.py on this machine, and of
# bench/counts.sh on 64-bit Arm, where QEMU's user-mode emulation runs it. Nothing is installed and no foreign script runs:
# packages are downloaded with apt (its own lists and folders, signatures checked) and unpacked with dpkg-deb.
#
#   bash bench/peers/llama_cpp.sh [--arch amd64|arm64] setup                 once, about 11 MB
#   bash bench/peers/llama_cpp.sh [--arch …] run PROGRAM [ARG...]   llama-quantize, llama-bench, …; names of files absolute
#   bash bench/peers/llama_cpp.sh [--arch …] words PROGRAM          what `run` runs, a word a line: a folder to be in, the command
#   bash bench/peers/llama_cpp.sh [--arch …] root                   the folder: qemu-aarch64 -L "$(… root)" …
#
# --arch is this machine's unless named. The mirror is the one that apt is configured with, or the one in ACORN_DEBIAN_MIRROR.
# Packages come from sid: llama.cpp is in no stable release.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' bench/peers/llama_cpp.sh; exit 2; }
arch=$(dpkg --print-architecture)
if [ "${1:-}" = --arch ]; then
  [ $# -ge 3 ] || usage
  arch=$2
  shift 2
fi
case $arch in
  amd64) readonly triplet=x86_64-linux-gnu loader=ld-linux-x86-64.so.2 ;;
  arm64) readonly triplet=aarch64-linux-gnu loader=ld-linux-aarch64.so.1 ;;
  *) usage ;;
esac
readonly root="${PEER_ROOT:-$PWD/build/peers/llama-$arch}"
readonly keyring=/usr/share/keyrings/debian-archive-keyring.gpg
# What llama-bench and llama-quantize load, by hand: installing would pull in what only a running system needs.
readonly packages=(llama.cpp-tools libllama0 libggml0 libc6 libstdc++6 libgcc-s1 libgomp1 libssl3t64 libzstd1 zlib1g)

setup() {
  [ ! -x "$root/usr/bin/llama-bench" ] || return 0
  local mirror="${ACORN_DEBIAN_MIRROR:-}" work
  [ -n "$mirror" ] || mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    grep -E '/debian/?$' | head -n 1 || true)
  [ -n "$mirror" ] || { echo "llama_cpp: apt knows no Debian mirror: name one in ACORN_DEBIAN_MIRROR" >&2; return 1; }
  mkdir -p "$root"
  work=$(mktemp -d "$root.XXXXXX")
  # shellcheck disable=SC2064
  trap "rm -rf '$work'" EXIT
  mkdir -p "$work"/{lists/partial,cache/archives/partial,debs}
  : >"$work/status"
  echo "deb [arch=$arch signed-by=$keyring] $mirror sid main" >"$work/sources.list"
  apt_of_arch() {
    apt-get -q -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
      -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
      -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o Dir::State::status="$work/status" \
      -o APT::Architecture="$arch" -o APT::Architectures::="$arch" -o Acquire::Languages=none -o Acquire::Retries=2 \
      -o APT::Sandbox::User="$(id -un)" -o APT::Update::Error-Mode=any "$@"
  }
  apt_of_arch update >&2
  (cd "$work/debs" && apt_of_arch download "${packages[@]}") >&2
  for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$root"; done
  [ -e "$root/lib" ] || ln -s usr/lib "$root/lib"  # where programs look for the loader
}

words() {  # PROGRAM
  local program="$root/usr/bin/$1"
  if [ "$arch" != "$(dpkg --print-architecture)" ]; then
    printf '%s\n' "$PWD" qemu-aarch64 -L "$root" -cpu max,pauth-impdef=on "$program"
    return
  fi
  # sid's C library is newer than the system's, so its own loader starts the program. ggml looks for the library with the kernels
  # of this CPU in the folder it was built for, which is not there, and then in the current one.
  local libraries="$root/usr/lib/$triplet"
  printf '%s\n' "$libraries"/ggml/backends* "$libraries/$loader" --library-path "$libraries:$libraries/llama" "$program"
}

run() {  # PROGRAM [ARG...]
  local command
  mapfile -t command < <(words "$1")
  cd "${command[0]}"
  exec "${command[@]:1}" "${@:2}"
}

case ${1:-} in
  setup) setup ;;
  root) echo "$root" ;;
  run | words)
    [ $# -ge 2 ] || usage
    "$@"
    ;;
  *) usage ;;
esac
