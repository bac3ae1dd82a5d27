#!/usr/bin/env bash
# clang-tidy (.clang-tidy) and cppcheck over the library, the ports, the programs and the compiler. Ends with 1 where one of them
# has something to say. Needs what `toolchains/setup.sh --lint` installs; configures a build of its own (build/lint), since Clang does
# not read GCC's precompiled headers.
#
#   bash tests/lint.sh [FOLDER...]        default: runtime ports signature programs compiler
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folders=("$@")
[ ${#folders[@]} -gt 0 ] || folders=(runtime ports signature programs compiler)
database=build/lint/compile_commands.json
cmake --preset release -B build/lint -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON >/dev/null
cmake --build build/lint --target acorn_generated_header >/dev/null  # sources include it
status=0

# unusedFunction, unmatchedSuppression and missingInclude ask about the whole of a program that cppcheck does not see.
cppcheck --quiet --error-exitcode=1 --enable=warning,performance,portability --inline-suppr --std=c++17 -j "$(nproc)" \
  --suppressions-list=tests/cppcheck.txt -I . -I runtime -I runtime/api/include -I ports/posix/include "${folders[@]}" || status=1

# Each source once, though several libraries are made of some. GCC's own options are unknown to Clang; and without OpenMP, as
# LibTorch would include a header that there is for GCC alone.
mapfile -t sources < <(sed -n 's|^ *"file": "'"$PWD"'/\(.*\)",\{0,1\}$|\1|p' "$database" | sort -u)
chosen=()
for source in "${sources[@]}"; do
  for folder in "${folders[@]}"; do
    case "$source" in "$folder"/*) chosen+=("$source") ;; esac
  done
done
findings=$(mktemp)
trap 'rm -f "$findings"' EXIT
printf '%s\0' "${chosen[@]}" | xargs -0 -n 1 -P "$(nproc)" clang-tidy-14 --quiet -p build/lint \
  --extra-arg=-Wno-unknown-warning-option --extra-arg=-Wno-ignored-optimization-argument \
  --extra-arg=-fno-openmp >"$findings" 2>&1 || status=1
grep -v -E '^[0-9]+ warnings?( and [0-9]+ errors?)? generated|^Suppressed |^Use -header-filter' "$findings" || true
echo "lint: ${#chosen[@]} sources: $([ "$status" = 0 ] && echo clean || echo findings)"
exit "$status"
