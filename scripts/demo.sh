#!/usr/bin/env bash
# demo.sh [--data FILE.h5ad ...] [--steps N] [--cuda AUTO|ON|OFF] [--yes]
# From a fresh machine to a trained model: sets up and builds (build.sh), looks at the cells, trains the model of
# configs/demo.yaml in runs/demo, and says what came of it. At most ten minutes on two processors after the downloads.
#   --data   your own files, raw counts; without it, 5,000 synthetic cells are made
#   --steps  training steps instead of those in configs/demo.yaml
#   --cuda, --yes  as for build.sh
# An earlier runs/demo is kept under another name.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

program=build/release/bin/scrna-train # relative to the root, where everything runs after the options are read
run=runs/demo

read_options() {
  files=() steps='' build_options=()
  while [ $# -gt 0 ]; do
    case "$1" in
      --help | -h) print_help; exit 0 ;;
      --yes) build_options+=(--yes); shift ;;
      --data)
        shift
        while [ $# -gt 0 ] && [[ "$1" != --* ]]; do
          if [ ! -r "$1" ] || [ -d "$1" ]; then stop 3 "--data $1: there is no such file, or it cannot be read"; fi
          files+=("$(realpath --no-symlinks "$1")")
          shift
        done
        [ ${#files[@]} -gt 0 ] || stop 2 "--data needs at least one file; see --help"
        ;;
      --steps | --cuda)
        [ $# -ge 2 ] || stop 2 "$1 needs a value; see --help"
        if [ "$1" = --steps ]; then steps="$2"; else build_options+=(--cuda "$2"); fi
        shift 2
        ;;
      *) stop 2 "unknown option $1; see --help (files come after --data)" ;;
    esac
  done
  [[ "$steps" =~ ^([1-9][0-9]*)?$ ]] || stop 2 "--steps: expected a whole number from 1, got $steps"
}

# Prints a command as it can be typed, then runs it.
show_and_run() {
  printf '\n$ %s\n' "$(typed "$@")" >&2
  "$@"
}

# typed WORD...: with quotes where a shell needs them.
typed() {
  local word line=
  for word in "$@"; do
    if [[ "$word" =~ ^[A-Za-z0-9_./=:,+-]+$ ]]; then line+=" $word"; else line+=" ${word@Q}"; fi
  done
  echo "${line:1}"
}

# yaml_list FILE...: ["a","b"], for --set.
yaml_list() {
  local file list=
  for file in "$@"; do
    file="${file//\\/\\\\}"
    list+=",\"${file//\"/\\\"}\""
  done
  echo "[${list:1}]"
}

keep_earlier_run() {
  [ -e "$run" ] || return 0
  local kept
  kept="$run-$(date -r "$run" +%Y%m%d-%H%M%S)"
  while [ -e "$kept" ]; do kept+=+; done
  mv "$run" "$kept"
  say "the earlier $run is now $kept"
}

closing_words() {
  local checkpoint steps_done
  checkpoint="$run/checkpoints/$(readlink "$run/checkpoints/latest")"
  steps_done=$((10#${checkpoint##*step-}))
  cat << END

What was made, in $root:
  $run/config.yaml       every setting of this run; the same file and seed give the same numbers
  $run/vocabulary.tsv    the genes it knows, with the median that each is divided by
  $run/metrics.jsonl     one line a step: loss, gradient norms, largest attention scores, speed
  $run/log.txt           what was said on the way
  $run/tensorboard/      the same numbers for TensorBoard
  $checkpoint
    model.safetensors       the weights, $(size_of "$checkpoint/model.safetensors")
    optimizer.safetensors, state.json, manifest.json: what it takes to go on, bit for bit

What it means: in cells that it has never seen, the model guesses which gene stands behind a mask. It has learned
something when its held-out loss is below that of the gene frequencies, both printed above.

What to do next:
  $(typed cd "$root")
  $program train --resume $run --set train.steps=$((2 * steps_done))    # twice as long
  tail -n 1 $run/metrics.jsonl
END
  if [ ${#files[@]} = 0 ]; then
    echo "  scripts/demo.sh --data your-cells.h5ad    # the same on your own cells"
  else
    echo "  $program train --check --config configs/demo.yaml --set model.width=256 --set run.dir=runs/wider --set $(typed "data.files=$data_files")"
  fi
  echo "  $program train --help    # examples; configs/README.md explains every setting"
  echo
  echo "The run as a page, to open in a browser:"
  echo "  $root/$run/report.html"
}

size_of() { du --human-readable --apparent-size "$1" | cut -f 1; }

main() {
  read_options "$@"
  "$root/scripts/build.sh" --target scrna-train "${build_options[@]}"
  cd "$root"
  if [ ${#files[@]} = 0 ]; then
    files_to_train=("$root/build/demo-cells.h5ad")
    show_and_run "$program" synthesize --out build/demo-cells.h5ad --force
  else
    files_to_train=("${files[@]}")
  fi
  local file
  for file in "${files_to_train[@]}"; do show_and_run "$program" inspect "$file"; done

  keep_earlier_run
  mkdir -p "$(dirname "$run")"
  data_files="$(yaml_list "${files_to_train[@]}")"
  local -a settings=(--set "data.files=$data_files" --set "run.dir=$run")
  [ -z "$steps" ] || settings+=(--set "train.steps=$steps")
  # The warm-up of configs/demo.yaml is 20 steps; a run that is hardly longer gets a shorter one.
  if [ -n "$steps" ] && [ "$steps" -lt 40 ]; then settings+=(--set "optim.warmup_steps=$((steps / 2))"); fi
  show_and_run "$program" train --config configs/demo.yaml "${settings[@]}"
  show_and_run "$program" report "$run" --out "$run/report.html" > /dev/null
  closing_words
}

main "$@"
