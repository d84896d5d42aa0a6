# Two commands: `make run` does everything on a demo cohort, `make test` checks everything.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
COHORT ?= examples/demo.toml
NAME := $(basename $(notdir $(COHORT)))
export META_DX_HOME ?= $(CURDIR)/.meta_dx/$(NAME)
export META_DX_COHORT = $(abspath $(COHORT))
PORT ?= 3000
REVIEW_PORT ?= 8765
PYTEST := $(BIN)/python -m pytest
WEB := meta_dx/review/web
WEB_BUILT := meta_dx/review/static/manifest.json
WEB_MODULES := $(WEB)/node_modules/.package-lock.json
WEB_SETTINGS := $(WEB_MODULES) $(WEB)/vite.config.ts $(WEB)/tsconfig.json
WITH_NODE := $(WEB)/with-node.sh $(abspath $(BIN))/python

.PHONY: help install run test test-system lint web web-check review dagster doctor clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  make run COHORT=path/cohort.toml    the same on your own studies (meta-dx init writes one)"
	@echo "  META_DX_HOME=folder                 where everything is kept (now $(META_DX_HOME))"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "meta_dx needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.11 run" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (once; one to several minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: $(STAMP) ## make .venv and install what is needed

run: $(STAMP) ## everything, end to end, on the demo cohort (or COHORT=...)
	@$(MAKE) --no-print-directory web || \
	  echo "The review pages could not be built (they need Node.js and npm's packages once); the pipeline goes on without." >&2
	@if [ "$(COHORT)" = examples/demo.toml ]; then $(BIN)/meta-dx phantom .meta_dx/demo-studies --if-missing; fi
	@$(BIN)/python -m pipelines.run

test: lint web web-check ## lint, types, import contracts and all tests that need no service
	@$(PYTEST) -n 2 --dist worksteal -m "not system"

test-system: $(STAMP) web ## the tests that crash processes or need services
	@$(PYTEST) -m system

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

$(WEB_MODULES): $(WEB)/package.json $(WEB)/package-lock.json $(WEB)/.npmrc | $(STAMP)
	@echo "Installing what the review pages are built with ..."
	@$(WITH_NODE) npm ci --silent
	@touch $@

$(WEB_BUILT): $(WEB_SETTINGS) $(shell find $(WEB)/src $(WEB)/shims -type f)
	@$(WITH_NODE) npx --no-install vite build --logLevel warn

$(WEB)/node_modules/.checked: $(WEB_SETTINGS) $(shell find $(WEB)/src $(WEB)/test -type f)
	@$(WITH_NODE) npm run --silent check
	@touch $@

web: $(WEB_BUILT) ## the scripts and the style sheet of the review pages

web-check: $(WEB)/node_modules/.checked ## their types and tests

review: $(STAMP) web ## the clinician's review pages on this machine's loopback (COHORT=... as for run)
	@$(BIN)/meta-dx review serve --port $(REVIEW_PORT)

dagster: $(STAMP) ## the Dagster UI on this machine's loopback (COHORT=... as for run)
	@$(BIN)/python -m pipelines.ui --port $(PORT)

doctor: $(STAMP) ## what this machine can do, and what to do about what is missing
	@$(BIN)/meta-dx doctor

clean: ## remove the demo cohort and its home (not .venv)
	@rm -rf .meta_dx/demo .meta_dx/demo-studies
