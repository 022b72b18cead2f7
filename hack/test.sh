#!/bin/sh
# Runs all tests, with the race detector. That needs cgo and a C compiler;
# without them it says so and runs the tests without it, but never in CI. The same
# goes for Chromium, which some tests open pages in, and for Python, which a receiver
# of callbacks is written in.
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

# has_chromium tells whether tests will find a Chromium.
has_chromium() {
  for name in chromium chromium-browser google-chrome google-chrome-stable headless-shell; do
    if command -v "$name" >/dev/null; then return 0; fi
  done
  return 1
}

has_python() { command -v python3 >/dev/null; }

missing=
has_chromium || missing=chromium
has_python || missing="$missing python3"
if [ -n "$missing" ] && [ -e /etc/debian_version ] && [ "$(id -u)" = 0 ]; then
  echo "not installed, so installed now, with apt-get:" $missing
  # shellcheck disable=SC2086 # a list of packages
  { apt-get -qq update && apt-get -qq install --no-install-recommends -y $missing; } >/dev/null ||
    echo "WARNING: apt-get can't install it"
fi
if ! has_chromium; then
  if [ "${CI:-}" = true ]; then
    echo "error: tests open pages in Chromium, none is installed, and CI never tests without it" >&2
    exit 1
  fi
  echo "WARNING: no Chromium is installed, so NO PAGE is tested in a browser"
fi
if ! has_python; then
  if [ "${CI:-}" = true ]; then
    echo "error: a receiver of callbacks is written in Python, python3 is not installed, and CI never tests without it" >&2
    exit 1
  fi
  echo "WARNING: python3 is not installed, so the format MailUp is NOT tested against a receiver of another hand"
fi
exec go test $race -timeout 30m "$@" ./...
