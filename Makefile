# Everything happens in .venv, from requirements/*.txt, which pin every package with its hashes.
.DEFAULT_GOAL := help
.PHONY: help run install test test-clients image soak bench lint generate lock clean

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
GRPCURL := v1.9.3
COLLECTOR := v0.158.0
KUSTOMIZE := v5.7.1
GHZ := v0.93.0
NODE_MODULES := clients/typescript/node_modules/.package-lock.json

help: ## say what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-9s %s\n", $$1, $$2}'

run: $(VENV)/.sandbox ## start the sandbox and the façade in front of it
	@# At a terminal, -m hands it to the server: Ctrl-C then ends the server and not make, which would report an error.
	@if [ -t 0 ]; then bash -m -c '$(BIN)/servicecatalog-grpc sandbox $(ARGS); exit $$?'; \
	  else exec $(BIN)/servicecatalog-grpc sandbox $(ARGS); fi

install: $(VENV)/.dev ## make .venv with everything for development

test: $(VENV)/.dev $(BIN)/grpcurl $(BIN)/otelcol $(BIN)/kustomize ## run all tests; with ARGS, those of pytest that they choose
	@# Most tests wait more than they work: three at a time take two cores half as long.
	@# A few hold the server to real time, and may miss it beside others: what failed then gets a second chance, alone.
	$(BIN)/python -m pytest -n 3 --dist loadfile $(ARGS) \
	  || { echo "once more, alone: what failed beside others"; $(BIN)/python -m pytest --last-failed --last-failed-no-failures none $(ARGS); }
	@$(if $(ARGS),,$(MAKE) --no-print-directory test-clients)

test-clients: $(VENV)/.dev $(NODE_MODULES)
	@scripts/test-clients

image: $(VENV)/.dev $(VENV)/base.tar ## build the image on a base made here, as root with buildah and debootstrap, and test it
	$(BIN)/python -m pytest tests/test_image.py $(ARGS)

soak: $(VENV)/.dev ## load a server with mixed faults for ten minutes and see that it stays as it was
	@$(BIN)/python tests/soak.py $(ARGS)

bench: $(VENV)/.dev $(VENV)/.bench $(BIN)/ghz ## measure what calls, telemetry and watches cost; ARGS=--quick tries it
	@$(BIN)/python -m bench.cost $(ARGS)
	@$(BIN)/python -m bench.telemetry $(ARGS)
	@$(BIN)/python -m bench.watches $(ARGS)

lint: $(VENV)/.dev $(BIN)/protoc-gen-go $(NODE_MODULES) ## run all static checks, drift of generated code included
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/buf format --diff --exit-code
	$(BIN)/buf lint
	@scripts/check-breaking $(BIN)/buf
	@scripts/check-generated
	@$(BIN)/python scripts/settings_table.py --check
	@scripts/lint-clients

generate: $(VENV)/.dev $(BIN)/protoc-gen-go $(NODE_MODULES) ## write the stubs anew from proto/, and the table of settings
	@scripts/generate
	@$(BIN)/python scripts/settings_table.py

lock: $(VENV)/.dev ## resolve requirements/*.txt anew
	scripts/lock $(BIN)/uv $(ARGS)

clean: ## remove .venv and all that was built
	rm -rf $(VENV) build clients/java/target clients/typescript/node_modules clients/typescript/dist clients/typescript/build

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("servicecatalog-grpc needs Python 3.11 or newer; set PYTHON=…")'
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# $(call install,NAME): the locked packages of requirements/NAME.txt, then this project itself, editable.
define install
	@echo "installing requirements/$(1).txt"
	@$(PIP) install --progress-bar off --require-hashes -r requirements/build.txt -r requirements/$(1).txt \
	  | awk '/^Collecting/ { printf "  fetching %s\n", $$2 } /^Installing/ { print "  installing them" } { fflush() }'
	@$(PIP) install --quiet --no-deps --no-build-isolation -e clients/python -e .
	@touch $@
endef

$(VENV)/.sandbox: requirements/build.txt requirements/sandbox.txt pyproject.toml clients/python/pyproject.toml | $(BIN)/python
	$(call install,sandbox)

$(VENV)/.dev: requirements/build.txt requirements/dev.txt pyproject.toml clients/python/pyproject.toml | $(BIN)/python
	$(call install,dev)
	@touch $(VENV)/.sandbox

# Where there is no Go, the tests that need grpcurl skip and say so.
$(BIN)/grpcurl: | $(BIN)/python
	@if command -v go >/dev/null; then echo "installing grpcurl $(GRPCURL)"; \
	  GOBIN="$(CURDIR)/$(BIN)" GOFLAGS=-mod=mod go install github.com/fullstorydev/grpcurl/cmd/grpcurl@$(GRPCURL); fi

$(BIN)/kustomize: | $(BIN)/python
	@if command -v go >/dev/null; then echo "installing kustomize $(KUSTOMIZE)"; \
	  GOBIN="$(CURDIR)/$(BIN)" GOFLAGS=-mod=mod go install sigs.k8s.io/kustomize/kustomize/v5@$(KUSTOMIZE); fi

$(BIN)/ghz: | $(BIN)/python
	@if command -v go >/dev/null; then echo "installing ghz $(GHZ)"; \
	  GOBIN="$(CURDIR)/$(BIN)" GOFLAGS=-mod=mod go install github.com/bojand/ghz/cmd/ghz@$(GHZ); fi

# What the benchmarks compare with and draw with wants other versions than the server has.
$(VENV)/.bench: requirements/bench.txt | $(BIN)/python
	@echo "installing requirements/bench.txt into $(VENV)/bench"
	@$(BIN)/python -m venv $(VENV)/bench
	@$(VENV)/bench/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r $<
	@touch $@

$(VENV)/base.tar: scripts/base-image | $(BIN)/python
	scripts/base-image $@

# The generators of Go's stubs and its linter, as clients/go/tools/go.sum pins them.
$(BIN)/protoc-gen-go: clients/go/tools/go.mod clients/go/tools/go.sum | $(BIN)/python
	@if command -v go >/dev/null; then echo "installing the Go tools"; \
	  GOBIN="$(CURDIR)/$(BIN)" GOFLAGS= go -C clients/go/tools install tool && touch $@; fi

$(NODE_MODULES): clients/typescript/package.json clients/typescript/package-lock.json
	@if command -v npm >/dev/null; then echo "installing the packages of clients/typescript"; \
	  npm --prefix clients/typescript ci --no-audit --no-fund --loglevel=error && touch $@; fi

# The collector's own modules replace each other, which `go install` refuses; its builder takes the same versions.
$(BIN)/otelcol: tests/collector/manifest.yaml | $(BIN)/python
	@if command -v go >/dev/null; then echo "building the OpenTelemetry Collector $(COLLECTOR), which takes minutes"; \
	  GOBIN="$(CURDIR)/$(BIN)" GOFLAGS=-mod=mod go install go.opentelemetry.io/collector/cmd/builder@$(COLLECTOR); \
	  $(BIN)/builder --config $< >$(VENV)/otelcol.log 2>&1 || { cat $(VENV)/otelcol.log; exit 1; }; \
	  cp $(VENV)/otelcol/otelcol $@; fi
