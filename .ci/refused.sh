#!/usr/bin/env bash
# Fails unless a command exits with code 2 and prints one sentence on standard error that contains the given
# text: `.ci/refused.sh TEXT COMMAND ARGUMENTS..`
set -uo pipefail
text=$1
shift
errors=$("$@" 2>&1 > /dev/null)
status=$?
# Clap prints its hint below the message.
sentence=$(grep -v -e '^$' -e '^For more information' <<< "$errors")
printf '%s\n' "$sentence"
if test "$status" != 2 || test "$(wc -l <<< "$sentence")" != 1 || [[ $sentence != *"$text"* ]]; then
  echo "expected exit code 2 (got $status) and one line with: $text" >&2
  exit 1
fi
