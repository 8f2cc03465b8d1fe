# What there is to do, for people and for CI alike. `make` lists it.
# All that is built or downloaded goes below .cache/ and target/.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
CACHE := .cache
BIN := $(CACHE)/bin
PYTHON := $(CACHE)/venv/bin/python
# Seconds after which a Python test counts as hung: several times what the longest takes.
export PYTEST_TIMEOUT := 600

##@ For everyone

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Develop

.PHONY: build
build: ## Build the `mainstay` command
	$(CARGO) build

.PHONY: generate
generate: ## Write crds/ and the chart's copy anew from src/api
	UPDATE_EXPECT=1 $(CARGO) test --quiet --lib api::schema

.PHONY: captures
captures: venv ## Record anew what stock Dask peers say, and the texts of it
	$(PYTHON) dev/capture.py tests/wire/captures
	"$$(dev/prepare venv-$(OLDEST))/bin/python" dev/capture.py tests/wire/captures $(FORMERLY_OTHERS)
	UPDATE_EXPECT=1 $(CARGO) test --quiet --no-default-features --test wire captures

.PHONY: verify
verify: generate ## Fail if what is generated is not what is committed
	git diff --exit-code -- crds charts/mainstay/files

##@ Test

# The oldest release of `distributed` that is served; the newest is that of the worker image.
OLDEST := $(basename $(notdir $(firstword $(shell ls dev/releases/*.txt | sort -V))))
# What Clients of the oldest release ask in another form than those of the newest.
FORMERLY_OTHERS := publish_put publish_get publish_delete publish_wait_flush
# Suites, those that need least first. Each is a target of its own.
SUITES := check simulate worker-model audit conformance-newest conformance-oldest differential envtest builder-test chart-test e2e

.PHONY: test
test: ## Run all tests, and bring up what they need; ends with the sum
	@dev/run-tests $(SUITES)

.PHONY: check
check: ## Run what needs no cluster: format, lints, unit tests, scenarios, laws
	$(CARGO) fmt --check
	$(CARGO) clippy --quiet --all-targets -- -D warnings
	$(CARGO) clippy --quiet --all-targets --no-default-features -- -D warnings
	$(CARGO) test --quiet

.PHONY: audit
audit: ## Check licences, sources and bans of what goes into the binary (deny.toml)
	tool="$$(dev/prepare cargo-deny)"; env -u CARGO "$$tool" --locked check --hide-inclusion-graph bans licenses sources

.PHONY: advisories
advisories: ## Look for known holes in it; the database of advisories must be within reach
	tool="$$(dev/prepare cargo-deny)"; env -u CARGO "$$tool" --locked check advisories

.PHONY: sbom
sbom: ## Write what goes into the binary, as CycloneDX, to .cache/mainstay.cdx.json
	tool="$$(dev/prepare cargo-cyclonedx)"; env -u CARGO "$$tool" cyclonedx --format json --target x86_64-unknown-linux-gnu --override-filename mainstay.cdx
	mv mainstay.cdx.json $(CACHE)/mainstay.cdx.json

# SEEDS runs of each kind, from FROM; SEED=S TRACE=1 plays one again and tells what happens. NAME takes only tests with that in their name.
SEEDS ?= 2000
.PHONY: simulate
simulate: ## Play SEEDS whole runs with faults, in one process each: the engine, then the controller
	SEEDS=$(SEEDS) $(CARGO) test --quiet --profile simulation --no-default-features --test simulation $(NAME) -- --nocapture
	SEEDS=$$(( $(SEEDS) / 10 )) $(CARGO) test --quiet --test simulation control$(if $(NAME),::$(NAME)) -- --nocapture

.PHONY: worker-model
worker-model: venv ## Compare the simulation's worker with the state machine of stock workers, newest and oldest
	@mkdir -p $(CACHE)
	SEQUENCES=$(abspath $(CACHE))/sequences.jsonl SEEDS=$(SEEDS) $(CARGO) test --quiet --no-default-features --test simulation sequences_of
	for python in $(PYTHON) "$$(dev/prepare venv-$(OLDEST))/bin/python"; do \
	  SEQUENCES=$(abspath $(CACHE))/sequences.jsonl "$$python" -m pytest -q tests/worker_model; done

# Coverage is what the LLVM of any toolchain can count. What is new is kept below target/.
FUZZ := frames messages
FUZZ_SECONDS ?= 3600
FUZZ_FLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
.PHONY: fuzz
fuzz: ## Feed what reads bytes of peers with what nobody has sent yet, for FUZZ_SECONDS each
	host=$$(rustc -vV | sed -n 's/^host: //p'); RUSTFLAGS="$(FUZZ_FLAGS)" \
	  $(CARGO) build --quiet --release --manifest-path fuzz/Cargo.toml --target $$host --target-dir target/fuzz; \
	for target in $(FUZZ); do mkdir -p target/fuzz/corpus/$$target; \
	  target/fuzz/$$host/release/$$target -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=1 -rss_limit_mb=256 \
	    -artifact_prefix=target/fuzz/$$target- target/fuzz/corpus/$$target fuzz/corpus/$$target; done

.PHONY: envtest
envtest: ## Test the CRD and the controller against a real API server
	export MAINSTAY_TEST_KUBECONFIG="$$(dev/cluster --api up)"; trap 'dev/cluster --api down' EXIT; \
	  $(CARGO) test --quiet --test envtest

.PHONY: builder-test
builder-test: venv ## Test how sources become graphs, on stock workers
	$(PYTHON) -m pytest -q tests/builder

.PHONY: conformance
conformance: build ## The next two with every release of `distributed`, also mixed: an hour; CONFORMANCE=--docs writes the matrix
	@dev/test-releases $(CONFORMANCE)

.PHONY: conformance-newest
conformance-newest: build venv ## Drive `mainstay local` with stock workers and unmodified Clients
	MAINSTAY="$${CARGO_TARGET_DIR:-target}/debug/mainstay" $(PYTHON) -m pytest -q tests/conformance

.PHONY: conformance-oldest
conformance-oldest: build ## The part of it that depends on releases, with the oldest one
	python="$$(dev/prepare venv-$(OLDEST))/bin/python"; \
	  MAINSTAY="$${CARGO_TARGET_DIR:-target}/debug/mainstay" "$$python" -m pytest -q -m releases tests/conformance; \
	  "$$python" -m pytest -q tests/builder

.PHONY: differential
differential: build venv ## Compare with the stock scheduler: the same graphs through both
	MAINSTAY="$${CARGO_TARGET_DIR:-target}/debug/mainstay" $(PYTHON) -m pytest -q tests/differential

.PHONY: chart-test
chart-test: helm venv ## Test what Helm makes of the chart
	$(BIN)/helm lint --quiet charts/mainstay
	HELM=$(BIN)/helm $(PYTHON) -m pytest -q tests/chart

.PHONY: e2e
e2e: install venv ## Tell the stories of tests/e2e on a real cluster: MAINSTAY_TEST_KUBECONFIG, or this checkout's
	$(PYTHON) -m pytest -q --durations=0 --durations-min=5 tests/e2e $(E2E)

.PHONY: chaos
chaos: install venv ## Kill operator and workers at random under load, stock Dask beside: minutes; CHAOS has flags, such as --rounds=10 --docs
	$(PYTHON) tests/chaos/run.py $(CHAOS)

##@ Measure

# ONLY=scheduler,workers takes these topics of bench/run.py alone; BENCH has more of its flags, such as --docs.
RUN_BENCH = $(CACHE)/bench-venv/bin/python bench/run.py $(if $(ONLY),--only $(ONLY)) $(BENCH)

.PHONY: bench
bench: bench-tools ## Compare with the stock scheduler: an hour on a quiet machine; ONLY=topic,… for a part
	$(RUN_BENCH)

.PHONY: bench-quick
bench-quick: bench-tools ## A bit of each with small graphs: minutes
	$(RUN_BENCH) --quick

.PHONY: bench-tools
bench-tools:
	@dev/prepare bench-venv kubectl
	$(CARGO) build --release --bin mainstay --example fake-worker

##@ Try it

.PHONY: demo
demo: ## Show all of it: a Kubernetes, Mainstay, workers, a collection, a Client (or in the cluster of DEMO_KUBECONFIG)
	@dev/demo.py up

.PHONY: demo-down
demo-down: ## Remove all that the demo made
	@dev/demo.py down

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

# A changed image has the same tag: the annotation makes the pod another, so that it is taken.
.PHONY: install
install: helm ## Install or upgrade the operator, with Helm; a cluster of MAINSTAY_TEST_KUBECONFIG must have the images
	@kubeconfig=$${MAINSTAY_TEST_KUBECONFIG:-}; image=given; \
	  if [ -z "$$kubeconfig" ]; then \
	    kubeconfig=$$(dev/cluster up); $(MAKE) --no-print-directory images; \
	    image=$$(sha256sum $(CACHE)/images/operator.json | cut -c1-16); \
	  fi; \
	  $(BIN)/helm --kubeconfig "$$kubeconfig" upgrade mainstay charts/mainstay --install --namespace mainstay-system \
	    --create-namespace --set image.tag=dev --set-string "podAnnotations.mainstay\.dev/image=$$image" --wait --timeout 3m > /dev/null

##@ Prepare

.PHONY: venv
venv: ## Make the Python of the tests: stock dask and distributed
	@dev/prepare venv

.PHONY: helm
helm: ## Build Helm
	@dev/prepare helm

.PHONY: data
data: ## Write the flights of the examples to .cache/flights
	@dev/prepare flights
