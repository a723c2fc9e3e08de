#!/usr/bin/env bash
# Compares with independent programs, in Python. Exit code 77 when something it needs is absent.
#   compare.sh anndata DATA_DUMP generated|real [options]       what lib/data reads, with the anndata package
#   compare.sh tokens TOKENS_DUMP generated|real                 vocabulary and tokens, with anndata and numpy
#   compare.sh safetensors SAFETENSORS_COPY                      with the safetensors package
#   compare.sh eval EVAL_DUMP                                    metrics, with scikit-learn, scib-metrics, igraph, umap-learn
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
what="$1" binary="$2" set="${3:-}"
shift $(( $# < 3 ? $# : 3 ))
environments="${XDG_CACHE_HOME:-$HOME/.cache}/scrna-train"
if [ "$what" = eval ]; then
  python="$environments/oracle-eval-python/bin/python"
  if ! "$python" -c 'import igraph, scib_metrics, sklearn, umap' 2>/dev/null; then
    echo "SKIPPED: no Python with the packages of tests/oracle/requirements_eval.txt; make it with scripts/oracle_env.sh eval"
    exit 77
  fi
  exec "$python" "$here/compare_eval.py" --eval-dump "$binary"
fi
python="$environments/oracle-python/bin/python"
if ! "$python" -c 'import anndata, safetensors' 2>/dev/null; then
  echo "SKIPPED: no Python with the packages of tests/oracle/requirements.txt; make it with scripts/oracle_env.sh"
  exit 77
fi
real="${SCRNA_REAL_DATA:-$here/../../../shared/data}"
if [ "$set" = real ] && [ ! -d "$real" ]; then
  echo "SKIPPED: no folder of real .h5ad files; name one in SCRNA_REAL_DATA"
  exit 77
fi
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
case "$what-$set" in
  anndata-generated)
    "$python" "$here/make_h5ad_files.py" "$work/generated"
    "$python" "$here/compare_anndata.py" --data-dump "$binary" --title "Generated files" "$@" "$work/generated" ;;
  anndata-real)
    "$python" "$here/compare_anndata.py" --data-dump "$binary" --title "Real files" "$@" "$real" ;;
  tokens-generated) "$python" "$here/compare_tokens.py" --tokens-dump "$binary" --generate ;;
  tokens-real) "$python" "$here/compare_tokens.py" --tokens-dump "$binary" "$real" ;;
  safetensors-) "$python" "$here/compare_safetensors.py" --copy "$binary" ;;
  *) echo "compare.sh: unknown comparison '$what $set'" >&2; exit 2 ;;
esac
