#!/usr/bin/env bash
# Fails if a measured table is older than the code that it measures; docs/results/README.md has the rules.
#   .ci/fresh-results.sh [FOLDER]   the folder of the pages, docs/results by default
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-docs/results}
code=crates/recurrent-core/src
most=20 # commits that touch the code

if ! now=$(git rev-parse --verify --quiet "HEAD:./$code"); then
  echo "skipped: no git repository here, so nothing tells what changed"
  exit
fi
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)

status=0
too_old() { printf '%s\n  measure it again: docs/results/update.sh\n' "$*" >&2; status=1; }

for page in "$folder"/*.md; do
  test "${page##*/}" != README.md || continue
  blocks=0
  while read -r begin; do
    name=${begin#<!-- begin measured }
    name=${name% -->}
    where="$page, block $name"
    blocks=$((blocks + 1))
    # The line after the marker.
    line=$(grep -A 1 -xF -- "$begin" "$page" | sed -n 2p)
    if ! [[ $line =~ ^'<!-- measured date='([0-9-]+)' version='([^ ]+)' commit='([0-9a-f]{40})' kernels='([0-9a-f]{40})' -->'$ ]]; then
      echo "$where: got \`$line\`, expected \`<!-- measured date=.. version=.. commit=.. kernels=.. -->\`" >&2
      status=1
      continue
    fi
    date=${BASH_REMATCH[1]} measured=${BASH_REMATCH[2]} commit=${BASH_REMATCH[3]} kernels=${BASH_REMATCH[4]}
    if test "$kernels" = "$now"; then
      echo "$where: $date, the code is the same"
    elif test "$measured" != "$version"; then
      too_old "$where: measured on $date with version $measured, but this is $version and $code has changed"
    else
      since=$commit from=
      if ! git merge-base --is-ancestor "$commit" HEAD 2> /dev/null; then
        # In a shallow clone, or after a squash, count from the commit that wrote the line.
        since=$(git log -1 --format=%H -S"$line" -- "$page")
        from=" (its commit ${commit:0:7} is not in this history; counted from the one that wrote the page)"
      fi
      count=0
      test -z "$since" || count=$(git rev-list --count "$since..HEAD" -- "$code")
      if test "$count" -gt "$most"; then
        too_old "$where: $count commits since $date touch $code, at most $most are allowed$from"
      else
        echo "$where: $date, $count commits since then touch $code$from"
      fi
    fi
  done < <(grep '^<!-- begin measured .* -->$' "$page" || true)
  if test "$blocks" = 0; then
    echo "$page has no measured block; expected a line \`<!-- begin measured NAME -->\`" >&2
    status=1
  fi
done
exit "$status"
