#!/bin/sh
# Runs all tests, with the race detector. That needs cgo and a C compiler;
# without them it says so and runs the tests without it, but never in CI.
set -eu
cd "$(dirname "$0")/.."

# can_race tells whether a test program with the race detector can be built.
can_race() {
  [ "$(go env CGO_ENABLED)" = 1 ] || return 1
  go test -race -run '^$' ./internal/apikey >/dev/null 2>&1
}

race=-race
if ! can_race; then
  if [ "${CI:-}" = true ]; then
    echo "error: the race detector needs cgo and a C compiler (CC), and CI never tests without it" >&2
    exit 1
  fi
  echo "WARNING: no cgo or no C compiler, so the tests run WITHOUT the race detector"
  race=
  export CGO_ENABLED=0
fi
exec go test $race -timeout 30m "$@" ./...
