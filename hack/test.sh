#!/bin/sh
# Runs all tests, with the race detector. That needs cgo and a C compiler;
# without them it says so and runs the tests without it, but never in CI. The same
# goes for Chromium, which some tests open pages in, for Python, Node.js and PHP,
# which receivers of callbacks are written in, and for PostgreSQL, one of the stores.
set -eu
cd "$(dirname "$0")/.."

# can_race tells whether a test program with the race detector can be built.
can_race() {
  [ "$(go env CGO_ENABLED)" = 1 ] || return 1
  go test -race -run '^$' ./internal/apikey >/dev/null 2>&1
}

# SQLite was C once: the check of its pointers costs much and tells nothing of ours.
race="-race -gcflags=modernc.org/...=-d=checkptr=0"
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

has() { command -v "$1" >/dev/null; }

# has_postgresql tells whether tests will find the programs of a PostgreSQL server.
has_postgresql() {
  has initdb || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1
}

missing=
has_chromium || missing=chromium
has python3 || missing="$missing python3"
has node || missing="$missing nodejs"
has npm || missing="$missing npm"
has php || missing="$missing php-cli"
has_postgresql || missing="$missing postgresql"
if [ -n "$missing" ] && [ -e /etc/debian_version ] && [ "$(id -u)" = 0 ]; then
  echo "not installed, so installed now, with apt-get:" $missing
  if ! has_postgresql && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    mkdir -p /etc/postgresql-common # tests make clusters of their own, so none is to run
    echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
  fi
  # shellcheck disable=SC2086 # a list of packages
  { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y $missing; } >/dev/null ||
    echo "WARNING: apt-get can't install it"
fi

# lack WHAT CONSEQUENCE says what is not tested, and ends in CI.
lack() {
  if [ "${CI:-}" = true ]; then
    echo "error: $1 is not installed, and CI never tests without it" >&2
    exit 1
  fi
  echo "WARNING: $1 is not installed, so $2"
}

has_chromium || lack Chromium "NO PAGE is tested in a browser"
has python3 || lack python3 "the formats of vendors are NOT tested against receivers of another hand"

has_postgresql || lack PostgreSQL "the store in PostgreSQL is NOT tested"
has php || lack php "the receiver in PHP of docs/receivers.md is NOT tested"

# The packages that receivers in Node.js use, once for each package-lock.json.
packages=dispatcher/testdata/node
if ! has node || ! has npm; then
  lack "Node.js or npm" "signatures, CloudEvents and JWE are NOT tested with the official packages"
elif [ ! -e $packages/node_modules/.package-lock.json ] ||
  [ $packages/package-lock.json -nt $packages/node_modules/.package-lock.json ]; then
  (cd $packages && npm ci --silent) || lack "what $packages/package-lock.json names" "signatures, CloudEvents and JWE are NOT tested with the official packages"
fi
# Alerts and dashboard are tested with Prometheus' own engine, in a module of its own,
# whose cached results would not notice changes of what is outside of it.
# shellcheck disable=SC2086 # no flag is no argument
(cd hack/monitoring && go test $race -count=1 -timeout 10m "$@" ./...)
# So is the chart, with Helm's.
# shellcheck disable=SC2086
(cd hack/helm && go test $race -timeout 10m "$@" ./...)

# And the scan for vulnerabilities, whose database must be found offline.
(cd hack/tools && go test -timeout 10m "$@" ./vuln)

# The race detector allocates, too, so what counts allocations is run without it, unless
# other tests are asked for. That is 15 s beside the build, and none while nothing has
# changed.
case "$race $* " in
  " "* | *" -run"* | *" --run"*) ;;
  *) go test -timeout 10m -run '^TestAllocationsOf' "$@" ./ingress ./dispatcher ;;
esac

# Many tests wait for others more than they compute, so one package more, and four
# times as many parallel tests of a package, run at a time than Go would choose.
# shellcheck disable=SC2086
exec go test $race -p $(($(nproc) + 1)) -parallel $((4 * $(nproc))) -timeout 30m "$@" ./...
