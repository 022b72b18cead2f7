#!/bin/sh
# Runs every fuzz target for a while, one after the other, beginning with what
# testdata/fuzz has kept. A finding ends it, and is kept there.
set -eu
cd "$(dirname "$0")/.."
time=${1:-10m}
grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u | while read -r package; do
  go test -list '^Fuzz' "$package" | grep '^Fuzz' | while read -r target; do
    echo "fuzzing $package $target for $time"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$package" </dev/null
  done
done
