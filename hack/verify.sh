#!/bin/sh
# Checks everything but the tests, and that what is generated is up to date:
# the working tree must be afterwards what it was before.
set -eu
cd "$(dirname "$0")/.."

# tree shows every difference between the working tree and the last commit.
tree() {
  git status --porcelain
  git diff HEAD
  git ls-files --others --exclude-standard | while read -r file; do
    echo "$file $(git hash-object "$file")"
  done
}

before=$(mktemp) after=$(mktemp)
trap 'rm -f "$before" "$after"' EXIT
tree >"$before"

make generate docs fmt
for module in . hack/tools hack/controlplane hack/monitoring hack/sbom hack/helm; do
  echo "checking that $module/go.mod is tidy"
  (cd "$module" && go mod tidy -diff)
done
make lint vuln
hack/size.sh

tree >"$after"
if ! cmp -s "$before" "$after"; then
  echo "error: these files were not up to date, and are now; commit them:" >&2
  diff "$before" "$after" | head -200 >&2
  exit 1
fi
if [ "${CI:-}" = true ] && [ -s "$after" ]; then
  echo "error: the working tree is not clean:" >&2
  cat "$after" >&2
  exit 1
fi
echo "verified"
