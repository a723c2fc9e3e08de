#!/usr/bin/env bash
# experiment_twins.sh [OPTION...] DATA_FOLDER OUT
# Trains twins, sigmoid and softmax attention with two seeds each (configs/experiments/twins.yaml), on human cells, and
# evaluates them on human and mouse cells that they have not seen. configs/experiments/README.md says what comes of it.
#   DATA_FOLDER  holds the .h5ad files named below
#   OUT          runs/ (the runs, their vocabulary, a report of the training), results/ (report.html, evaluation.json,
#                metrics.csv, groups.csv ...), results.txt, mouse_names.tsv; with --rates also rates/, rates.tsv and
#                twins.yaml. The same command again goes on where it was interrupted; with other settings it is refused.
# Options:
#   --program FILE    the scrna-train to use; default: build/release/bin/scrna-train
#   --jobs N          runs side by side on each GPU, or on the CPU; default 1
#   --gpus 0,1,...    GPUs to train on, by number; default: the first, or the CPU
#   --steps N         training steps instead of the configuration's
#   --rates A,B,...   first tries these learning rates with one seed (OUT/rates), and trains each attention at the one where its
#                     own held-out loss was lowest; without it both at the configuration's
#   --rate-steps N    steps of these trials; default: as many as the runs, so that schedules are alike
#   --maskings N      of each cell for the masked loss; default 15
#   --quick           a tiny model for a few steps on a part of the cells: tries everything out, on a CPU in minutes
#   --set KEY=VALUE   over every run's settings; may be repeated
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# All have gene symbols. The configuration leaves out the cells of human_pbmc_7batch that come from the donor of human_pbmc3k.
training_files=(human_blood_combat_covid human_luad_patients human_malt_tumour human_pbmc_donorA_frozen human_pbmc_7batch)
# cell_type in both; human_pbmc3k has cells labelled 'unlabelled', too.
evaluation_files=(human_pbmc3k mouse_oligodendrocytes_marques)
models=(sigmoid softmax)

read_options() {
  program="$root/build/release/bin/scrna-train" jobs=1 gpus='' steps='' rates='' rate_steps='' maskings=15 quick=no
  settings=()
  local -a places=()
  while [ $# -gt 0 ]; do
    case "$1" in
      --help | -h) print_help; exit 0 ;;
      --quick) quick=yes; shift; continue ;;
      --program | --jobs | --gpus | --steps | --rates | --rate-steps | --maskings | --set) [ $# -ge 2 ] || stop 2 "$1 needs a value; see --help" ;;
      -*) stop 2 "unknown option $1; see --help" ;;
      *) places+=("$1"); shift; continue ;;
    esac
    case "$1" in
      --program) program="$2" ;;
      --jobs) jobs="$2" ;;
      --gpus) gpus="$2" ;;
      --steps) steps="$2" ;;
      --rates) rates="$2" ;;
      --rate-steps) rate_steps="$2" ;;
      --maskings) maskings="$2" ;;
      --set) settings+=("$2") ;;
    esac
    shift 2
  done
  [ ${#places[@]} = 2 ] || stop 2 "expected DATA_FOLDER and OUT, got ${#places[@]} places; see --help"
  data="${places[0]}" out="${places[1]}"
  [[ "$jobs" =~ ^[1-9][0-9]*$ ]] || stop 2 "--jobs: expected a whole number from 1, got $jobs"
  [[ "$steps" =~ ^([1-9][0-9]*)?$ ]] || stop 2 "--steps: expected a whole number from 1, got $steps"
  [[ "$rate_steps" =~ ^([1-9][0-9]*)?$ ]] || stop 2 "--rate-steps: expected a whole number from 1, got $rate_steps"
  [[ "$rates" =~ ^([0-9][0-9.e+-]*(,[0-9][0-9.e+-]*)*)?$ ]] || stop 2 "--rates: expected numbers with commas between them, got $rates"
  [ -n "$rates" ] || [ -z "$rate_steps" ] || stop 2 "--rate-steps: they are of the trials of --rates, which is not given"
  [[ "$maskings" =~ ^[0-9]+$ ]] || stop 2 "--maskings: expected a whole number from 0, got $maskings"
  [ "$quick" = no ] || maskings=2
  local file
  for file in "${training_files[@]}" "${evaluation_files[@]}"; do
    [ -r "$data/$file.h5ad" ] || stop 3 "$data/$file.h5ad: there is no such file, or it cannot be read"
  done
  [ -x "$program" ] || stop 2 "there is no program $program; scripts/build.sh builds it, --program names another"
}

# Files of a list as data.files wants them: ["a.h5ad","b.h5ad"].
yaml_list() {
  local file list=
  for file in "$@"; do list+=",\"$(realpath "$data/$file.h5ad")\""; done
  echo "[${list:1}]"
}

# train TABLE FOLDER STEPS OPTION...: no STEPS, the table's.
train() {
  local table="$1" folder="$2" length="$3" setting
  shift 3
  local -a words=(--config "$table" --out "$folder" --jobs-per-gpu "$jobs"
    --set "data.files=$(yaml_list "${training_files[@]}")")
  if [ "$quick" = yes ]; then
    words+=(--set model.num_layers=2 --set model.width=64 --set model.num_heads=2 --set model.feed_forward_width=128
      --set tokenizer.max_tokens=128 --set train.global_batch_cells=8 --set data.heldout_cells=100 --set data.num_workers=1)
  fi
  [ -z "$gpus" ] || words+=(--gpus "$gpus")
  [ -z "$length" ] || words+=(--steps "$length")
  for setting in "${settings[@]}"; do words+=(--set "$setting"); done
  "$program" stress "${words[@]}" "$@"
}

# last_loss RUN: the held-out loss that the run ended with; nothing when it diverged or did not begin.
last_loss() {
  [ -f "$1/metrics.jsonl" ] && [ ! -d "$1/divergence" ] || return 0
  sed -n 's/.*"heldout_loss":\([0-9.e+-]*\).*/\1/p' "$1/metrics.jsonl" | tail -n 1
}

# Trains the trials of try_rates and writes OUT/rates.tsv: learning rate, attention, held-out loss.
try_rates() {
  local rate model loss
  train "$table" "$out/rates" "${rate_steps:-$steps}" --axis 'train.seed=[1]' --axis "optim.learning_rate=[$rates]" \
    --set checkpoint.save_last=false
  for rate in ${rates//,/ }; do
    for model in "${models[@]}"; do
      loss="$(last_loss "$out/rates/$model-seed1-lr$rate")"
      printf '%s\t%s\t%s\n' "$rate" "$model" "${loss:-diverged}"
    done
  done > "$out/rates.tsv"
}

# Writes OUT/twins.yaml, the table with each attention's best rate, and sets table to it.
take_best_rates() {
  local model rate
  local -a edits=()
  for model in "${models[@]}"; do
    rate="$(awk -F '\t' -v model="$model" '
      $2 == model && $3 != "diverged" && (best == "" || $3 < least) { best = $1; least = $3 }
      END { print best }' "$out/rates.tsv")"
    [ -n "$rate" ] || stop 4 "with $model attention every learning rate of $rates diverged ($out/rates.tsv); try lower ones"
    edits+=(-e "s/^  $model: {model.attention: $model}\$/  $model: {model.attention: $model, optim.learning_rate: $rate}/")
    say "$model: learning rate $rate, by the held-out losses of $out/rates.tsv"
  done
  sed "${edits[@]}" "$table" > "$out/twins.yaml"
  [ "$(grep -c 'optim.learning_rate: ' "$out/twins.yaml")" = ${#models[@]} ] || stop 70 "$table does not name its variants as this script expects"
  table="$out/twins.yaml"
}

# A mouse gene is taken for the human gene with the same letters: Mbp for MBP, mt-Nd1 for MT-ND1. Most one-to-one orthologs are
# named so; genes that are not find no token. An alias that is a human gene itself (C1orf112) is left alone.
write_mouse_names() {
  awk -F '\t' -v OFS='\t' '
    function mouse_name(gene) {
      if (gene ~ /^MT-/) return "mt-" toupper(substr(gene, 4, 1)) tolower(substr(gene, 5))
      return toupper(substr(gene, 1, 1)) tolower(substr(gene, 2))
    }
    FNR == 1 || $1 < 4 { next }
    { genes[++count] = $2; is_gene[$2] = 1; ++times[mouse_name($2)] }
    END {
      print "alias", "id"
      for (i = 1; i <= count; ++i) {
        name = mouse_name(genes[i])
        if (!(name in is_gene) && times[name] == 1) print name, genes[i]
      }
    }' "$out/runs/vocabulary.tsv" > "$out/mouse_names.tsv"
}

evaluate() {
  local model run runs file
  local -a words=(--label cell_type --exclude-label unlabelled --maskings "$maskings"
    --set "data.gene_map=$out/mouse_names.tsv" --out "$out/results")
  for model in "${models[@]}"; do
    runs=
    for run in "$out/runs/$model"-*/; do
      [ -e "$run/checkpoints/latest" ] || stop 4 "$run holds no checkpoint: that run did not end (${run%/}.log); its twins are not comparable"
      runs+=",${run%/}"
    done
    words+=(--group "$model=${runs:1}")
  done
  [ "$quick" = no ] || words+=(--max-cells 300 --bootstraps 50)
  for file in "${evaluation_files[@]}"; do words+=("$data/$file.h5ad"); done
  "$program" evaluate "${words[@]}" | tee "$out/results.txt"
}

# The held-out loss that each run ended with, and what guessing costs.
held_out_losses() {
  local run number='[0-9.e+-]*'
  printf '%-20s%12s%18s%10s\n' 'held-out loss' model 'gene frequency' uniform
  for run in "$out"/runs/*/; do
    [ -f "$run/metrics.jsonl" ] || continue
    sed -n "s/.*\"heldout_loss\":\($number\).*\"heldout_uniform_loss\":\($number\).*\"heldout_gene_frequency_loss\":\($number\).*/\1 \3 \2/p" \
      "$run/metrics.jsonl" | tail -n 1 | xargs -r printf '%-20s%12.4f%18.4f%10.4f\n' "$(basename "$run")" | grep . ||
      printf '%-20s%12s\n' "$(basename "$run")" none
  done
}

main() {
  read_options "$@"
  mkdir -p "$out"
  table="$root/configs/experiments/twins.yaml"
  [ "$quick" = no ] || steps="${steps:-40}" rate_steps="${rate_steps:-8}"
  if [ -n "$rates" ]; then
    try_rates
    take_best_rates
  fi
  train "$table" "$out/runs" "$steps"
  write_mouse_names
  say "trained in $SECONDS s; evaluating"
  evaluate
  {
    echo
    held_out_losses
  } | tee -a "$out/results.txt"
  say "done in $SECONDS s: $out/results.txt and $out/results/report.html"
}

main "$@"
