#!/bin/sh
# Installs Postbus into the cluster of the current kubeconfig, tells the story in it,
# and removes it again; once as standalone, once as three deployments. Nothing may be
# left then. Where there is a release tag, that is installed first and upgraded.
#
#   IMAGE         the image of Postbus, which the nodes have or can pull
#   STORY_IMAGE   the same of the story (hack/e2e/Dockerfile)
#   DSN           an empty PostgreSQL database as pods reach it; without it one is
#                 started in the cluster, and its image pulled
#   INSTALLATIONS "standalone default", or one of them
#   OLD_IMAGE     the image of the last release, ghcr.io/postbus/postbus:TAG without it
set -eu
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
# One kubectl for all: the one that was built, so that kustomize is always the same.
kubectl() { "$programs/kubectl" "$@"; }

say() { echo "e2e: $*"; }

# everything lists all objects that the cluster keeps, but for those that come and go
# by themselves, and volumes, which stay where their class says so.
everything() {
  kubectl api-resources --verbs=list -o name |
    grep -vE '^(events|endpoints|bindings|componentstatuses|persistentvolumes|replicasets\.apps|leases\.|endpointslices\.|events\.|controllerrevisions\.|ipaddresses\.|nodes\.metrics|pods\.metrics)' |
    while read -r resource; do
      kubectl get "$resource" -A --ignore-not-found -o 'custom-columns=KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name' --no-headers
    done | sort
}

# refuse_others ends the run where something is installed already: it would be removed.
refuse_others() {
  for namespace in postbus-system postbus-e2e marketing; do
    [ -z "$(kubectl get namespace "$namespace" --ignore-not-found -o name)" ] || {
      echo "error: the cluster has a namespace $namespace: e2e installs into an empty cluster only, and removes all of it" >&2
      exit 1
    }
  done
}

# manifests TREE INSTALLATION IMAGE writes an installation of a source tree.
manifests() {
  kubectl kustomize "$1/hack/e2e/$2" | sed "s#ghcr.io/postbus/postbus:latest#$3#"
}

# install TREE INSTALLATION IMAGE returns once all of it is ready.
install() {
  began=$(date +%s)
  kubectl apply -f "$1/config/default/namespace.yaml" >/dev/null
  if [ "$2" = single-role ]; then
    kubectl create secret generic postbus-store-owner -n postbus-system --from-literal=dsn="$DSN" --dry-run=client -o yaml | kubectl apply -f - >/dev/null
  fi
  manifests "$@" | kubectl apply -f - >/dev/null
  for deployment in $(kubectl get deployments -n postbus-system -o name); do
    kubectl rollout status -n postbus-system "$deployment" --timeout=120s >/dev/null
  done
  say "$2 with $3 is ready after $(($(date +%s) - began)) s"
}

# tell has the story told and checked, step by step.
tell() {
  kubectl create namespace postbus-e2e >/dev/null
  kubectl create configmap samples -n postbus-e2e --from-file=config/samples >/dev/null
  sed "s#postbus-story:latest#$STORY_IMAGE#" hack/e2e/story.yaml | kubectl apply -f - >/dev/null
  kubectl wait pod -n postbus-e2e -l app=story --for=condition=Ready --timeout=60s >/dev/null || true
  kubectl logs -n postbus-e2e job/story -f --pod-running-timeout=60s
  kubectl wait job/story -n postbus-e2e --for=condition=Complete --timeout=10s >/dev/null || {
    kubectl get pods -A
    kubectl get events -n postbus-system | tail -30
    kubectl logs -n postbus-system -l app.kubernetes.io/name=postbus --prefix --tail=40
    echo "error: the story did not come true" >&2
    return 1
  }
}

# uninstall INSTALLATION removes all of it. What the controller looks after goes first,
# while there is a controller: subscriptions wait for it.
uninstall() {
  sed "s#postbus-story:latest#$STORY_IMAGE#" hack/e2e/story.yaml | kubectl delete --ignore-not-found -f - >/dev/null
  kubectl delete namespace postbus-e2e --ignore-not-found >/dev/null
  kubectl delete webhooksubscriptions,apikeys,contactlists -A --all --timeout=60s >/dev/null
  kubectl delete namespace marketing --ignore-not-found >/dev/null
  manifests . "$1" "$IMAGE" | kubectl delete --ignore-not-found --timeout=120s -f - >/dev/null
}

# run INSTALLATION is one round.
run() {
  refuse_others
  everything >"$work/before"
  if [ -n "$tag" ]; then
    install "$work/release" "$1" "${OLD_IMAGE:-ghcr.io/postbus/postbus:$tag}"
    say "upgrading from $tag"
  fi
  install . "$1" "$IMAGE"
  tell
  uninstall "$1"
  everything >"$work/after"
  diff "$work/before" "$work/after" || {
    echo "error: these objects are left, or missing" >&2
    return 1
  }
  say "$1 is removed, and nothing is left"
}

: "${IMAGE:?names the image of Postbus}" "${STORY_IMAGE:?names the image of the story}"
programs=${KUBEBUILDER_ASSETS:-bin}
tag=$(git describe --tags --abbrev=0 --match 'v*' HEAD^ 2>/dev/null || true)
if [ -n "$tag" ]; then
  mkdir "$work/release"
  git archive "$tag" config hack/e2e | tar -x -C "$work/release"
else
  say "there is no release tag yet, so no upgrade is tried"
fi
for installation in ${INSTALLATIONS:-standalone default}; do
  if [ "$installation" = default ]; then
    installation=trial
    [ -z "${DSN:-}" ] || installation=single-role
  fi
  run "$installation"
done
rm -rf "$work"
say "all is well"
