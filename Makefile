# On a fresh machine: make demo, make test, or make check (the fast tests, about 2 minutes).
# Further: make docs (the site, in site/), make packages (wheel and source archive, in dist/).
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
SEED ?= 0
OUT ?= demo

.PHONY: demo test check lint docs packages clean

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
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --durations 30

check: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m "not slow"

# The site reads the source code without importing it: torch is not needed.
.venv-docs/.done: pyproject.toml
	test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check $$(sed -n 's/^docs = \[\(.*\)\]$$/\1/p' pyproject.toml | tr -d ',"')
	touch $@

docs: .venv-docs/.done
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

packages: .venv-docs/.done
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check build
	.venv-docs/bin/python -m build

clean:
	rm -rf $(VENV) .venv-docs site demo
