#!/usr/bin/env bash
# compare.sh DATA_DUMP generated|real [options of compare_anndata.py]: compares what lib/data reads with what the
# anndata package reads. Exit code 77 when something it needs is absent.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
data_dump="$1" set="$2"
shift 2
python="${XDG_CACHE_HOME:-$HOME/.cache}/scrna-train/oracle-python/bin/python"
if ! "$python" -c 'import anndata' 2>/dev/null; then
  echo "SKIPPED: no Python with the anndata package; make it with scripts/oracle_env.sh"
  exit 77
fi
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
if [ "$set" = generated ]; then
  "$python" "$here/make_h5ad_files.py" "$work/generated"
  "$python" "$here/compare_anndata.py" --data-dump "$data_dump" --title "Generated files" "$@" "$work/generated"
else
  real="${SCRNA_REAL_DATA:-$here/../../../shared/data}"
  if [ ! -d "$real" ]; then
    echo "SKIPPED: no folder of real .h5ad files; name one in SCRNA_REAL_DATA"
    exit 77
  fi
  "$python" "$here/compare_anndata.py" --data-dump "$data_dump" --title "Real files" "$@" "$real"
fi
