# What there is to do, for people and for CI alike. `make` lists it.
# All that is built or downloaded goes below .cache/ and target/.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
CACHE := .cache
BIN := $(CACHE)/bin
PYTHON := $(CACHE)/venv/bin/python

##@ For everyone

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Develop

.PHONY: build
build: ## Build the `mainstay` command
	$(CARGO) build

.PHONY: generate
generate: ## Write crds/ and the chart's copy anew from src/api
	UPDATE_EXPECT=1 $(CARGO) test --quiet --lib api::schema

.PHONY: verify
verify: generate ## Fail if what is generated is not what is committed
	git diff --exit-code -- crds charts/mainstay/files

##@ Test

.PHONY: chart-test
chart-test: helm venv ## Test what Helm makes of the chart
	$(BIN)/helm lint --quiet charts/mainstay
	HELM=$(BIN)/helm $(PYTHON) -m pytest -q tests/chart

##@ A Kubernetes to try it on

.PHONY: cluster-up
cluster-up: ## Bring up a real one-node Kubernetes and print its kubeconfig's path
	@dev/cluster up

.PHONY: cluster-down
cluster-down: ## Take it down again; binaries and images are kept
	@dev/cluster down

.PHONY: cluster-purge
cluster-purge: ## Take it down and remove its certificates and imported images as well
	@dev/cluster down --purge

.PHONY: images
images: ## Make the images of the operator and of a worker, and load them into the cluster if it is up
	@dev/prepare operator worker
	@if dev/cluster status > /dev/null 2>&1; then dev/cluster load; fi

##@ Prepare

.PHONY: venv
venv: ## Make the Python of the tests: stock dask and distributed
	@dev/prepare venv

.PHONY: helm
helm: ## Build Helm
	@dev/prepare helm

.PHONY: flights
flights: ## Write the flights of the example to .cache/flights
	@dev/prepare flights
