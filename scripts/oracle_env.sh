#!/usr/bin/env bash
# Makes the Python environment of the tests labelled `oracle` (tests/oracle/requirements.txt) in the user's cache
# folder and prints the path of its python. Does nothing when it is already there; an interrupted attempt is
# started afresh, and a second clone waits for the first. Only these tests need it: the program itself never uses Python.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
environment="$cache/oracle-python"
requirements="$root/tests/oracle/requirements.txt"
mkdir -p "$cache"
exec 9> "$cache/oracle-python.lock"
flock 9
if ! cmp -s "$requirements" "$environment/complete"; then
  say "installing $(tr '\n' ' ' < "$requirements")(about 400 MB) in $environment"
  rm -rf "$environment"
  python3 -m venv "$environment"
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements" >&2
  cp "$requirements" "$environment/complete"
fi
echo "$environment/bin/python"
