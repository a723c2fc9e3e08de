#!/usr/bin/env bash
# oracle_env.sh [eval]
# Makes the Python environment of the tests labelled `oracle` (tests/oracle/requirements.txt) in the user's cache
# folder and prints the path of its python; `eval`: the larger one of the tests of lib/eval, in a folder of its own
# (tests/oracle/requirements_eval.txt: scikit-learn, scib-metrics, igraph, umap-learn). Does nothing when it is already there; an interrupted attempt is
# started afresh, and a second clone waits for the first. Only these tests need it: the program itself never uses Python.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
case "${1:-}" in
  '') environment="$cache/oracle-python" requirements="$root/tests/oracle/requirements.txt" size="400 MB" ;;
  eval) environment="$cache/oracle-eval-python" requirements="$root/tests/oracle/requirements_eval.txt" size="1.5 GB" ;;
  *) stop 2 "oracle_env.sh: expected nothing or 'eval', got '$1'" ;;
esac
mkdir -p "$cache"
exec 9> "$environment.lock"
flock 9
if ! cmp -s "$requirements" "$environment/complete"; then
  say "installing $(tr '\n' ' ' < "$requirements")(about $size) in $environment"
  rm -rf "$environment"
  python3 -m venv "$environment"
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements" >&2
  cp "$requirements" "$environment/complete"
fi
echo "$environment/bin/python"
