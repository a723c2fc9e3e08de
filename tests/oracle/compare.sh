#!/usr/bin/env bash
# Compares with independent programs, in Python. Exit code 77 when something it needs is absent.
#   compare.sh anndata DATA_DUMP generated|real [options]       what lib/data reads, with the anndata package
#   compare.sh tokens TOKENS_DUMP generated|real                 vocabulary and tokens, with anndata and numpy
#   compare.sh safetensors SAFETENSORS_COPY                      with the safetensors package
#   compare.sh tensorboard SCRNA_TRAIN                           a run's event files, with the tensorboard package
#   compare.sh embed SCRNA_TRAIN                                 embedded files, with h5py, anndata and scanpy
#   compare.sh torch SCRNA_TRAIN                                 exported models, with PyTorch
#   compare.sh finetune SCRNA_TRAIN                              classifiers and annotated files, with scikit-learn, anndata and scanpy
#   compare.sh eval EVAL_DUMP                                    metrics, with scikit-learn, scib-metrics, igraph, umap-learn
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
what="$1" binary="$2" set="${3:-}"
shift $(( $# < 3 ? $# : 3 ))
cache="${XDG_CACHE_HOME:-$HOME/.cache}/scrna-train"
case "$what" in
  embed | torch)
    python="$cache/oracle-torch-python/bin/python"
    if ! "$python" -c 'import scanpy, torch' 2>/dev/null; then
      echo "SKIPPED: no Python with PyTorch and scanpy; make it with scripts/oracle_env.sh torch"
      exit 77
    fi ;;
  finetune)
    python="$cache/oracle-eval-python/bin/python"
    if ! "$python" -c 'import scanpy, sklearn' 2>/dev/null; then
      echo "SKIPPED: no Python with scanpy and scikit-learn; make it with scripts/oracle_env.sh eval"
      exit 77
    fi ;;
  eval)
    python="$cache/oracle-eval-python/bin/python"
    if ! "$python" -c 'import igraph, scib_metrics, sklearn, umap' 2>/dev/null; then
      echo "SKIPPED: no Python with the packages of tests/oracle/requirements_eval.txt; make it with scripts/oracle_env.sh eval"
      exit 77
    fi ;;
  *)
    python="$cache/oracle-python/bin/python"
    if ! "$python" -c 'import anndata, safetensors, tensorboard' 2>/dev/null; then
      echo "SKIPPED: no Python with the packages of tests/oracle/requirements.txt; make it with scripts/oracle_env.sh"
      exit 77
    fi ;;
esac
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
  tensorboard-) "$python" "$here/compare_tensorboard.py" "$binary" ;;
  embed-) "$python" "$here/compare_embed.py" "$binary" ;;
  torch-) OMP_NUM_THREADS=1 "$python" "$here/compare_torch.py" "$binary" ;;
  finetune-) "$python" "$here/compare_finetune.py" "$binary" ;;
  eval-) "$python" "$here/compare_eval.py" --eval-dump "$binary" ;;
  safetensors-) "$python" "$here/compare_safetensors.py" --copy "$binary" ;;
  *) echo "compare.sh: unknown comparison '$what $set'" >&2; exit 2 ;;
esac
