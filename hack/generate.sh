#!/bin/sh
# Generates deepcopy functions, CRDs, and the RBAC of each component from the
# markers in the Go files.
set -eu
cd "$(dirname "$0")/.."

echo "generating deepcopy functions and CRDs"
go tool controller-gen object:headerFile=hack/boilerplate.go.txt paths=./api/...
go tool controller-gen crd paths=./api/... output:crd:dir=config/crd

rbac() { # rbac COMPONENT FOLDER
  echo "generating the RBAC of $1"
  go tool controller-gen "rbac:roleName=postbus-$1" "paths=./$2/..." "output:rbac:dir=config/rbac/$1"
}
rbac controller controllers
rbac ingress ingress
rbac dispatcher dispatcher
rbac operator internal/command
