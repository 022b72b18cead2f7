#!/bin/sh
# Looks for known vulnerabilities in what the programs call. A database that
# can't be reached, as in a closed network, is a warning that nothing was
# checked; every other failure is an error. GOVULNDB names a mirror.
set -eu
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
code=0
bin/govulncheck ${GOVULNDB:+-db "$GOVULNDB"} ./... >"$log" 2>&1 || code=$?
cat "$log"
if [ "$code" -ne 0 ] && grep -q 'fetching vulnerabilities: .*\(dial tcp\|no such host\|i/o timeout\|TLS handshake\|Forbidden\|proxyconnect\|connection re\)' "$log"; then
  echo "WARNING: vulnerabilities were NOT checked: the database ${GOVULNDB:-https://vuln.go.dev} can't be reached from here (set GOVULNDB to a mirror)"
  exit 0
fi
exit "$code"
