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

.PHONY: chart-test
chart-test: $(BIN)/helm $(PYTHON) ## Test what Helm makes of the chart
	$(BIN)/helm lint --quiet charts/mainstay
	HELM=$(BIN)/helm $(PYTHON) -m pytest -q tests/chart

.PHONY: venv
venv: $(PYTHON) ## Make the Python of the tests: stock dask and distributed

# PyYAML comes with dask.
$(PYTHON): dev/requirements.txt
	python3 -m venv $(CACHE)/venv
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -r dev/requirements.txt
	touch $@

$(BIN)/helm: dev/helm/go.mod dev/helm/go.sum
	mkdir -p $(BIN)
	cd dev/helm && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o ../../$@ helm.sh/helm/v4/cmd/helm
