# `make help` lists the targets. Nothing is needed but make and python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RUN ?=

.DEFAULT_GOAL := help
.PHONY: help setup train test test-slow lint format bench bench-parallel parity tensorboard notebooks lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

# a new environment whenever the lock changes, none otherwise
$(READY): .requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r .requirements.lock
	@touch $@

setup: $(READY) ## install the locked packages into .venv

train: $(READY) ## train the main job: four tasks on digits (ARGS="--devices 2" adds flags)
	$(BIN)/python -m src.train $(ARGS)

test: $(READY) ## run the tests, on all cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test-slow: $(READY) ## run the tests that take minutes
	$(BIN)/python -m pytest -m slow
	$(BIN)/python -m pytest -m hypothesis --hypothesis-profile=search

lint: $(READY) ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## put the code into the one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## measure the cost of a step and of feeding data, into tests/benchmarks/RESULTS.md
	$(BIN)/python -m tests.benchmarks

bench-parallel: $(READY) ## measure what two processes bring and cost, into the same file
	$(BIN)/python -m tests.benchmarks.parallel

parity: $(READY) ## run everything on every topology, into tests/benchmarks/PARITY.md (half an hour)
	$(BIN)/python -m tests.integration.parity

tensorboard: $(READY) ## watch all runs in TensorBoard
	$(BIN)/tensorboard --logdir logs

notebooks: $(READY) ## execute every notebook, leaving them as they are
	$(BIN)/python -m pytest -m "slow or not slow" tests/test_notebooks.py

lock: ## renew .requirements.lock from pyproject.toml
	$(PYTHON) -m venv --clear .venv-lock
	.venv-lock/bin/pip install --quiet torch==2.13.0
	.venv-lock/bin/python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print('\n'.join(p['dependencies'] + p['optional-dependencies']['dev']))" > .venv-lock/wanted
	.venv-lock/bin/pip install --quiet -r .venv-lock/wanted
	.venv-lock/bin/pip freeze --exclude pip | sed 's/+cpu//' > .requirements.lock
	rm -rf .venv-lock

clean: ## remove the environment, caches and test leftovers; runs in logs/ stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
