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
PYTEST := $(BIN)/python -m pytest

.PHONY: help install run test test-system lint dagster doctor clean

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
	@if [ "$(COHORT)" = examples/demo.toml ]; then $(BIN)/meta-dx phantom .meta_dx/demo-studies --if-missing; fi
	@$(BIN)/python -m pipelines.run

test: lint ## lint, types, import contracts and all tests that need no service
	@$(PYTEST) -n 2 --dist worksteal -m "not system"

test-system: $(STAMP) ## the tests that crash processes or need services
	@$(PYTEST) -m system

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

dagster: $(STAMP) ## the Dagster UI on this machine's loopback
	@$(BIN)/python -m pipelines.ui --port $(PORT)

doctor: $(STAMP) ## what this machine can do, and what to do about what is missing
	@$(BIN)/meta-dx doctor

clean: ## remove the demo cohort and its home (not .venv)
	@rm -rf .meta_dx/demo .meta_dx/demo-studies
