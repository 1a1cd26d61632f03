# `make help` lists the targets. Nothing is needed but make and python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV := $(VENV)/.ready-dev
RUN ?=
ROOT ?=
ARGS ?=
ROOM ?=
NAME ?=
DEST ?=

# small tensors: a second thread in each worker costs more than it brings
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --durations=10
# a file's tests stay together, and one worker takes all files that launch processes
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder
# a room's own tests and the files named after it elsewhere: balancing, data/table, checkpoint
TESTS = $(if $(ROOM),$(or $(wildcard tests/$(ROOM) tests/$(dir $(ROOM))test_$(notdir $(ROOM)).py \
	tests/*/test_$(ROOM).py),$(error ROOM=$(ROOM): no tests/$(ROOM) and no test_$(ROOM).py)))

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev train test test-slow lint format bench bench-parallel parity study \
	results tensorboard notebooks fork lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

# a new environment whenever the lock of what a run needs changes, none otherwise
$(READY): .requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "make: installing the $$(grep -c == $<) packages that a run needs into $(VENV), once"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/pip install -qq --disable-pip-version-check -r $<
	@touch $@

$(DEV): .requirements-dev.lock $(READY)
	@echo "make: adding the $$(grep -c == $<) packages that tests and checks need to $(VENV), once"
	@$(BIN)/pip install -qq --disable-pip-version-check -c .requirements.lock -r $<
	@touch $@

setup: $(READY) ## install what a run needs, as locked, into .venv

setup-dev: $(DEV) ## install what tests and checks need, too

train: $(READY) ## train the main job: four tasks on digits (ARGS="--devices 2" adds flags)
	@echo "make: training four tasks on the embedded digits (python -m src.train $(ARGS))"
	@$(BIN)/python -m src.train $(ARGS)
	@echo "make: the run is in logs/; make tensorboard shows it"

test: $(DEV) ## run the tests on all cores; ROOM=balancing runs those of one room
	$(PYTEST) $(PARALLEL) $(TESTS)

test-slow: $(DEV) ## run the tests that take minutes, and a longer search for counterexamples
	$(PYTEST) $(PARALLEL) -m "slow or hypothesis" --hypothesis-profile=search $(TESTS)

lint: $(DEV) ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV) ## put the code into the one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(DEV) ## measure the cost of a step and of feeding data, into tests/benchmarks/RESULTS.md
	$(BIN)/python -m tests.benchmarks

bench-parallel: $(DEV) ## measure what two processes bring and cost, into the same file
	$(BIN)/python -m tests.benchmarks.parallel

study: $(DEV) ## run the published studies, into tests/benchmarks/STUDIES.md; ROOT=folder of Adult
	$(BIN)/python -m tests.benchmarks.studies --parallel 2 digits-balancing \
		$(if $(ROOT),adult --root $(ROOT))

results: $(DEV) ## train the published experiments, into tests/benchmarks/RESULTS.md; ROOT=folder of data sets
	$(BIN)/python -m tests.benchmarks.results --root "$(ROOT)" --parallel 2 $(ARGS)

parity: $(DEV) ## run everything on every topology, into tests/benchmarks/PARITY.md (half an hour)
	$(BIN)/python -m tests.integration.parity

tensorboard: $(READY) ## watch all runs in TensorBoard
	$(BIN)/tensorboard --logdir logs

notebooks: $(DEV) ## execute every notebook, and keep its tables and figures
	$(BIN)/python -m tests.notebooks

fork: $(READY) ## start a project of your own: make fork NAME=mylab DEST=../mylab
	@$(BIN)/python -m src.fork --name "$(NAME)" --dest "$(DEST)"

lock: ## renew both locks from pyproject.toml
	$(PYTHON) -m venv --clear .venv-lock
	.venv-lock/bin/pip install --quiet torch==2.13.0
	.venv-lock/bin/python .ci/lock.py
	rm -rf .venv-lock

clean: ## remove the environment, caches and test leftovers; runs in logs/ stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
