# shellcheck shell=bash
# Sourced by the other scripts: where things are, and how they speak. Everything said goes to stderr, so that a
# script's stdout is its result.
# shellcheck disable=SC2034  # both are used by the scripts that source this file
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck disable=SC2034
cache="${XDG_CACHE_HOME:-$HOME/.cache}/scrna-train"

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; }

# stop EXIT_CODE MESSAGE: 2 means that the user has something to do or to correct.
stop() {
  say "$2"
  exit "$1"
}

# The comment at the top of the calling script is its --help.
print_help() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"; }

# megabytes BYTES: rounded, at least 1.
megabytes() { echo $(( ($1 + 999999) / 1000000 )); }

# On a terminal, time to read what was announced; --yes skips it.
pause_before_installing() {
  if [ -t 0 ] && [ "${assume_yes:-no}" = no ]; then
    say "starting in 5 seconds; Ctrl-C stops, --yes skips this pause"
    sleep 5
  fi
}
