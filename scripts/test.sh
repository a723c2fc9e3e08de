#!/usr/bin/env bash
# test.sh [--quick] [--cuda AUTO|ON|OFF] [--yes] [ctest arguments ...]
# Sets up and builds like build.sh, then runs
#   1. the tests of core, config, data and checkpoint under the address and undefined-behaviour sanitizers
#   2. the whole suite, optimised, with the comparisons against the anndata package (oracle_env.sh makes their Python
#      environment, about 400 MB) and, where 1.3 GB more can be had, with scikit-learn and scib-metrics; its closing lines are the last lines printed
# Tests that need a GPU are listed as skipped where there is none. The exit code is 0 when everything passed.
#   --quick  leave out 1. and the Python environment (its comparisons are then listed as skipped)
# Everything else goes to ctest of the whole suite, for example: scripts/test.sh --quick -R tokenizer
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

sanitized=(core_tests config_tests data_tests checkpoint_tests)

# LibTorch is not instrumented: a std::vector that it resizes would look like an overflow to the sanitizer. Where the
# system lets us, addresses are not randomised: g++ 12 and 13 have a shadow memory that some kernels' layouts overlap.
run_sanitized() {
  local target
  local -a fixed_addresses=(setarch "$(uname -m)" --addr-no-randomize)
  "${fixed_addresses[@]}" true 2> /dev/null || fixed_addresses=()
  local -a targets=()
  for target in "${sanitized[@]}"; do targets+=(--target "$target"); done
  say "the tests of ${sanitized[*]} with sanitizers (build/asan)"
  "$root/scripts/build.sh" --preset asan "${build_options[@]}" "${targets[@]}" || return 1
  ASAN_OPTIONS="detect_container_overflow=0:${ASAN_OPTIONS:-}" UBSAN_OPTIONS="print_stacktrace=1:${UBSAN_OPTIONS:-}" \
    "${fixed_addresses[@]}" ctest --test-dir "$root/build/asan" --output-on-failure --parallel "$(nproc)" \
    --tests-regex "^($(IFS='|'; echo "${sanitized[*]}"))\\."
}

run_all() {
  say "the whole suite (build/release)"
  ctest --test-dir "$root/build/release" --output-on-failure --parallel "$(nproc)" "$@"
}

main() {
  local quick=no
  local -a ctest_arguments=()
  build_options=()
  while [ $# -gt 0 ]; do
    case "$1" in
      --help | -h) print_help; exit 0 ;;
      --quick) quick=yes ;;
      --yes) build_options+=(--yes) ;;
      --cuda)
        [ $# -ge 2 ] || stop 2 "--cuda needs a value; see --help"
        build_options+=(--cuda "$2")
        shift
        ;;
      *) ctest_arguments+=("$1") ;;
    esac
    shift
  done
  "$root/scripts/build.sh" "${build_options[@]}"
  local passed=yes
  if [ "$quick" = no ]; then
    "$root/scripts/oracle_env.sh" > /dev/null ||
      stop 2 "could not make the Python environment of the comparisons; --quick goes without"
    "$root/scripts/oracle_env.sh" eval > /dev/null ||
      say "could not make the larger Python environment of the metrics: their comparison is skipped"
    run_sanitized || passed=no
  fi
  run_all "${ctest_arguments[@]}" || passed=no
  [ "$passed" = yes ] || exit 1
}

main "$@"
