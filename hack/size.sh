#!/bin/sh
# Checks that the image stays under 60 MB, as a registry counts and a node pulls it:
# the program as the Dockerfile builds it, compressed, and 2 MB for what is below it.
# It says beside that how large the program is unpacked.
set -eu
cd "$(dirname "$0")/.."
limit=58000000
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

GOOS=linux hack/build.sh "$work/postbus" . -ldflags "-s -w" .
size=$(gzip -c "$work/postbus" | wc -c)
echo "the program has $((size / 1000000)) MB in the image, $(($(wc -c <"$work/postbus") / 1000000)) MB unpacked"
if [ "$size" -gt $limit ]; then
  echo "error: that is more than $((limit / 1000000)) MB, so the image would be larger than 60 MB" >&2
  exit 1
fi
