# Two doors: `make demo` and `make test`. Each sets up what it needs in $(VENV), from Python >= 3.10 and pip alone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PYTHONWARNINGS ?= ignore

.PHONY: demo test lint style types tests clean

demo: $(VENV)/.installed
	$(BIN)/shacira demo --output-dir demo_output

# Pyright runs beside the tests, for it uses one core of two.
test: style
	$(MAKE) --no-print-directory --jobs=2 types tests

lint: style types

style: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/pyright --pythonpath $(BIN)/python

tests: $(VENV)/.installed-dev
	SHACIRA_TEST_BACKENDS=reference,cpu_numba $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

clean:
	rm -rf $(VENV) demo_output build *.egg-info

$(BIN)/python:
	$(PYTHON) -c 'import sys; assert (3, 10) <= sys.version_info < (3, 13), f"expected Python 3.10 to 3.12, found {sys.version}"'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@
