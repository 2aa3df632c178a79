# `make run` and `make test` are all that is needed on a fresh machine with Python 3.11 to 3.13 and git.
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
PY := .venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export HF_HUB_OFFLINE := 1
ARGS ?=

.PHONY: help setup setup-dev run test check bench results format clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/installed ## install the app into .venv

setup-dev: .venv/installed-dev ## install the app and what the tests need

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed and was not found. Install it, or say where it is: make run PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: requirements.txt constraints.txt | .venv/bin/python
	$(PY) -m pip install --quiet -r requirements.txt -c constraints.txt
	@touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	$(PY) -m pip install --quiet -r requirements-dev.txt -c constraints.txt
	@touch $@

run: setup ## set up, start the worker, open the app
	$(PY) -m cnsapp run $(ARGS)

test: setup-dev ## set up and run every test, the browser's too
	$(PY) tests/browser/ensure_chromium.py
	$(PY) -m pytest $(ARGS)

check: setup-dev ## lint and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: setup-dev ## put the code into its one form
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: setup-dev ## measure the numbers of docs/benchmarks.md, print them as a table, write them as JSON
	$(PY) tests/browser/ensure_chromium.py
	$(PY) -m benchmarks $(ARGS)

results: setup-dev ## make the table of docs/results.md (CNS_TEST_DATA names the folder of the sets); hours
	$(PY) -m benchmarks.results $(ARGS)

clean: ## remove what tests and benchmarks left; never the data folder
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis test-results bench-results
