#!/usr/bin/env bash
# clang-tidy (.clang-tidy) and cppcheck over runtime/, ports/ and programs/; fails at the first finding that is no known exception.
# Needs clang-tidy, cppcheck and build/release with its compile commands.
#
#   bash tests/lint.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tidy=$(command -v clang-tidy clang-tidy-14 | head -n 1) || true
[ -n "$tidy" ] && command -v cppcheck >/dev/null || { echo "lint: clang-tidy or cppcheck is not installed" >&2; exit 1; }
[ -f build/release/compile_commands.json ] || cmake --preset release

failed=0
cppcheck --std=c++17 --quiet --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
  --suppressions-list=tests/lint/cppcheck.txt -i build \
  -I runtime -I runtime/api/include -I schema/include -I ports/posix/include runtime ports/posix ports/simulated programs schema || failed=1

# The flags are GCC's: what clang does not know of them is no finding.
sed -n 's/^ *"file": "\(.*\)",\{0,1\}$/\1/p' build/release/compile_commands.json | sort -u |
  grep -E "^$PWD/(runtime|ports/posix|ports/simulated|programs)/" |
  xargs -n 4 -P "$(nproc)" "$tidy" -p build/release --quiet --extra-arg=-Wno-unknown-warning-option --extra-arg=-Wno-error || failed=1
exit "$failed"
