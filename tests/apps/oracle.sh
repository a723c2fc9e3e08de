#!/usr/bin/env bash
# oracle.sh SCRNA_TRAIN inspect-generated|inspect-real|filter|synthesize: the program against the anndata package. Exit code
# 77 when something it needs is absent.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
program="$1" what="$2"
python="${XDG_CACHE_HOME:-$HOME/.cache}/scrna-train/oracle-python/bin/python"
if ! "$python" -c 'import anndata' 2>/dev/null; then
  echo "SKIPPED: no Python with the anndata package; make it with scripts/oracle_env.sh"
  exit 77
fi
case "$what" in
  inspect-generated)
    work="$(mktemp -d)"
    trap 'rm -rf "$work"' EXIT
    "$python" "$here/../oracle/make_h5ad_files.py" "$work/generated"
    "$python" "$here/compare_inspect.py" "$program" "$work/generated"
    ;;
  filter)
    work="$(mktemp -d)"
    trap 'rm -rf "$work"' EXIT
    "$python" "$here/../oracle/make_h5ad_files.py" "$work/generated"
    "$python" "$here/compare_filter.py" "$program" "$work/generated/obs_columns.h5ad"
    ;;
  inspect-real)
    real="${SCRNA_REAL_DATA:-$here/../../../shared/data}"
    if [ ! -d "$real" ]; then
      echo "SKIPPED: no folder of real .h5ad files; name one in SCRNA_REAL_DATA"
      exit 77
    fi
    "$python" "$here/compare_inspect.py" "$program" "$real"
    ;;
  synthesize) "$python" "$here/check_synthesized.py" "$program" ;;
esac
