#!/bin/sh
# Runs every fuzz target for a while, one after the other, beginning with the
# corpus in testdata/fuzz, and adds to it each input that reached new code. A
# finding ends it, and is kept there too.
set -eu
cd "$(dirname "$0")/.."
time=${1:-10m}
cache=$(go env GOCACHE)/fuzz

# keep PACKAGE TARGET copies the inputs that Go has found worth keeping.
keep() {
  found=$cache/$(go list "$1")/$2
  [ -d "$found" ] || return 0
  mkdir -p "$1/testdata/fuzz/$2"
  cp "$found"/* "$1/testdata/fuzz/$2/"
}

grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u | while read -r package; do
  go test -list '^Fuzz' "$package" | grep '^Fuzz' | while read -r target; do
    echo "fuzzing $package $target for $time"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$package" </dev/null
    keep "$package" "$target"
  done
done
