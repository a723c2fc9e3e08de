#!/usr/bin/env bash
# install_packages.sh [--yes] [--list]
# Installs the Debian or Ubuntu packages of debian_packages.tsv that are missing: as root, or by a sudo that asks for
# no password. Otherwise it prints the one command to run and ends with exit code 2. A tool that is there without its
# package (a newer cmake, say) counts as installed.
#   --list  print the missing packages and change nothing
#   --yes   no pause before installing
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

missing_packages() {
  local package command purpose
  while IFS=$'\t' read -r package command purpose; do
    case "$package" in '#'* | '') continue ;; esac
    : "$purpose"
    if [ "$command" != - ] && command -v "$command" > /dev/null; then continue; fi
    if dpkg-query --show --showformat='${db:Status-Status}' "$package" 2> /dev/null | grep -qx installed; then continue; fi
    echo "$package"
  done < "$root/scripts/debian_packages.tsv"
}

# Prints apt's own sentences about sizes.
announced_size() {
  LC_ALL=C apt-get install --assume-no --no-install-recommends -o Debug::NoLocking=1 "$@" 2> /dev/null |
    grep -E '^(Need to get|After this operation)' | tr '\n' ' ' || true
}

# False on a fresh system, whose apt has no lists of packages yet.
packages_are_known() { apt-get install --simulate --no-install-recommends "$@" > /dev/null 2>&1; }

main() {
  assume_yes=no
  local list_only=no
  while [ $# -gt 0 ]; do
    case "$1" in
      --yes) assume_yes=yes ;;
      --list) list_only=yes ;;
      --help) print_help; exit 0 ;;
      *) stop 2 "unknown option $1; see --help" ;;
    esac
    shift
  done
  if ! command -v dpkg-query > /dev/null; then
    say "this is neither Debian nor Ubuntu: nothing installed; scripts/debian_packages.tsv names what the build needs"
    return
  fi
  local -a missing as_root
  mapfile -t missing < <(missing_packages)
  if [ "$list_only" = yes ]; then
    [ ${#missing[@]} = 0 ] || printf '%s\n' "${missing[@]}"
    return
  fi
  [ ${#missing[@]} -gt 0 ] || return 0

  local command="apt-get install --yes --no-install-recommends ${missing[*]}"
  if [ "$(id -u)" = 0 ]; then
    as_root=(env DEBIAN_FRONTEND=noninteractive)
  elif command -v sudo > /dev/null && sudo -n true 2> /dev/null; then
    as_root=(sudo -n env DEBIAN_FRONTEND=noninteractive)
  else
    say "these packages are missing, and installing them needs root: ${missing[*]}"
    stop 2 "run this, then start again:
  sudo apt-get update && sudo $command"
  fi
  if ! packages_are_known "${missing[@]}"; then
    say "fetching the package lists (apt-get update)"
    "${as_root[@]}" apt-get update -qq
  fi
  say "installing into the system: ${missing[*]}"
  say "apt says: $(announced_size "${missing[@]}")"
  pause_before_installing
  # shellcheck disable=SC2086  # the command is a list of words
  if ! "${as_root[@]}" $command -qq > /dev/null; then
    say "that failed, perhaps because the package lists are old; once more after apt-get update"
    "${as_root[@]}" apt-get update -qq
    # shellcheck disable=SC2086
    "${as_root[@]}" $command -qq > /dev/null || stop 2 "apt-get could not install the packages (its messages are above)"
  fi
}

main "$@"
