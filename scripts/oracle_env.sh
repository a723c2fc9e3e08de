#!/usr/bin/env bash
# Makes the Python environment of the tests labelled `oracle` (tests/oracle/requirements.txt) in the user's cache
# folder and prints the path of its python. Does nothing when it is already there; an interrupted attempt is
# started afresh. Only these tests need it: the program itself never uses Python.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
environment="${XDG_CACHE_HOME:-$HOME/.cache}/scrna-train/oracle-python"
requirements="$root/tests/oracle/requirements.txt"
if ! cmp -s "$requirements" "$environment/complete"; then
  echo "oracle_env: installing $(tr '\n' ' ' < "$requirements")(about 400 MB) in $environment" >&2
  rm -rf "$environment"
  python3 -m venv "$environment"
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements" >&2
  cp "$requirements" "$environment/complete"
fi
echo "$environment/bin/python"
