#!/usr/bin/env bash
# Set-up, release build, every test; ends with ctest's summary. No input, no questions.
#
#   bash tests/run.sh [ctest options]     e.g. bash tests/run.sh -L kernel
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

jobs=$(nproc 2>/dev/null || echo 2)
[ "$jobs" -le 8 ] || jobs=8

bash toolchains/setup.sh --fetch </dev/null
# Real weights for the tests that need them; without them those are skipped by name.
bash toolchains/fetch_smollm2.sh </dev/null || echo "tests: without SmolLM2's weights" >&2
cmake --preset release </dev/null
cmake --build --preset release -j "$jobs" </dev/null
exec ctest --preset release -j 2 --output-on-failure --no-tests=error "$@" </dev/null
