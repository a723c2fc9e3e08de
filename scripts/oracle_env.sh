#!/usr/bin/env bash
# oracle_env.sh [torch|eval]
# Makes the Python environment of the tests labelled `oracle` (tests/oracle/requirements.txt) in the user's cache
# folder and prints the path of its python. Larger ones, in folders of their own:
#   torch   of the tests of scripts/scrna_torch.py (requirements_torch.txt and PyTorch 2.11 without its CUDA packages:
#           those of the LibTorch that fetch_libtorch.sh fetched serve)
#   eval    of the tests of lib/eval (requirements_eval.txt: scikit-learn, scib-metrics, igraph, umap-learn)
# Does nothing when it is already there; an interrupted attempt is started afresh, and a second clone waits for
# the first. Only these tests need it: the program itself never uses Python.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
case "${1:-}" in
  '') environment="$cache/oracle-python" requirements="$root/tests/oracle/requirements.txt" size="400 MB" ;;
  torch) environment="$cache/oracle-torch-python" requirements="$root/tests/oracle/requirements_torch.txt" size="1.6 GB" ;;
  eval) environment="$cache/oracle-eval-python" requirements="$root/tests/oracle/requirements_eval.txt" size="1.5 GB" ;;
  *) stop 2 "oracle_env.sh: expected nothing, 'torch' or 'eval', got '$1'" ;;
esac
mkdir -p "$cache"
exec 9> "$environment.lock"
flock 9
if ! cmp -s "$requirements" "$environment/complete"; then
  say "installing $(tr '\n' ' ' < "$requirements")(about $size) in $environment"
  rm -rf "$environment"
  python3 -m venv "$environment"
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements" >&2
  if [ "${1:-}" = torch ]; then
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps torch==2.11.0 >&2
  fi
  cp "$requirements" "$environment/complete"
fi
echo "$environment/bin/python"
