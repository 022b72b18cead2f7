#!/bin/sh
# Generates docs/reference from the Go files.
set -eu
cd "$(dirname "$0")/.."
mkdir -p docs/reference
fresh=$(mktemp)
trap 'rm -f "$fresh"' EXIT

echo "generating docs/reference/v1alpha1.md"
bin/crd-ref-docs --source-path=api --config=hack/docs/api.yaml --templates-dir=hack/docs/templates \
  --renderer=markdown --output-path="$fresh" --log-level=ERROR
sed -e 's/ *|$/ |/' -e 's/ *$//' "$fresh" >docs/reference/v1alpha1.md

echo "generating docs/reference/metrics.md"
CGO_ENABLED=0 go run -trimpath ./hack/metrics >"$fresh"
cat "$fresh" >docs/reference/metrics.md
