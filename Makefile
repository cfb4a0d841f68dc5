# Every target does its own set-up, once; `make help` lists them.
#
#   PYTHON        the interpreter to start from (3.11 or newer)
#   TORCH_INDEX   address of an index with CPU builds of torch, where pip's own places have none: without one the
#                 plain build is taken, with several GB of CUDA libraries

SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
TORCH := $(shell sed -n 's/.*"\(torch==[0-9.]*\)".*/\1/p' pyproject.toml)
READY := $(VENV)/.ready
BENCH := .venv-bench
BENCH_READY := $(BENCH)/.ready

.PHONY: demo test chaos chromium check fix bench clean help setup
.DEFAULT_GOAL := help

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-23s %s\n", $$1, $$2}' Makefile

demo: $(READY) ## ingest the documentation of Ray, ask it two questions
	@$(BIN)/python -m cluster.demo

test: $(READY) chromium ## the tests, two files at a time
	@$(BIN)/python -m pytest -n 2 --dist loadfile

chaos: $(READY) ## the long trials: everything is killed under load, again and again
	@$(BIN)/python -m pytest -m chaos

chromium:
	@command -v chromium chromium-browser google-chrome google-chrome-stable >/dev/null \
		|| { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && echo "installing Chromium for the tests of the page" \
			&& apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; } \
		|| { echo "error: the tests of the page need Chromium; install it (Debian: apt-get install chromium)" >&2; exit 1; }

check: $(READY) ## lint, format, types, layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fix: $(READY) ## repair what can be repaired
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(BENCH_READY) ## measure against what else there is; needs TANDEM_DATA or ../shared/data
	@$(BENCH)/bin/python tests/bench/run.py

recipe-reader: ## train the reader that Tandem carries, from the data in TANDEM_DATA or ../shared/data
recipe-reranker: ## train the reranker that Tandem carries
recipe-embedder-scifact: ## fine-tune the embedder on SciFact

recipe-%: $(READY)
	@$(BIN)/python -m cluster.recipe $*

clean: ## remove what make and the demo made
	rm -rf $(VENV) $(BENCH) build dist *.egg-info tandem-store .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

setup: $(READY) ## only the set-up

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no python3 found; install Python 3.11 or newer, or set PYTHON" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is $$($(PYTHON) --version); Python 3.11 or newer is needed, set PYTHON" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
		|| { echo "error: $(PYTHON) has no venv; install it (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@echo "setting up $(VENV) (once; some minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install -q $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	@$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

$(BENCH_READY): $(READY) tests/bench/requirements.txt
	@$(BIN)/python -m venv $(BENCH)
	@printf '%s\n' "$$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])')" "$(CURDIR)" \
		> "$$($(BENCH)/bin/python -c 'import site; print(site.getsitepackages()[0])')/project.pth"
	@$(BENCH)/bin/python -m pip install -q -r tests/bench/requirements.txt
	@touch $@
