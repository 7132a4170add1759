# On a fresh machine: make demo, make test, or make check (the fast tests, about 2 minutes).
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
SEED ?= 0
OUT ?= demo

.PHONY: demo test check lint clean

$(VENV)/.runtime: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/.runtime
	$(BIN)/cryogan demo -o $(OUT) --seed $(SEED)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

check: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not slow"

clean:
	rm -rf $(VENV) demo
