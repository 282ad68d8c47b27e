# Everything a person does with a checkout. `make help` lists it.
# Needs Python 3.11 or newer with venv, and make; the rest is set up on first use.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= $(shell nproc 2>/dev/null || echo 2)

# real measurements, when they stand beside the checkout
ifndef BATTERYOPS_DATA
ifneq ($(wildcard ../shared/data),)
export BATTERYOPS_DATA := $(abspath ../shared/data)
endif
endif

# threads that wait must not keep a core from those that work; the command line sets it for itself
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench bench-serving bench-drift bench-peers results docs lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[36m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

setup: $(READY) ## make .venv with the locked dependencies

demo: $(READY) ## the main job: raw cycles to a served, gated model, and one page that shows it
	$(BIN)/batteryops demo

test: $(READY) ## all tests, with coverage
	$(BIN)/coverage erase
	$(BIN)/pytest --numprocesses $(WORKERS) --cov --cov-report=
	$(BIN)/coverage report

check: $(READY) ## formatter, linter, types, floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## measure what the README claims, side by side
	$(BIN)/python -m benchmarks.run

bench-serving: $(READY) ## its part on serving alone
	$(BIN)/python -m benchmarks.serving

bench-drift: $(READY) ## its part on drift alone
	$(BIN)/python -m benchmarks.drift

bench-peers: $(READY) ## install what ours is held against, each in its own environment
	$(BIN)/python -m benchmarks.serving.setup all
	$(BIN)/python -m benchmarks.drift --install

results: $(READY) ## regenerate docs/RESULTS.md and README's table
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.results

docs: $(READY) ## regenerate the generated pages, alert rules and dashboards
	$(BIN)/python -m batteryops.features.reference docs/FEATURES.md
	$(BIN)/python -m batteryops.monitoring.repository_files

lock: ## resolve the dependencies anew (needs uv)
	uv lock --upgrade
	uv export --quiet --frozen --group dev --no-emit-project --no-annotate --no-header --output-file requirements.lock

clean: ## remove what the other targets made
	rm -rf $(VENV) .batteryops .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage htmlcov
