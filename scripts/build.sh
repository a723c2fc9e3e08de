#!/usr/bin/env bash
# build.sh [--preset release|dev|asan] [--cuda AUTO|ON|OFF] [--libtorch FOLDER] [--target NAME] [--jobs N] [--yes]
# From a fresh Debian 12 or Ubuntu 24.04 to build/<preset>/bin/scrna-train. Safe to repeat: what is there is kept.
#   1. system packages that are missing (install_packages.sh; without root it names them and stops)
#   2. LibTorch 2.11 in ~/.cache/scrna-train, shared by all clones (fetch_libtorch.sh), or the one you name
#   3. cmake and ninja
# Options:
#   --preset    release (the default), dev (quick to compile), asan (sanitizers, CPU only)
#   --cuda      device code: AUTO (the default: with an NVIDIA driver or an installed nvcc 13), ON, OFF; the
#               environment variable SCRNA_CUDA says the same. Neither a GPU nor a driver is needed to build, or to
#               start the program that results.
#   --libtorch  a LibTorch folder or a site-packages/torch to use instead; CMAKE_PREFIX_PATH says the same
#   --target    build only this (for example scrna-train); may be repeated. Default: everything, with the tests
#   --jobs      compile so many files at once; default: the number of processors
#   --yes       no pauses before installing or downloading
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

read_options() {
  preset=release cuda="${SCRNA_CUDA:-AUTO}" jobs="$(nproc)" assume_yes=no
  targets=()
  while [ $# -gt 0 ]; do
    case "$1" in
      --help | -h) print_help; exit 0 ;;
      --yes) assume_yes=yes; shift; continue ;;
      --preset | --cuda | --libtorch | --target | --jobs) [ $# -ge 2 ] || stop 2 "$1 needs a value; see --help" ;;
      *) stop 2 "unknown option $1; see --help" ;;
    esac
    case "$1" in
      --preset) preset="$2" ;;
      --cuda) cuda="$2" ;;
      --libtorch) export CMAKE_PREFIX_PATH="$2${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}" ;;
      --target) targets+=("$2") ;;
      --jobs) jobs="$2" ;;
    esac
    shift 2
  done
  case "$preset" in release | dev | asan) ;; *) stop 2 "--preset: expected release, dev or asan, got $preset" ;; esac
  case "$cuda" in AUTO | ON | OFF) ;; *) stop 2 "--cuda (or SCRNA_CUDA): expected AUTO, ON or OFF, got $cuda" ;; esac
  [[ "$jobs" =~ ^[1-9][0-9]*$ ]] || stop 2 "--jobs: expected a whole number from 1, got $jobs"
  if [ "$preset" = asan ]; then cuda=OFF; fi
}

# fact NAME: one value that scripts/cmake/machine.cmake found.
fact() { sed -n "s/^-- $1=//p" <<< "$facts"; }

# Sets torch_root, the folder that holds LibTorch's include/ and lib/.
provide_libtorch() {
  local nvcc
  local -a groups=() options=()
  facts="$(cmake "-DSCRNA_CUDA=$cuda" -P "$root/scripts/cmake/machine.cmake")"
  torch_root="$(fact SCRNA_NAMED_LIBTORCH)"
  nvcc="$(fact SCRNA_NVCC)"
  say "device code: $(fact SCRNA_CUDA_WANTED), because $(fact SCRNA_CUDA_REASON)"

  [ -n "$torch_root" ] || groups+=(cpu)
  if [ "$(fact SCRNA_CUDA_WANTED)" = ON ]; then
    [ -n "$torch_root" ] || groups+=(cuda)
    case "$nvcc" in
      '' | "$cache"/*) groups+=(nvcc) ;;
      *) options+=(--toolkit "$(dirname "$(dirname "$(readlink -f "$nvcc")")")") ;;
    esac
  fi
  [ "$assume_yes" = no ] || options+=(--yes)
  if [ ${#groups[@]} -gt 0 ]; then
    local fetched
    fetched="$("$root/scripts/fetch_libtorch.sh" "${options[@]}" "${groups[@]}")"
    torch_root="${torch_root:-$fetched/torch}"
  fi
}

# CMake keeps what it found in its cache. When the clone was moved, or the compiler of device code is gone, that is
# worth nothing: --fresh forgets it.
cache_is_stale() {
  local cache_file="$root/build/$preset/CMakeCache.txt" home nvcc
  [ -f "$cache_file" ] || return 1
  home="$(sed -n 's/^CMAKE_HOME_DIRECTORY:INTERNAL=//p' "$cache_file")"
  nvcc="$(sed -n 's/^CMAKE_CUDA_COMPILER:[A-Z]*=//p' "$cache_file")"
  [ "$home" != "$root" ] || { [ -n "$nvcc" ] && [ ! -x "$nvcc" ]; }
}

main() {
  read_options "$@"
  local -a yes=()
  [ "$assume_yes" = no ] || yes=(--yes)
  "$root/scripts/install_packages.sh" "${yes[@]}"
  provide_libtorch
  cd "$root"
  local -a fresh=()
  if cache_is_stale; then fresh=(--fresh); fi
  cmake --preset "$preset" "${fresh[@]}" "-DSCRNA_CUDA=$cuda" "-DSCRNA_TORCH_ROOT=$torch_root" > "$(configure_log)" 2>&1 || {
    tail -n 30 "$(configure_log)" >&2
    stop 2 "cmake could not configure the build; all it said is in $(configure_log)"
  }
  sed -n '/^-- scrna-train /,/^-- Configuring/{/Configuring/d;s/^-- //p}' "$(configure_log)" >&2
  cmake --build --preset "$preset" --parallel "$jobs" ${targets[0]:+--target "${targets[@]}"}
  say "built in $SECONDS s: build/$preset"
}

configure_log() {
  mkdir -p "$root/build/$preset"
  echo "$root/build/$preset/configure.log"
}

main "$@"
