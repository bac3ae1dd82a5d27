#!/usr/bin/env bash
# Lines and branches of what reads hostile bytes (runtime/model, runtime/text, runtime/plan) that the tests run; fails below 90 % of
# the lines or 80 % of the branches. Needs gcovr (toolchains/setup.sh --lint).
#
#   bash tests/coverage.sh           builds build/coverage, runs its tests, prints a table
#   bash tests/coverage.sh -R evil   with ctest's options
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
command -v gcovr >/dev/null || { echo "coverage: gcovr is not installed; toolchains/setup.sh --lint does it" >&2; exit 1; }
cmake --preset coverage
cmake --build --preset coverage
find build/coverage -name '*.gcda' -delete
ctest --preset coverage "$@"
exec gcovr --root . --object-directory build/coverage --exclude-throw-branches --exclude-unreachable-branches \
  --filter runtime/model/ --filter runtime/text/ --filter runtime/plan/ \
  --print-summary --fail-under-line 90 --fail-under-branch 80
