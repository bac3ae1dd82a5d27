#!/usr/bin/env bash
# Installs what the build needs: Debian packages, and XNNPACK's microkernels with pthreadpool and cpuinfo.
#
#   bash toolchains/setup.sh           install what is missing (root or sudo for packages); does nothing the second time
#   bash toolchains/setup.sh --check   only report; exit 1 if something is missing
#   bash toolchains/setup.sh --cross   also what the cross builds and their tests need: compilers, QEMU, Arm microkernels
#   bash toolchains/setup.sh --fetch   also what fetching a model from PyPI needs
#   bash toolchains/setup.sh --train   also LibTorch, for recipes that need gradients
#   bash toolchains/setup.sh --fuzz    also Clang with libFuzzer, for tests/fuzz/run.sh
#   bash toolchains/setup.sh --lint    also clang-tidy and cppcheck, for tests/lint.sh, and gcovr, for tests/coverage.sh
#
# Works on Debian 12 and 13. Where the release has no libxnnpack-dev (Debian 12), the packages of Debian 13 are
# downloaded with apt into its own folders (signatures checked) and unpacked under build/deps; nothing is installed over
# the system's own. The mirror is the one that apt is configured with, or the one in ACORN_DEBIAN_MIRROR.
#
# Result under build/deps:
#   xnnpack/<amd64|arm64>/usr/...        Debian's libxnnpack-dev, unpacked
#   static/<amd64|arm64>/{lib,include}   pthreadpool and cpuinfo as static libraries, from their sources in Debian;
#                                        optional: without them the system's serve, or the port's own parts
set -euo pipefail

readonly donor=trixie           # the release that the microkernels are taken from
readonly donor_version='0.0~git20241108'
readonly source_suites=(trixie sid)  # sources, in this order; a mirror may lack some
readonly keyring=/usr/share/keyrings/debian-archive-keyring.gpg
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly deps="${ACORN_DEPS_DIR:-$PWD/build/deps}"

check_only=0 cross=0 fetch=0 train=0 fuzz=0 lint=0
for argument in "$@"; do
  case "$argument" in
    --check) check_only=1 ;;
    --cross) cross=1 ;;
    --fetch) fetch=1 ;;
    --train) train=1 ;;
    --fuzz) fuzz=1 ;;
    --lint) lint=1 ;;
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    *) echo "setup: unknown argument $argument" >&2; exit 2 ;;
  esac
done

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# ---- what is there -----------------------------------------------------------------------------------------------

has_header() { [ -e "/usr/include/$1" ]; }
has_program() { command -v "$1" >/dev/null 2>&1; }
has_cmake() {
  has_program cmake || return 1
  local version
  version=$(cmake --version 2>/dev/null | sed -n '1s/[^0-9]*\([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
  [ -n "$version" ] && set -- $version && { [ "$1" -gt 3 ] || { [ "$1" -eq 3 ] && [ "$2" -ge 25 ]; }; }
}

missing_packages() {
  has_program g++ || echo g++
  has_cmake || echo cmake
  has_program ninja || echo ninja-build
  has_program xz || echo xz-utils
  has_program pkg-config || echo pkgconf
  has_program flatc || echo flatbuffers-compiler
  has_header flatbuffers/flatbuffers.h || echo libflatbuffers-dev
  has_header eigen3/Eigen/Core || echo libeigen3-dev
  has_header nlohmann/json.hpp || echo nlohmann-json3-dev
  has_header CLI/CLI.hpp || echo libcli11-dev
  has_header utf8proc.h || echo libutf8proc-dev
  has_header liburing.h || echo liburing-dev
  has_header sodium.h || echo libsodium-dev
  has_header gtest/gtest.h || echo libgtest-dev
  has_header benchmark/benchmark.h || echo libbenchmark-dev
  has_program valgrind || echo valgrind  # the gate on instruction counts
  if [ "$cross" = 1 ]; then
    has_program aarch64-linux-gnu-g++ || [ "$(machine_arch)" = arm64 ] || echo g++-aarch64-linux-gnu
    has_program arm-linux-gnueabihf-g++ || echo g++-arm-linux-gnueabihf
    has_program riscv64-linux-gnu-g++ || echo g++-riscv64-linux-gnu
    has_program s390x-linux-gnu-g++ || echo g++-s390x-linux-gnu
    has_program qemu-aarch64 || echo qemu-user
    has_program qemu-system-aarch64 || echo qemu-system-arm
    [ -e /usr/src/googletest/CMakeLists.txt ] || echo googletest
  fi
  if [ "$fetch" = 1 ]; then
    python3 -m pip --version >/dev/null 2>&1 || echo python3-pip
  fi
  if [ "$train" = 1 ]; then
    dpkg_has libtorch-dev || echo libtorch-dev
    dpkg_has libopenblas0-pthread || echo libopenblas0-pthread
  fi
  if [ "$fuzz" = 1 ]; then
    has_program clang++-14 || echo clang-14
    dpkg_has libclang-rt-14-dev || echo libclang-rt-14-dev
    has_program llvm-symbolizer-14 || echo llvm-14
  fi
  if [ "$lint" = 1 ]; then
    has_program clang-tidy-14 || echo clang-tidy-14
    has_program cppcheck || echo cppcheck
    has_program gcovr || echo gcovr
  fi
}

dpkg_has() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

triplet_of() { case "$1" in amd64) echo x86_64-linux-gnu ;; arm64) echo aarch64-linux-gnu ;; esac; }

machine_arch() { case "$(uname -m)" in x86_64) echo amd64 ;; aarch64) echo arm64 ;; *) echo "" ;; esac; }

# Architectures whose microkernels are wanted. Other machines build with the project's own kernels alone.
wanted_archs() {
  local own
  own=$(machine_arch)
  [ -z "$own" ] || echo "$own"
  if [ "$cross" = 1 ] && [ "$own" != arm64 ]; then echo arm64; fi
}

has_microkernels() {  # arch
  local triplet
  triplet=$(triplet_of "$1")
  if [ "$1" = "$(machine_arch)" ] && [ -e "/usr/lib/$triplet/libmicrokernels-prod.a" ] && has_header pthreadpool.h &&
    has_header cpuinfo.h; then return 0; fi
  [ -e "$deps/xnnpack/$1/usr/lib/$triplet/libmicrokernels-prod.a" ]
}

missing_microkernels() { for arch in $(wanted_archs); do has_microkernels "$arch" || echo "$arch"; done; }

packages=$(missing_packages | tr '\n' ' ')
archs=$(missing_microkernels | tr '\n' ' ')
if [ "$check_only" = 1 ]; then
  if [ -z "$packages$archs" ]; then
    say "nothing is missing"
    exit 0
  fi
  die "missing: ${packages}${archs:+XNNPACK microkernels (${archs% })}"
fi

# ---- Debian packages ---------------------------------------------------------------------------------------------

as_root=()
can_be_root() {
  [ "$(id -u)" = 0 ] && return 0
  has_program sudo && sudo -n true 2>/dev/null && as_root=(sudo -n) && return 0
  # A person at a terminal may type a password.
  [ -t 0 ] && has_program sudo && as_root=(sudo) && return 0
  return 1
}

updated=0
apt_update() {
  [ "$updated" = 0 ] || return 0
  "${as_root[@]}" apt-get -q -o Acquire::Retries=2 -o APT::Update::Error-Mode=any update >"$log" 2>&1 ||
    "${as_root[@]}" apt-get -q update >"$log" 2>&1 || true
  updated=1
}

install_packages() {
  has_program apt-get || die "missing and not to be had without apt: $*"
  can_be_root || die "missing: $* (needs root or sudo to install them)"
  say "installing $*"
  apt_update
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 \
    install --no-install-recommends "$@" >"$log" 2>&1 </dev/null || {
    die "could not install $* (is the network there?)"
  }
}

mkdir -p "$deps"
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# shellcheck disable=SC2086
[ -z "$packages" ] || install_packages $packages

# ---- XNNPACK's microkernels, pthreadpool, cpuinfo ------------------------------------------------------------------

# An apt of our own: its lists, cache and status lie under build/deps, so the system's are neither read nor changed.
donor_apt() {  # sources list, then apt-get's command and arguments
  local etc="$deps/apt" list="$1"
  shift
  apt-get -q -o Dir::Etc::sourcelist="$etc/$list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
    -o Dir::State::lists="$etc/lists" -o Dir::Cache="$etc/cache" -o Dir::State::status="$etc/status" \
    -o APT::Architecture="$(machine_arch)" -o APT::Architectures::="$(machine_arch)" -o APT::Architectures::=arm64 \
    -o Acquire::Languages=none -o Acquire::Retries=2 -o APT::Sandbox::User="$(id -un)" \
    -o APT::Update::Error-Mode=any "$@"
}

donor_ready=0
prepare_donor() {  # writes the sources lists
  [ "$donor_ready" = 0 ] || return 0
  has_program apt-get && has_program dpkg-deb || die "missing: XNNPACK microkernels (needs apt and dpkg, or -DACORN_XNNPACK=DIR)"
  [ -e "$keyring" ] || install_packages debian-archive-keyring
  local mirror="${ACORN_DEBIAN_MIRROR:-}"
  [ -n "$mirror" ] || mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    grep -E '/debian/?$' | head -n 1 || true)
  [ -n "$mirror" ] || mirror=$(grep -rhoE '(https?|mirror\+file|file):[^ ]*/debian/?( |$)' \
    /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | tr -d ' ' | head -n 1 || true)
  [ -n "$mirror" ] || die "apt knows no Debian mirror: name one in ACORN_DEBIAN_MIRROR"
  mkdir -p "$deps/apt/lists/partial" "$deps/apt/cache/archives/partial"
  : >"$deps/apt/status"
  echo "deb [arch=$(wanted_archs | paste -sd,) signed-by=$keyring] $mirror $donor main" >"$deps/apt/binary.list"
  for suite in "${source_suites[@]}"; do
    echo "deb-src [signed-by=$keyring] $mirror $suite main" >"$deps/apt/$suite.list"
  done
  donor_ready=1
}

# Does the system's own release have the package, new enough to bring libmicrokernels-prod.a? Asks again after an update
# where we may make one.
system_has_xnnpack() {
  has_program apt-cache || return 1
  local policy candidate
  policy=$(LC_ALL=C apt-cache policy libxnnpack-dev 2>/dev/null)
  if [ -z "$policy" ] && can_be_root; then
    apt_update
    policy=$(LC_ALL=C apt-cache policy libxnnpack-dev 2>/dev/null)
  fi
  candidate=$(sed -n 's/^ *Candidate: *//p' <<<"$policy")
  [ -n "$candidate" ] && [ "$candidate" != "(none)" ] && dpkg --compare-versions "$candidate" ge "$donor_version"
}

unpack_microkernels() {  # arch
  local arch="$1" into="$deps/xnnpack/$1" debs
  if [ "$arch" = "$(machine_arch)" ] && system_has_xnnpack; then
    install_packages libxnnpack-dev libpthreadpool-dev libcpuinfo-dev
    has_microkernels "$arch" && return 0
  fi
  prepare_donor
  donor_apt binary.list update >"$log" 2>&1 || {
    die "cannot read the package lists of Debian $donor (is the network there?)"
  }
  say "fetching XNNPACK's microkernels for $arch (Debian $donor)"
  debs="$deps/apt/debs-$arch"
  rm -rf "$debs" "$into.new"
  mkdir -p "$debs" "$into.new"
  (cd "$debs" && donor_apt binary.list download "libxnnpack-dev:$arch") >"$log" 2>&1 || {
    die "cannot download libxnnpack-dev for $arch (is the network there?)"
  }
  for deb in "$debs"/*.deb; do dpkg-deb -x "$deb" "$into.new"; done
  rm -rf "$into"
  mv "$into.new" "$into"
  rm -rf "$debs"
  has_microkernels "$arch" || die "the unpacked package for $arch is not complete"
}

# pthreadpool and cpuinfo as static libraries: one-file programs. Only their *.orig.tar.* are needed, which apt checks
# against the signed Sources list; a mirror that lacks the .dsc or the .debian.tar.xz is good enough.
fetch_source() {  # name -> prints the folder
  local name="$1" sources="$deps/apt/sources" tarball suite
  mkdir -p "$sources"
  for suite in "${source_suites[@]}"; do
    if [ ! -e "$deps/apt/$suite.updated" ]; then
      donor_apt "$suite.list" update >>"$log" 2>&1 || true
      : >"$deps/apt/$suite.updated"
    fi
    (cd "$sources" && donor_apt "$suite.list" source --download-only "$name") >>"$log" 2>&1 || true
    tarball=$(find "$sources" -maxdepth 1 -name "${name}_*.orig.tar.*" | sort | tail -n 1)
    if [ -n "$tarball" ]; then
      rm -rf "${sources:?}/$name"
      mkdir "$sources/$name"
      tar -xf "$tarball" -C "$sources/$name" --strip-components=1
      echo "$sources/$name"
      return 0
    fi
  done
  return 1
}

build_static() {  # arch, name, cmake options: into static/<arch>
  local into="$deps/static/$1" name="$2" work="$deps/apt/build-$2-$1" source cross=()
  [ "$1" = "$(machine_arch)" ] || cross=(-DCMAKE_TOOLCHAIN_FILE="$PWD/toolchains/$(triplet_of "$1").cmake")
  shift 2
  source=$(fetch_source "$name") || return 1
  {
    cmake -S "$source" -B "$work" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_POSITION_INDEPENDENT_CODE=ON \
      -DCMAKE_POLICY_VERSION_MINIMUM=3.5 -DCMAKE_INSTALL_PREFIX="$into" -DCMAKE_INSTALL_LIBDIR=lib "${cross[@]}" "$@" &&
      cmake --build "$work" -j 2 --target install
  } >>"$log" 2>&1
}

build_static_pthreadpool() {  # arch
  local fxdiv
  fxdiv=$(fetch_source fxdiv) || return 1
  build_static "$1" pthreadpool -DPTHREADPOOL_LIBRARY_TYPE=static -DPTHREADPOOL_BUILD_TESTS=OFF \
    -DPTHREADPOOL_BUILD_BENCHMARKS=OFF -DFXDIV_SOURCE_DIR="$fxdiv"
}

build_static_cpuinfo() {  # arch; silent: on Arm it calls it an error that a CPU has no SVE
  build_static "$1" cpuinfo -DCPUINFO_LIBRARY_TYPE=static -DCPUINFO_LOG_LEVEL=none -DCPUINFO_BUILD_TOOLS=OFF -DCPUINFO_BUILD_UNIT_TESTS=OFF \
    -DCPUINFO_BUILD_MOCK_TESTS=OFF -DCPUINFO_BUILD_BENCHMARKS=OFF -DCPUINFO_BUILD_PKG_CONFIG=OFF
}

for arch in $archs; do unpack_microkernels "$arch"; done
for arch in $(wanted_archs); do
  for library in pthreadpool cpuinfo; do
    stamp="$deps/static/$arch/$library.unavailable"  # asked once; remove the file to ask again
    if [ -e "$deps/static/$arch/lib/lib$library.a" ] || [ -e "$stamp" ]; then continue; fi
    prepare_donor
    say "building $library as a static library ($arch)"
    if ! "build_static_$library" "$arch"; then
      mkdir -p "$deps/static/$arch"
      : >"$stamp"
      say "$library cannot be built for $arch: the system's or the port's own part will serve"
    fi
  done
done
rm -rf "$deps/apt"
say "ready"
