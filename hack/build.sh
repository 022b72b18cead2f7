#!/bin/sh
# Builds one program: build.sh OUTPUT MODULE-FOLDER [FLAG…] PACKAGE
# Without cgo, so no C compiler is needed. Where many packages have to be
# compiled it says now and then how far it is.
set -eu
name=${1##*/}
output=$(mkdir -p "$(dirname "$1")" && cd "$(dirname "$1")" && pwd)/$name
cd "$2"
shift 2

status=$(mktemp)
trap 'rm -f "$status"' EXIT
{
  code=0
  CGO_ENABLED=0 go build -v -mod=readonly -trimpath -o "$output.new" "$@" || code=$?
  echo "$code" >"$status"
} 2>&1 | awk -v name="$name" '
  /^go: downloading / { if (++downloaded % 50 == 0) say(downloaded " modules downloaded"); next }
  /^[a-zA-Z0-9._-]+(\/[a-zA-Z0-9._~-]+)*$/ { if (++compiled % 100 == 0) say(compiled " packages compiled"); next }
  { print; fflush() }
  function say(what) { print "  " name ": " what; fflush() }'
code=$(cat "$status")
[ "$code" -ne 0 ] || mv "$output.new" "$output"
exit "$code"
