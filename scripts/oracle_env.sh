#!/usr/bin/env bash
# oracle_env.sh [torch]
# Makes the Python environment of the tests labelled `oracle` (tests/oracle/requirements.txt) in the user's cache
# folder and prints the path of its python; `torch`: the one of the tests of scripts/scrna_torch.py, in a folder of its own
# (requirements_torch.txt and PyTorch 2.11 without its CUDA packages: those of the LibTorch that fetch_libtorch.sh fetched
# serve). Does nothing when it is already there; an interrupted attempt is started afresh, and a second clone waits for
# the first. Only these tests need it: the program itself never uses Python.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
case "${1:-}" in
  '') environment="$cache/oracle-python" requirements="$root/tests/oracle/requirements.txt" size="400 MB" ;;
  torch) environment="$cache/oracle-torch-python" requirements="$root/tests/oracle/requirements_torch.txt" size="1.6 GB" ;;
  *) stop 2 "oracle_env.sh: expected nothing or 'torch', got '$1'" ;;
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
    ln -sfn "$cache/libtorch-2.11.0/nvidia" "$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/nvidia"
  fi
  cp "$requirements" "$environment/complete"
fi
echo "$environment/bin/python"
