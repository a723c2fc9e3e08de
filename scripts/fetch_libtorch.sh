#!/usr/bin/env bash
# fetch_libtorch.sh [--toolkit FOLDER] [--yes] GROUP...
# Makes the LibTorch of scrna-train in the user's cache folder, from the wheels pinned in libtorch_wheels.tsv, and
# prints its folder. Groups:
#   cpu   LibTorch and what its CPU part loads (0.55 GB to download, 1.1 GB unpacked)
#   cuda  the NVIDIA libraries that libtorch_cuda.so needs (2.0 GB to download)
#   nvcc  a CUDA compiler (0.1 GB)
# Options:
#   --toolkit FOLDER  an installed CUDA 13 toolkit: the libraries it has are linked to instead of fetched
#   --yes             no pause before the download
# Every wheel is downloaded, compared with its SHA-256 sum, unpacked into a temporary folder, merged into the root and
# only then noted in the file `complete` and removed; so an interruption at any point costs one wheel at most. A lock
# makes a second clone wait. Layout: <root>/torch and <root>/nvidia/*, where the libraries look for each other (RPATH).
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

table="$root/scripts/libtorch_wheels.tsv"
libtorch="$cache/libtorch-2.11.0"
complete="$libtorch/complete"
downloads="$cache/downloads"

# rows GROUP...: the lines of the table in these groups, each once.
rows() {
  local groups="$1"
  shift
  while [ $# -gt 0 ]; do groups+="|$1" && shift; done
  grep -P "^([a-z]+,)*($groups)(,[a-z]+)*\t" "$table"
}

# link_from_toolkit TOOLKIT NAME LIBRARY...: true when the toolkit has all of these libraries, which are then
# found beside LibTorch's own, without LD_LIBRARY_PATH.
link_from_toolkit() {
  local toolkit="$1" name="$2" folder library
  shift 2
  [ -n "$toolkit" ] && [ "$1" != - ] || return 1
  toolkit_is_recent "$toolkit" "$name" || return 1
  for folder in "$toolkit/lib64" "$toolkit/targets/x86_64-linux/lib" "$toolkit/lib"; do
    for library in "$@"; do
      [ -e "$folder/$library" ] || continue 2
    done
    mkdir -p "$libtorch/nvidia/cu13/lib"
    for library in "$@"; do link "$folder/$library" "$libtorch/nvidia/cu13/lib/$library"; done
    return 0
  done
  return 1
}

# link TARGET PATH: leaves a right link alone, since programs may be running.
link() { [ "$(readlink "$2")" = "$1" ] || ln -sfn "$1" "$2"; }

# Libraries older than those that LibTorch was built with may lack functions: CUDA 13.0.2, whose nvcc is 13.0.88; cuDNN and
# NCCL have versions of their own.
toolkit_is_recent() {
  local include="$1/include" name="$2" nvcc
  nvcc="$("$1/bin/nvcc" --version 2> /dev/null | sed -n 's/.*, V\([0-9.]*\)$/\1/p')"
  [ "$(printf '%s\n' 13.0.88 "$nvcc" | sort --version-sort | head -n 1)" = 13.0.88 ] || return 1
  case "$name" in
    nvidia-cudnn-cu13) header_number "$include/cudnn_version.h" CUDNN_MAJOR 9 && header_number "$include/cudnn_version.h" CUDNN_MINOR 19 ;;
    nvidia-nccl-cu13) header_number "$include/nccl.h" NCCL_VERSION_CODE 22809 ;;
    *) return 0 ;;
  esac
}

# header_number FILE MACRO MINIMUM
header_number() {
  local value
  value="$(sed -n "s/^#define $2 \([0-9]*\)\$/\1/p" "$1" 2> /dev/null | head -n 1)"
  [ -n "$value" ] && [ "$value" -ge "$3" ]
}

is_complete() { grep -qxF "$1 $2 $3" "$complete" 2> /dev/null; } # NAME VERSION SHA256

pip() {
  if ! python3 -m pip --version > /dev/null 2>&1; then
    [ -x "$cache/pip/bin/python" ] || python3 -m venv "$cache/pip"
    "$cache/pip/bin/python" -m pip "$@"
  else
    python3 -m pip "$@"
  fi
}

# download NAME VERSION SHA256: prints the file. pip is used because it honours the user's index, proxy and
# certificates; the platform is named since the host's Python and libc do not matter for C++ libraries.
download() {
  local name="$1" version="$2" sha256="$3" tag file
  local -a platforms=() quiet=()
  [ -t 2 ] || quiet=(--quiet)
  for tag in manylinux_2_28 manylinux_2_27 manylinux_2_25 manylinux_2_24 manylinux_2_18 manylinux_2_17 manylinux_2_12 manylinux2014; do
    platforms+=(--platform "${tag}_x86_64")
  done
  mkdir -p "$downloads"
  file="$(wheel_file "$name" "$version")"
  if [ -z "$file" ] || ! matches "$file" "$sha256"; then
    rm -f "$downloads/${name//-/_}-$version"-*.whl
    pip download "${quiet[@]}" --disable-pip-version-check --no-cache-dir --no-deps --only-binary=:all: --python-version 3.12 \
      "${platforms[@]}" --dest "$downloads" "$name==$version" >&2 ||
      stop 2 "could not download $name $version; check the network and start again, what is already there is kept"
    file="$(wheel_file "$name" "$version")"
    if ! matches "$file" "$sha256"; then
      say "$(basename "$file") differs from the SHA-256 sum in scripts/libtorch_wheels.tsv"
      say "expected $sha256, got $(sha256sum "$file" | cut -d ' ' -f 1)"
      rm -f "$file"
      stop 2 "it was removed unused; start again, and if that ends here too, look at the package index that pip uses"
    fi
  fi
  echo "$file"
}

wheel_file() { find "$downloads" -maxdepth 1 -name "${1//-/_}-$2-*.whl" 2> /dev/null | head -n 1; }
matches() { echo "$2  $1" | sha256sum --check --status; }

# unpack FILE PATTERNS: into a temporary folder beside the root, then merged into it, by hard links where there are any.
unpack() {
  local file="$1" patterns="$2" partial="$cache/unpacking"
  rm -rf "$partial"
  mkdir -p "$partial" "$libtorch"
  set -f # the patterns are for unzip, not for the shell
  # shellcheck disable=SC2086
  unzip -q "$file" $patterns -d "$partial"
  set +f
  # Python's __init__.py files would only mislead; programs lose their executable bit in a wheel.
  find "$partial" -name '*.py' -delete
  find "$partial" -path '*/bin/*' -type f -exec chmod +x {} +
  cp -al --remove-destination "$partial/." "$libtorch/" 2> /dev/null || cp -a --remove-destination "$partial/." "$libtorch/"
  rm -rf "$partial"
}

# The names that a linker expects (libcudart.so), and the lib64 that nvcc.profile names.
add_links() {
  local library
  [ -d "$libtorch/nvidia/cu13/lib" ] || return 0
  link lib "$libtorch/nvidia/cu13/lib64"
  for library in "$libtorch"/nvidia/cu13/lib/*.so.*; do
    link "$(basename "$library")" "${library%.so.*}.so"
  done
}

main() {
  assume_yes=no
  local toolkit=
  local -a groups=()
  while [ $# -gt 0 ]; do
    case "$1" in
      cpu | cuda | nvcc) groups+=("$1") ;;
      --toolkit)
        [ -d "${2:-}" ] || stop 2 "--toolkit needs a folder; see --help"
        toolkit="$2"
        shift
        ;;
      --yes) assume_yes=yes ;;
      --help) print_help; exit 0 ;;
      *) stop 2 "unknown argument $1; see --help" ;;
    esac
    shift
  done
  [ ${#groups[@]} -gt 0 ] || stop 2 "nothing named to fetch; see --help"
  [ "$(uname -m)" = x86_64 ] || stop 2 "the pinned wheels are for x86-64, this is $(uname -m): name a LibTorch in CMAKE_PREFIX_PATH"
  mkdir -p "$libtorch" || stop 2 "cannot write in $cache; set XDG_CACHE_HOME to a folder of yours"
  exec 9> "$cache/lock"
  if ! flock --nonblock 9; then
    say "another set-up is at work in $cache; waiting for it"
    flock 9
  fi

  local group name version bytes sha256 patterns libraries
  local -a missing=()
  local total=0
  while IFS=$'\t' read -r group name version bytes sha256 patterns libraries; do
    if is_complete "$name" "$version" "$sha256"; then continue; fi
    # shellcheck disable=SC2086
    if [ "$group" = cuda ] && link_from_toolkit "$toolkit" "$name" $libraries; then continue; fi
    missing+=("$name"$'\t'"$version"$'\t'"$sha256"$'\t'"$patterns"$'\t'"$bytes")
    total=$((total + bytes))
  done < <(rows "${groups[@]}")

  if [ ${#missing[@]} -gt 0 ]; then
    command -v unzip > /dev/null || stop 2 "unzip is missing; install it first: scripts/install_packages.sh"
    say "downloading $(megabytes $total) MB from the Python package index into $libtorch (about twice that, unpacked):"
    local entry free
    for entry in "${missing[@]}"; do
      IFS=$'\t' read -r name version sha256 patterns bytes <<< "$entry"
      say "  $name $version, $(megabytes "$bytes") MB"
    done
    free="$(df --output=avail --block-size=1 "$cache" | tail -n 1)"
    [ "$free" -gt $((total * 3)) ] || stop 2 "that needs $(megabytes $((total * 3))) MB free in $cache, there are $(megabytes "$free") MB; set XDG_CACHE_HOME to a larger place"
    pause_before_installing
    for entry in "${missing[@]}"; do
      IFS=$'\t' read -r name version sha256 patterns bytes <<< "$entry"
      say "fetching $name $version ($(megabytes "$bytes") MB)"
      local file
      file="$(download "$name" "$version" "$sha256")"
      unpack "$file" "$patterns"
      echo "$name $version $sha256" >> "$complete"
      rm -f "$file"
    done
    rmdir --ignore-fail-on-non-empty "$downloads"
  fi
  add_links
  echo "$libtorch"
}

main "$@"
