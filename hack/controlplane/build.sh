#!/bin/sh
# Builds the programs of a control plane from their Go modules into the folder
# named by the first argument, once: what is there is not built again. Further
# arguments name the programs; all three without. About five minutes on two
# cores from an empty cache.
set -eu
out=$(mkdir -p "$1" && cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- etcd kube-apiserver kubectl
here=$(cd "$(dirname "$0")" && pwd)

package_of() {
  case $1 in
  etcd) echo go.etcd.io/etcd/server/v3 ;;
  kube-apiserver | kubectl) echo "k8s.io/kubernetes/cmd/$1" ;;
  *) echo "unknown program $1" >&2 && return 1 ;;
  esac
}

for name in "$@"; do
  if [ -x "$out/$name" ]; then continue; fi
  package=$(package_of "$name")
  version=$(cd "$here" && go list -m -f '{{.Version}}' k8s.io/kubernetes)
  minor=$(echo "$version" | cut -d. -f2)
  stamp="-X k8s.io/component-base/version.gitVersion=$version -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=$minor"
  echo "building $name ($package), once"
  "$here/../build.sh" "$out/$name" "$here" -ldflags "-s -w $stamp" "$package"
done
