# Needs Go, git, make and a POSIX shell. `make help` lists what there is.
# Versions of tools are in go.mod (controller-gen) and hack/*/go.mod (the rest).

.DEFAULT_GOAL := help
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory

# Go needs a home for its caches; where there is none it gets one in bin/.
ifneq ($(shell test -n "$$HOME" && test -d "$$HOME" && test -w "$$HOME" && echo usable),usable)
export HOME := $(CURDIR)/bin/home
export GOFLAGS += -modcacherw
$(shell mkdir -p "$(HOME)")
endif

# go.mod names the exact Go, with its security fixes. An older one downloads that from the
# module proxy, even where the environment or the distribution says GOTOOLCHAIN=local.
ifeq ($(GOTOOLCHAIN),local)
GOTOOLCHAIN := auto
endif
GOTOOLCHAIN ?= auto
export GOTOOLCHAIN

# VERSION and COMMIT are stamped into the binary and the image.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
stamps = -X main.version=$(VERSION) -X main.commit=$(COMMIT)

# What make image builds: its name, and for which platforms. Several at a time need
# IMAGE_FLAGS=--push, because a local store of images takes one. DOCKER=podman works, too.
IMAGE ?= ghcr.io/postbus/postbus:$(VERSION)
PLATFORMS ?= linux/$(shell go env GOARCH)
DOCKER ?= docker

# Where make run puts things and listens. Each can be set: make run POSTBUS_DIR=…
POSTBUS_DIR ?= .postbus
KUBECONFIG_FILE ?= $(POSTBUS_DIR)/kubeconfig
KEY_FILE ?= $(POSTBUS_DIR)/key
INGRESS_ADDRESS ?= 127.0.0.1:8080
RECEIVER_ADDRESS ?= 127.0.0.1:9000
MAIL_ADDRESS ?= 127.0.0.1:2525
METRICS_ADDRESS ?= 127.0.0.1:8081

# How many rounds a benchmark has; odd, as it tells their median.
ATTACK ?= hpack
DURATION ?= 60s
ROUNDS ?= 3

# How many events wait where a benchmark has a large backlog.
BACKLOG ?= 1000000

# make run KUBECONFIG=FILE, or USE_EXISTING_CLUSTER=true with KUBECONFIG in the
# environment, use a cluster that runs already. A KUBECONFIG that just happens
# to be in the environment does not: make run would change that cluster.
ifeq ($(origin KUBECONFIG),command line)
USE_EXISTING_CLUSTER := true
endif
ifeq ($(USE_EXISTING_CLUSTER),true)
cluster_flags := --existing-cluster --existing-kubeconfig="$(KUBECONFIG)"
endif

# KUBEBUILDER_ASSETS names a folder that has etcd, kube-apiserver and kubectl;
# without it they are built into bin/.
ifdef KUBEBUILDER_ASSETS
override KUBEBUILDER_ASSETS := $(abspath $(KUBEBUILDER_ASSETS))
programs := $(KUBEBUILDER_ASSETS)
else
KUBEBUILDER_ASSETS := $(CURDIR)/bin
programs := bin
needed := controlplane
kubectl := bin/kubectl
endif
export KUBEBUILDER_ASSETS

devenv_flags = --postbus=bin/postbus --programs="$(programs)" --config=config --dir="$(POSTBUS_DIR)" \
	--kubeconfig-file="$(KUBECONFIG_FILE)" --key-file="$(KEY_FILE)" \
	--ingress-address="$(INGRESS_ADDRESS)" --receiver-address="$(RECEIVER_ADDRESS)" \
	--mail-address="$(MAIL_ADDRESS)" --metrics-address="$(METRICS_ADDRESS)"

##@ Run

.PHONY: run
run: $(if $(cluster_flags),,$(needed)) build bin/devenv ## A Kubernetes API, Postbus and a receiver on this machine, until Ctrl-C
	@exec bin/devenv run $(devenv_flags) $(cluster_flags)

.PHONY: demo
demo: $(needed) build bin/devenv ## The story of a contact, told and checked in about a minute
	@exec bin/devenv demo $(devenv_flags)

##@ Test

.PHONY: test
test: $(needed) ## All tests, with a real API server and the race detector (ARGS='-run Name' adds arguments)
	@hack/test.sh $(ARGS)

.PHONY: fuzz
fuzz: ## Every fuzz target for FUZZTIME (10m), one after the other
	@hack/fuzz.sh $(FUZZTIME)

.PHONY: bench
bench: $(needed) build ## How fast Postbus is beside its limits, into docs/benchmarks.md (ROUNDS=3, FIGURES=regular expression, BACKLOG=events, PROFILES=folder)
	@go build -o bin/bench ./hack/bench && bin/bench --programs="$(programs)" --rounds=$(ROUNDS) --figures='$(FIGURES)' --backlog=$(BACKLOG) --profiles='$(PROFILES)'

.PHONY: attack
attack: $(needed) build ## Attack ingress over HTTP/2 on this machine, and report (ATTACK=hpack, trailers, headers or unread; DURATION=60s)
	@go run ./test/attack -programs="$(programs)" -attack=$(ATTACK) -duration=$(DURATION)

.PHONY: bench-neighbours
bench-neighbours: $(needed) ## How much callbacks that are down slow a healthy one in the dispatcher alone (ROUNDS=3)
	@go test -timeout 20m -run '^$$' -bench '^BenchmarkNeighbours$$' -benchtime $(ROUNDS)x ./dispatcher

.PHONY: bench-attacks
bench-attacks: $(needed) build ## How much a tenant that attacks slows another one, into docs/security.md (ROUNDS=3)
	@go build -o bin/bench ./hack/bench && bin/bench --programs="$(programs)" --rounds=$(ROUNDS) --figures='^attacks' --out=docs/security.md

.PHONY: e2e
e2e: $(kubectl) ## Install, tell the story and uninstall, in the cluster of KUBECONFIG (IMAGE, STORY_IMAGE, DSN: see hack/e2e/run.sh)
	@IMAGE="$(IMAGE)" hack/e2e/run.sh

.PHONY: verify
verify: ## Generated files, format, lint, modules, vulnerabilities and docs; the tree must stay as it is
	@hack/verify.sh

##@ Build

.PHONY: build
build: ## bin/postbus, and bin/kubectl-postbus, which is the same as a plugin of kubectl
	@hack/build.sh bin/postbus . -ldflags "-s -w $(stamps)" .
	@ln -sf postbus bin/kubectl-postbus

.PHONY: image
image: ## The container image IMAGE for PLATFORMS, with what IMAGE_FLAGS says (--push)
	$(DOCKER) buildx build --platform=$(PLATFORMS) --build-arg VERSION=$(VERSION) --build-arg COMMIT=$(COMMIT) -t $(IMAGE) $(IMAGE_FLAGS) .

.PHONY: helm
helm: $(kubectl) ## dist/helm/postbus: a chart made from config/default
	@hack/build.sh bin/helm-chart hack/helm .
	@bin/helm-chart --kubectl=$(KUBEBUILDER_ASSETS)/kubectl --version=$(VERSION)

.PHONY: sbom
sbom: bin/cyclonedx-gomod ## dist/postbus.cdx.json: what is in the binary, as CycloneDX
	@mkdir -p dist
	bin/cyclonedx-gomod app -json -licenses -packages -output dist/postbus.cdx.json .

.PHONY: controlplane
controlplane: ## bin/etcd, bin/kube-apiserver and bin/kubectl, once (minutes the first time)
	@hack/controlplane/build.sh bin

bin/kubectl:
	@hack/controlplane/build.sh bin kubectl

.PHONY: clean
clean: ## Remove what was built and stored: bin/, dist/ and $(POSTBUS_DIR)/
	rm -rf bin dist "$(POSTBUS_DIR)"

##@ Develop

.PHONY: generate
generate: ## Deepcopy functions, CRDs and RBAC from the Go files
	@hack/generate.sh

.PHONY: docs
docs: bin/crd-ref-docs ## docs/reference from the Go files
	@hack/docs.sh

.PHONY: fmt
fmt: bin/golangci-lint ## Format the Go files
	@bin/golangci-lint fmt

.PHONY: lint
lint: bin/golangci-lint ## Check the Go files against .golangci.yaml (FIX=true repairs what it can)
	@bin/golangci-lint run --allow-parallel-runners $(if $(filter true,$(FIX)),--fix)

.PHONY: vuln
vuln: bin/vuln ## Look for known vulnerabilities, also offline (GOVULNDB=URL names another database)
	@bin/vuln -accepted hack/vuln-accepted.yaml ./...

.PHONY: tidy
tidy: ## Tidy go.mod of every module
	@for module in . hack/tools hack/controlplane hack/monitoring hack/sbom hack/helm; do (cd "$$module" && go mod tidy) || exit 1; done

.PHONY: help
help: ## This list
	@awk -f hack/help.awk $(firstword $(MAKEFILE_LIST))

# bin/devenv is always built: Go knows best what has changed.
.PHONY: bin/devenv
bin/devenv:
	@hack/build.sh bin/devenv . ./hack/devenv

tools := hack/tools/go.mod hack/tools/go.sum

bin/golangci-lint: $(tools) hack/tools/golangci-lint/main.go
	@hack/build.sh $@ hack/tools ./golangci-lint

bin/vuln: $(tools) $(wildcard hack/tools/vuln/*.go)
	@hack/build.sh $@ hack/tools ./vuln

bin/cyclonedx-gomod: hack/sbom/go.mod hack/sbom/go.sum
	@hack/build.sh $@ hack/sbom github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod

bin/crd-ref-docs: $(tools)
	@hack/build.sh $@ hack/tools github.com/elastic/crd-ref-docs
