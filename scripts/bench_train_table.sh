#!/usr/bin/env bash
# bench_train_table.sh [--program FILE] [--device cuda|cpu] [MODEL...]
# The table of training speed of lib/train/README.md, measured anew: `scrna-train bench train --row` for each of its
# rows, as Markdown on stdout. MODEL is a name of configs/: 160m 70m 400m unless some are named. Each row takes about
# ten seconds on an H200. A row that cannot be measured says why on stderr; the others go on, and the exit status is 1.
#   models      contexts 8192, 4096, 2048; lengths as in CELLxGENE and full; sigmoid and softmax attention
#   160m, too   the fast sigmoid; the residual stream in bf16; train.recompute feed_forward and block
# Options:
#   --program   the scrna-train to measure; default: build/release/bin/scrna-train
#   --device    of the rows; cpu is for trying the script out
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

program="$root/build/release/bin/scrna-train" device=cuda failed=0
models=()
while [ $# -gt 0 ]; do
  case "$1" in
    --help | -h) print_help; exit 0 ;;
    --program | --device)
      [ $# -ge 2 ] || stop 2 "$1 needs a value; see --help"
      if [ "$1" = --program ]; then program="$2"; else device="$2"; fi
      shift 2 ;;
    -*) stop 2 "unknown option $1; see --help" ;;
    *) models+=("$1"); shift ;;
  esac
done
[ ${#models[@]} -gt 0 ] || models=(160m 70m 400m)
for model in "${models[@]}"; do
  [ -f "$root/configs/$model.yaml" ] || stop 2 "there is no configs/$model.yaml; expected a name of configs/, got $model"
done
[ -x "$program" ] || stop 2 "there is no program $program; scripts/build.sh builds it, --program names another"

log="$(mktemp)"
trap 'rm -f "$log"' EXIT

# row MODEL OPTION...
row() {
  local model="$1"
  shift
  if ! "$program" bench train --row --device "$device" --config "$root/configs/$model.yaml" "$@" 2> "$log"; then
    say "$model $*: $(tail -n 1 "$log")"
    failed=1
  fi
}

echo "| parameters | cells, lengths, context | tokens | attention | recompute | ms per step | cells/s | tokens/s | TFLOP/s | MFU | peak memory |"
echo "|---|---|---|---|---|---|---|---|---|---|---|"
for model in "${models[@]}"; do
  for context in 8192 4096 2048; do
    for lengths in cellxgene full; do
      for attention in sigmoid softmax; do
        row "$model" --context "$context" --lengths "$lengths" --attention "$attention"
      done
    done
  done
  [ "$model" = 160m ] || continue
  for lengths in cellxgene full; do row "$model" --lengths "$lengths" --set model.attention_precision=fast; done
  for lengths in cellxgene full; do row "$model" --lengths "$lengths" --set model.residual_precision=bf16; done
  for recompute in feed_forward block; do row "$model" --set "train.recompute=$recompute"; done
done
exit "$failed"
