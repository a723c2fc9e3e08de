#!/usr/bin/env bash
# compare_data.sh SCRNA_TRAIN [FOLDER]: `bench data` and other loaders on one file, in one run, as one table.
# The file: 40,000 cells x 20,000 genes, about 2,000 expressed per cell, made by `scrna-train synthesize` and written
# again by anndata with compression="gzip" (level 4, no shuffle, chunks as h5py guesses them), since that is how files
# are. Everything is kept in FOLDER (default: a temporary one) and used again. The Python environment
# (peers_requirements.txt from PyPI; annbatch needs Python 3.12) is made in the user's cache folder. Test-only: the
# program itself never uses Python.
set -euo pipefail
program="$(readlink -f "$1")"
here="$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
folder="${2:-}"
if [ -z "$folder" ]; then
  folder="$(mktemp -d)"
  trap 'rm -rf "$folder"' EXIT
fi
# annbatch needs Python 3.12: the newest there is, on the path or of pyenv.
newest_python() {
  local candidate
  for candidate in python3.13 python3.12 "$HOME"/.pyenv/versions/3.1[23].*/bin/python3 python3; do
    if "$candidate" -c 'import sys, venv' 2> /dev/null; then echo "$candidate"; return; fi
  done
}
environment="${XDG_CACHE_HOME:-$HOME/.cache}/scrna-train/speed-python"
if ! cmp -s "$here/peers_requirements.txt" "$environment/complete"; then
  rm -rf "$environment"
  "$(newest_python)" -m venv "$environment"
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$here/peers_requirements.txt" >&2
  cp "$here/peers_requirements.txt" "$environment/complete"
fi
python="$environment/bin/python"
mkdir -p "$folder"
if [ ! -f "$folder/cells.h5ad" ]; then
  "$program" synthesize --out "$folder/synthesized.h5ad" --cells 40000 --genes 20000 --median-genes 1800 >&2
  "$python" -c '
import sys, anndata
anndata.read_h5ad(sys.argv[1]).write_h5ad(sys.argv[2], compression="gzip")' "$folder/synthesized.h5ad" "$folder/writing.h5ad"
  mv "$folder/writing.h5ad" "$folder/cells.h5ad"
fi
if [ ! -f "$folder/cache/vocabulary.tsv" ]; then
  rm -rf "$folder/cache"
  "$program" cache "$folder/cells.h5ad" --out "$folder/cache" >&2
fi
cat "$folder/cells.h5ad" > /dev/null  # into the page cache
"$program" bench data "$folder/cells.h5ad" --vocabulary "$folder/cache/vocabulary.tsv" --cache "$folder/cache" \
  --json "$folder/ours.json" >&2
"$python" "$here/data_peers.py" "$folder/cells.h5ad" "$folder/cache/vocabulary.tsv" --json "$folder/ours.json"
