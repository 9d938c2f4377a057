# What a person types here. `make train` and `make test` set everything up themselves, once.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Pictures are drawn without a screen, and no library reports its use to anybody.
export MPLBACKEND := Agg
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help setup train test check lint types tests format clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /\1\t/' | expand -t 10

setup: $(INSTALLED)  ## make .venv and install the pinned packages

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, found " + sys.version.split()[0] + "; name one with: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --no-input --requirement constraints.txt
	@touch $@

train: $(INSTALLED)  ## train, validate and evaluate on the built-in synthetic phantom: minutes on a CPU
	$(BIN)/python -m monai.bundle run training --config_file "['configs/train.json','configs/quickstart.yaml']"
	$(BIN)/python -m monai.bundle run evaluating --config_file "['configs/train.json','configs/quickstart.yaml','configs/evaluate.json']"

test: lint types tests  ## everything that must pass: lint, types, tests with coverage

check: lint types  ## lint and types alone

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

tests: export OMP_NUM_THREADS := 1
tests: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal --cov --cov-report=term

format: $(INSTALLED)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment, caches and build files; runs and data stay
	rm -rf $(VENV) build *.egg-info .coverage .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
