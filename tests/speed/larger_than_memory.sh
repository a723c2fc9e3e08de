#!/usr/bin/env bash
# larger_than_memory.sh BUILD_BIN [FOLDER]: training data ten times larger than the memory given to the process, and
# data in a hundred files. BUILD_BIN holds scrna-train and loader_speed. loader_speed opens the files, scans them and
# goes through an epoch of micro-batches under `ulimit -v` (address space, stricter than what is resident;
# MALLOC_ARENA_MAX=1, since every arena of malloc reserves 64 MB of addresses that it hardly uses). Needs 5 GB of disk in
# FOLDER (default: a temporary one), where files are kept and used again. Exit code 1 when the limit did not hold.
set -euo pipefail
bin="$(readlink -f "$1")"
folder="${2:-}"
if [ -z "$folder" ]; then
  folder="$(mktemp -d)"
  trap 'rm -rf "$folder"' EXIT
fi
mkdir -p "$folder/many"
limit_mb=400
if [ ! -f "$folder/large.h5ad" ]; then  # not compressed: 8 bytes a value
  "$bin/scrna-train" synthesize --out "$folder/large.h5ad" --cells 260000 --genes 20000 --median-genes 1800 --gzip-level 0 >&2
fi
if [ ! -f "$folder/small.h5ad" ]; then
  "$bin/scrna-train" synthesize --out "$folder/small.h5ad" --cells 2000 --genes 20000 --median-genes 1800 >&2
fi
[ -f "$folder/small.cache/vocabulary.tsv" ] || "$bin/scrna-train" cache "$folder/small.h5ad" --out "$folder/small.cache" >&2
for i in $(seq 100); do ln -f "$folder/small.h5ad" "$folder/many/donor-$i.h5ad"; done

file_mb=$(( $(stat -c %s "$folder/large.h5ad") / 1000000 ))
[ "$file_mb" -ge $(( 10 * limit_mb )) ] || { echo "large.h5ad has $file_mb MB, fewer than 10 x $limit_mb" >&2; exit 1; }
for window in 2048 4096; do
  echo "== one file of $file_mb MB, ulimit -v $limit_mb MB, windows of $window cells"
  (ulimit -v $(( limit_mb * 1000 )) && MALLOC_ARENA_MAX=1 "$bin/loader_speed" --epoch "$folder/small.cache/vocabulary.tsv" $window "$folder/large.h5ad")
done
echo "== 100 files, ulimit -v $limit_mb MB, windows of 2048 cells"
(ulimit -v $(( limit_mb * 1000 )) && MALLOC_ARENA_MAX=1 "$bin/loader_speed" --epoch "$folder/small.cache/vocabulary.tsv" 2048 "$folder"/many/*.h5ad)
